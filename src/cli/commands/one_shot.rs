//! Common parts of the commands that ask the database once: its DSN, the bounds of a call, and how
//! a failure is reported.

use std::io;
use std::process::ExitCode;

use crate::cli::settings::layers::Layers;
use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::setting::Texts;
use crate::cli::settings::{Env, database};
use crate::cli::terminal::message::{complain, database_failed, say, warn, why_missing};
use crate::cli::terminal::output::Unwritten;
use crate::domain::config::LogLevel;
use crate::domain::usage::{EXIT_FAILED, UsageError};
use crate::store::dsn::Dsn;
use crate::store::{self, Session, StoreError, Timeouts, io_cause};
use crate::system::logging;

/// Declares the options of a command that needs the database: its own, and behind them those of the
/// DSN.
macro_rules! one_shot_args {
    ($(#[$about:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Debug, Default, Clone, PartialEq, Eq, argh::FromArgs, argh::ArgsInfo)]
        pub struct $name {
            $($own)*
            #[argh(option, arg_name = "dsn")]
            /// where the database is: `host=… dbname=…` or postgresql://…
            pub dsn: Option<String>,
            #[argh(option, arg_name = "file")]
            /// file that holds the dsn, so that no process list shows it
            pub dsn_file: Option<String>,
            #[argh(option, arg_name = "file")]
            /// configuration file (TOML) of `run`, for the dsn in it
            pub config: Option<String>,
            #[argh(option, arg_name = "seconds")]
            /// bound of one attempt to connect to the database [default: …]
            pub connect_timeout: Option<String>,
            #[argh(option, arg_name = "seconds")]
            /// bound of one statement [default: …]
            pub query_timeout: Option<String>,
        }

        impl $name {
            /// The settings among the options, by their names.
            fn given(&self) -> crate::cli::settings::setting::Texts {
                use crate::cli::settings::run::SETTINGS;
                crate::cli::settings::setting::typed([
                    (SETTINGS.dsn.name, self.dsn.clone()),
                    (SETTINGS.dsn_file.name, self.dsn_file.clone()),
                    (SETTINGS.config.name, self.config.clone()),
                    (SETTINGS.connect_timeout.name, self.connect_timeout.clone()),
                    (SETTINGS.query_timeout.name, self.query_timeout.clone()),
                ])
            }
        }
    };
}
pub(in crate::cli) use one_shot_args;

/// The database to work in.
pub(in crate::cli) struct Target {
    pub(in crate::cli) dsn: Dsn,
    pub(in crate::cli) timeouts: Timeouts,
    pub(in crate::cli) log_level: LogLevel,
    pub(in crate::cli) warnings: Vec<String>,
}

impl Target {
    /// Resolves the database from the options, the environment and the file.
    pub(in crate::cli) fn resolve(given: Texts, env: &Env) -> Result<Target, UsageError> {
        let mut layers = Layers::gather(given, env)?;
        let dsn = database::resolve(&mut layers, env)?;
        Target::with(dsn, &mut layers)
    }

    /// Resolves the database as [`resolve`](Target::resolve) does, or returns `None` when no place
    /// names one.
    pub(in crate::cli) fn resolve_optional(
        layers: &mut Layers,
        env: &Env,
    ) -> Result<Option<Target>, UsageError> {
        database::resolve_optional(layers, env)?
            .map(|dsn| Target::with(dsn, layers))
            .transpose()
    }

    fn with(dsn: Dsn, layers: &mut Layers) -> Result<Target, UsageError> {
        let timeouts = Timeouts {
            connect: layers.read(&SETTINGS.connect_timeout)?,
            query: layers.read(&SETTINGS.query_timeout)?,
        };
        Ok(Target {
            dsn,
            timeouts,
            log_level: layers.read(&SETTINGS.log_level)?,
            warnings: std::mem::take(&mut layers.warnings),
        })
    }

    /// Connects; `command` is what the server's list of connections shows.
    pub(in crate::cli) fn connect(&self, command: &str) -> Result<Session, StoreError> {
        store::connect(&self.dsn, &self.timeouts, &format!("dispatchbox {command}"))
    }
}

/// Why a command could not do its work.
pub(in crate::cli) enum Failure {
    /// The command was called wrongly.
    Usage(UsageError),
    /// The database refused a call or was away.
    Store(StoreError),
    /// Anything else, in words.
    Other(String),
    /// The reader of standard output has closed it, so the rest of the work has no purpose.
    OutputClosed,
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        Failure::Usage(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl From<Unwritten> for Failure {
    fn from(error: Unwritten) -> Failure {
        Failure::Other(error.to_string())
    }
}

impl Failure {
    /// A failed write to standard output or a file; `where_to` completes "could not write".
    pub(in crate::cli) fn of_write(where_to: &str, error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::OutputClosed;
        }
        Failure::Other(format!("could not write {where_to}: {}", io_cause(error)))
    }
}

/// Does what [`run`] does, for commands that read events: warns where row-level security hides some
/// of them, since the server does not say so.
pub(in crate::cli) fn look<T>(
    command: &str,
    given: Texts,
    env: &Env,
    read: impl FnOnce() -> Result<T, UsageError>,
    work: impl FnOnce(&mut Session, T) -> Result<ExitCode, Failure>,
) -> ExitCode {
    run(command, given, env, read, |session, wanted| {
        // Where this look fails, the work fails, too, and its error says more.
        let hidden = session.hidden_from_readers().unwrap_or_default();
        warn(hidden.as_slice());
        work(session, wanted)
    })
}

/// Reads the options by `read`, connects, and does `work` with the result; reports a failure and
/// gives the exit code.
pub(in crate::cli) fn run<T>(
    command: &str,
    given: Texts,
    env: &Env,
    read: impl FnOnce() -> Result<T, UsageError>,
    work: impl FnOnce(&mut Session, T) -> Result<ExitCode, Failure>,
) -> ExitCode {
    let hint = format!("`dispatchbox help {command}` lists its options");
    let resolved = read().and_then(|wanted| Ok((wanted, Target::resolve(given, env)?)));
    let (wanted, target) = match resolved {
        Ok(resolved) => resolved,
        Err(error) => return complain(&error.hint(hint)),
    };
    warn(&target.warnings);
    logging::init(target.log_level, "dispatchbox");
    let mut why = None;
    let done = target
        .connect(command)
        .map_err(Failure::from)
        .and_then(|mut session| {
            work(&mut session, wanted).inspect_err(|failure| {
                if let Failure::Store(error) = failure {
                    why = why_missing(&mut session, error);
                }
            })
        });
    match done {
        Ok(code) => code,
        Err(Failure::Usage(error)) => complain(&error.hint(hint)),
        Err(Failure::Store(error)) => database_failed(&error, &target.dsn, why),
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Other(text)) => {
            say(&format!("error: {text}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}
