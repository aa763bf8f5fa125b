//! `dispatchbox doctor`: looks at the live database and the settings of the daemon, and says what
//! is wrong, how bad that is, and what mends it.
//!
//! It changes nothing. Each check is a statement under `sql/doctor/` or a function in `checks`, and
//! stands in the table there; a check that fails or has no right to look does not stop the others.
//! What is not known is not a fault: it does not change the exit code.

mod checks;
mod view;

use std::process::ExitCode;

use crate::cli::commands::doctor::checks::{CHECKS, Patient};
use crate::cli::commands::doctor::view::Report;
use crate::cli::commands::one_shot::{Target, one_shot_args};
use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::setting::{Texts, typed};
use crate::cli::settings::{self, Env};
use crate::cli::terminal;
use crate::cli::terminal::message::{complain, remedy};
use crate::cli::terminal::output::finish;
use crate::domain::config::Config;
use crate::domain::usage::UsageError;
use crate::handlers::{Handlers, Routes};
use crate::store::doctor::{Finding, Level};
use crate::store::{StoreError, Timeouts};
use crate::system::logging;

one_shot_args! {
    /// Options of `doctor`, as the daemon has them.
    pub struct DoctorArgs {
        #[argh(option, arg_name = "pattern=handler")]
        /// a route of the daemon; those of --config are read, too
        pub route: Vec<String>,
        #[argh(option, arg_name = "word")]
        /// what becomes of events that no route takes: `fail` or `leave` [default: …]
        pub unrouted: Option<String>,
        #[argh(option, arg_name = "n")]
        /// worker processes of the daemon [default: …]
        pub processes: Option<String>,
        #[argh(option, arg_name = "n")]
        /// database connections of each worker process [default: …]
        pub pool_size: Option<String>,
        #[argh(option, arg_name = "seconds")]
        /// how long a claim of the daemon holds its events [default: …]
        pub lease_seconds: Option<String>,
        #[argh(switch)]
        /// print one JSON object
        pub json: bool,
    }
}

/// The daemon whose database is looked at.
struct Daemon {
    config: Config,
    /// What follows from a lease that is shorter than a handler may take.
    hint: Option<String>,
    /// The routes, where any are given.
    routes: Option<Routes>,
    target: Target,
}

/// Runs the command; `handlers` are those that the program itself brings.
pub fn run(args: &DoctorArgs, env: &Env, handlers: &Handlers) -> ExitCode {
    let daemon = match Daemon::read(args, env, handlers) {
        Ok(daemon) => daemon,
        Err(error) => return complain(&error.hint("`dispatchbox help doctor` lists its options")),
    };
    logging::init(daemon.config.log_level, "dispatchbox");
    let report = examine(&daemon);
    let text = if args.json {
        terminal::safe_json(&report.json().to_string()) + "\n"
    } else {
        report.text(terminal::width())
    };
    finish(&text, report.exit_code())
}

impl Daemon {
    fn read(args: &DoctorArgs, env: &Env, handlers: &Handlers) -> Result<Daemon, UsageError> {
        let given = args.given_of_daemon();
        let read = settings::read_daemon(given, &args.route, env, handlers)?;
        let config = read.config;
        let has_routes = !config.routes.is_empty() || handlers.has_routes();
        let routes = has_routes
            .then(|| Routes::new(&config, handlers))
            .transpose()
            .map_err(|error| UsageError::new(error.to_string()))?;
        let target = Target {
            dsn: read.dsn,
            timeouts: Timeouts {
                connect: config.connect_timeout,
                query: config.query_timeout,
            },
            log_level: config.log_level,
            warnings: read.warnings,
        };
        Ok(Daemon {
            config,
            hint: read.hint,
            routes,
            target,
        })
    }
}

impl DoctorArgs {
    fn given_of_daemon(&self) -> Texts {
        let mut given = self.given();
        given.extend(typed([
            (SETTINGS.unrouted.name, self.unrouted.clone()),
            (SETTINGS.processes.name, self.processes.clone()),
            (SETTINGS.pool_size.name, self.pool_size.clone()),
            (SETTINGS.lease_seconds.name, self.lease_seconds.clone()),
        ]));
        given
    }
}

fn examine(daemon: &Daemon) -> Report {
    let mut report = Report::default();
    report.add("settings", "nothing in them contradicts", odd(daemon));
    // The worker renews its leases, so this is no fault.
    let hint = daemon.hint.iter().map(|hint| Finding::new(Level::Ok, hint));
    let fine = "longer than any handler may take";
    report.add("lease", fine, hint.collect());
    let connected = daemon.target.connect("doctor").and_then(|mut session| {
        session.begin_checkup()?;
        Ok(session)
    });
    let mut session = match connected {
        Ok(session) => session,
        Err(error) => {
            let mut finding = Finding::new(Level::Error, error.to_string());
            finding.remedy = Some(remedy(&error).map_or_else(
                || format!("the database is {}", daemon.target.dsn.display()),
                str::to_owned,
            ));
            report.add("connection", "", vec![finding]);
            return report;
        }
    };
    let mut patient = Patient::new(&mut session, daemon);
    for check in CHECKS {
        let findings = check
            .look(&mut patient)
            .unwrap_or_else(|error| vec![not_known(&error)]);
        report.add(check.name, check.fine, findings);
    }
    report
}

/// Says why a check has no result; the others go on.
fn not_known(error: &StoreError) -> Finding {
    let finding = Finding::new(Level::Unknown, format!("not known: {error}"));
    match remedy(error) {
        Some(remedy) => finding.remedy(remedy),
        None => finding,
    }
}

fn odd(daemon: &Daemon) -> Vec<Finding> {
    let warnings = daemon.target.warnings.iter();
    warnings
        .map(|text| Finding::new(Level::Warning, text))
        .collect()
}
