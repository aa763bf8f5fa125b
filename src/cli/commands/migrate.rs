//! `dispatchbox migrate`: brings the schema into the database, prints it, or checks that it is
//! there.

use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use crate::cli::commands::one_shot::Target;
use crate::cli::settings::Env;
use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::setting::{Texts, typed};
use crate::cli::terminal::message::{complain, database_failed, say, warn};
use crate::cli::terminal::output::{self, Unwritten, finish};
use crate::domain::usage::{EXIT_CONFIG, UsageError};
use crate::store::dsn::Dsn;
use crate::store::schema::{self, Flaws};
use crate::store::{OutOfReach, Session, StoreError};
use crate::system::logging;

/// Hint of a usage error.
const HINT: &str = "`dispatchbox help migrate` lists its options";

/// Options of `migrate`.
#[derive(Debug, Default, Clone, PartialEq, Eq, FromArgs, ArgsInfo)]
pub struct MigrateArgs {
    #[argh(option, arg_name = "dsn")]
    /// where the database is: `host=… dbname=…` or postgresql://…
    pub dsn: Option<String>,
    #[argh(option, arg_name = "file")]
    /// file that holds the dsn, so that no process list shows it
    pub dsn_file: Option<String>,
    #[argh(option, arg_name = "file")]
    /// configuration file (TOML), of which `migrate` needs only the dsn
    pub config: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// bound of one attempt to connect to the database [default: …]
    pub connect_timeout: Option<String>,
    #[argh(option, arg_name = "level")]
    /// DEBUG, INFO, WARNING, ERROR or CRITICAL [default: …]
    pub log_level: Option<String>,
    #[argh(switch)]
    /// print the SQL instead of running it
    pub print: bool,
    #[argh(switch)]
    /// change nothing; list what is missing, outdated or unfit, and exit with 78 if anything is
    pub check: bool,
}

/// Runs the command.
pub fn run(args: &MigrateArgs, env: &Env) -> ExitCode {
    if args.print && args.check {
        let error = UsageError::new("--print and --check exclude each other");
        return complain(&error.hint(HINT));
    }
    if args.print {
        return finish(schema::SCHEMA, ExitCode::SUCCESS);
    }
    let target = match Target::resolve(args.given(), env) {
        Ok(mut target) => {
            // The bound that is set for a daemon may be short, since its statements are; a
            // migration takes the default.
            target.timeouts.query = SETTINGS.query_timeout.default;
            target
        }
        Err(error) => return complain(&error.hint(HINT)),
    };
    warn(&target.warnings);
    logging::init(target.log_level, "migrate");
    let mut page = Page::default();
    let mut elsewhere = None;
    let done = target.connect("migrate").and_then(|mut session| {
        elsewhere = session.out_of_reach()?;
        if args.check {
            let found = schema::check(&mut session)?;
            // This is printed first: it may be the only thing that is wrong.
            if let Some(elsewhere) = &elsewhere {
                page.print(&format!("elsewhere: {}\n", elsewhere.fact()));
            }
            advise(&found.advice, &mut page);
            Ok(report(&found.flaws, &mut page))
        } else {
            page.print(&format!("database {}\n", target.dsn.display()));
            migrate(&mut session, &mut page)
        }
    });
    match (done, page.lost) {
        (Ok(_), Some(lost)) => lost.complain(),
        (Ok(code), None) => code,
        (Err(error), _) => failed(&error, &target.dsn, elsewhere.as_ref()),
    }
}

impl MigrateArgs {
    fn given(&self) -> Texts {
        typed([
            (SETTINGS.dsn.name, self.dsn.clone()),
            (SETTINGS.dsn_file.name, self.dsn_file.clone()),
            (SETTINGS.config.name, self.config.clone()),
            (SETTINGS.connect_timeout.name, self.connect_timeout.clone()),
            (SETTINGS.log_level.name, self.log_level.clone()),
        ])
    }
}

/// Standard output, line by line. A failure to write is remembered and reported at the end: a
/// migration that has begun is not broken off for it.
#[derive(Default)]
struct Page {
    lost: Option<Unwritten>,
}

impl Page {
    fn print(&mut self, text: &str) {
        if self.lost.is_none() {
            self.lost = output::print(text).err();
        }
    }
}

/// Prints each step as it begins, since some steps take long.
fn migrate(session: &mut Session, page: &mut Page) -> Result<ExitCode, StoreError> {
    let done = schema::migrate(session, &mut |step| page.print(&format!("{step}\n")))?;
    advise(&done.advice, page);
    if !done.left.is_empty() {
        return Ok(report(&done.left, page));
    }
    page.print(if done.done.is_empty() {
        "the schema is complete: nothing to do\n"
    } else {
        "the schema is complete\n"
    });
    Ok(ExitCode::SUCCESS)
}

fn advise(advice: &[String], page: &mut Page) {
    for advice in advice {
        page.print(&format!("advice: {advice}\n"));
    }
}

fn report(flaws: &Flaws, page: &mut Page) -> ExitCode {
    if flaws.is_empty() {
        page.print("the schema is complete\n");
        return ExitCode::SUCCESS;
    }
    for (what, names) in [
        ("missing", &flaws.missing),
        ("outdated", &flaws.outdated),
        ("unfit", &flaws.unfit),
        ("unfit", &flaws.hidden),
    ] {
        for name in names {
            page.print(&format!("{what}: {name}\n"));
        }
    }
    ExitCode::from(EXIT_CONFIG)
}

/// The hints of the other commands lead here.
fn failed(error: &StoreError, dsn: &Dsn, elsewhere: Option<&OutOfReach>) -> ExitCode {
    let hint = if error.is_permission_denied() {
        "`migrate` is for the owner of the tables".to_owned()
    } else if !error.is_schema() {
        return database_failed(error, dsn, None);
    } else if let Some(elsewhere) = elsewhere {
        elsewhere.remedy_of_migrate()
    } else {
        "make the schema that the search_path names, or name one that is there".to_owned()
    };
    say(&format!("error: {error}\nhint: {hint}\n"));
    ExitCode::from(EXIT_CONFIG)
}
