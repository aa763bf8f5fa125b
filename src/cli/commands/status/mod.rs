//! `dispatchbox status`: how the daemon and its work stand, once or again and again.
//!
//! The daemon sends most of the status, from what it knows anyway, so that watching costs it and
//! the database next to nothing. What is missing (the daemon does not answer, or has no fresh
//! survey of the table) is read from the database, if its DSN is known. Nothing is hidden: a daemon
//! or database that did not answer is named, with the reason.

mod cells;
mod daemon;
mod database;
mod levels;
mod view;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use self::daemon::{DaemonClient, Silence};
use self::database::TableClient;
use self::view::StatusView;
use crate::cli::commands::one_shot::{Target, one_shot_args};
use crate::cli::settings::Env;
use crate::cli::settings::layers::Layers;
use crate::cli::settings::run::SETTINGS;
use crate::cli::terminal;
use crate::cli::terminal::message::{complain, is_unreachable, remedy, say, warn};
use crate::cli::terminal::output::{self, Unwritten};
use crate::domain::usage::{EXIT_FAILED, EXIT_UNAVAILABLE, UsageError};
use crate::store::StoreError;
use crate::system::logging;
use crate::system::signal::SignalThread;

/// Pause between two looks: as often as a person reads, and several times within the span of the
/// daemon's rates.
const EVERY: Duration = Duration::from_secs(2);

one_shot_args! {
    /// Options of `status`.
    pub struct StatusArgs {
        #[argh(option, arg_name = "url")]
        /// where the daemon's HTTP port is [default: http://127.0.0.1:8080, or as http-host and
        /// http-port of environment and file say]
        pub url: Option<String>,
        #[argh(option, arg_name = "file")]
        /// file that holds the token of the daemon's API
        pub api_token_file: Option<String>,
        #[argh(switch)]
        /// look again every 2 s until told to stop; meant on a terminal
        pub watch: bool,
        #[argh(switch)]
        /// look once, also on a terminal
        pub once: bool,
        #[argh(switch)]
        /// print one JSON object a look
        pub json: bool,
    }
}

/// Runs the command.
pub fn run(args: &StatusArgs, env: &Env) -> ExitCode {
    let (mut watcher, warnings) = match Watcher::resolve(args, env) {
        Ok(resolved) => resolved,
        Err(error) => return complain(&error.hint("`dispatchbox help status` lists its options")),
    };
    warn(&warnings);
    let is_terminal = io::stdout().is_terminal();
    let is_watching = args.watch || is_terminal && !args.once && !args.json;
    if is_watching {
        return watcher.watch(args.json, is_terminal);
    }
    let look = watcher.look();
    output::finish(&look.render(args.json, terminal::width()), look.exit_code())
}

/// Asks the daemon and the database.
struct Watcher {
    daemon: DaemonClient,
    table: Option<TableClient>,
}

/// The results of one look.
struct Look {
    daemon: Result<Value, Silence>,
    /// The answer of the database; `None` where it was not needed, or its DSN is not known.
    table: Option<Result<Value, StoreError>>,
    /// What makes the database answer more.
    hint: Option<String>,
    url: String,
}

impl Watcher {
    fn resolve(args: &StatusArgs, env: &Env) -> Result<(Watcher, Vec<String>), UsageError> {
        if args.watch && args.once {
            return Err(UsageError::new("--watch and --once exclude each other"));
        }
        let mut given = args.given();
        if let Some(path) = &args.api_token_file {
            given.insert(SETTINGS.api_token_file.name, path.clone());
        }
        let mut layers = Layers::gather(given, env)?;
        let daemon = DaemonClient::resolve(args.url.as_deref(), &mut layers)?;
        let target = Target::resolve_optional(&mut layers, env)?;
        logging::init(layers.read(&SETTINGS.log_level)?, "dispatchbox");
        let warnings = std::mem::take(&mut layers.warnings);
        let table = target.map(TableClient::new);
        Ok((Watcher { daemon, table }, warnings))
    }

    fn look(&mut self) -> Look {
        let daemon = self.daemon.ask();
        let is_told = daemon
            .as_ref()
            .is_ok_and(|status| !status["backlog"].is_null() && !status["dead"].is_null());
        let table = match &mut self.table {
            Some(table) if !is_told => Some(table.ask()),
            Some(_) | None => None,
        };
        let failed = table.as_ref().and_then(|table| table.as_ref().err());
        let why = self.table.as_ref().and_then(|table| table.why.clone());
        let hint = why.or_else(|| failed.and_then(remedy).map(str::to_owned));
        Look {
            daemon,
            hint,
            table,
            url: self.daemon.shown().to_owned(),
        }
    }

    fn watch(&mut self, is_json: bool, is_terminal: bool) -> ExitCode {
        let signals = match SignalThread::start() {
            Ok(signals) => signals,
            Err(error) => {
                say(&format!("error: could not listen to signals: {error}\n"));
                return ExitCode::from(EXIT_FAILED);
            }
        };
        let is_drawn = is_terminal && !is_json;
        loop {
            let look = self.look();
            let text = look.render(is_json, terminal::width());
            let text = if is_drawn {
                terminal::redrawn(&text)
            } else {
                text
            };
            if let Err(error) = output::write(&text) {
                let unwritten = Unwritten::of(&error);
                return unwritten.map_or(ExitCode::SUCCESS, |error| error.complain());
            }
            if signals.received.recv_timeout(EVERY).is_ok() {
                return ExitCode::SUCCESS;
            }
        }
    }
}

impl Look {
    fn render(&self, is_json: bool, width: Option<usize>) -> String {
        if is_json {
            return terminal::safe_json(&self.json().to_string()) + "\n";
        }
        let mut text = String::new();
        match &self.daemon {
            Ok(status) => {
                let is_told_below = matches!(self.table, Some(Ok(_)));
                text.push_str(&StatusView { status, width }.daemon(is_told_below));
            }
            Err(silence) => {
                text.push_str(&terminal::cut(
                    &logging::escape(&silence.sentence(&self.url)),
                    width.unwrap_or(usize::MAX),
                ));
                text.push('\n');
            }
        }
        match &self.table {
            None if self.daemon.is_err() => {
                text.push_str("the database is not known: --dsn shows what it tells\n");
            }
            None => {}
            Some(Ok(status)) => {
                text.push('\n');
                text.push_str(&StatusView { status, width }.table());
            }
            Some(Err(error)) => {
                let what = if is_unreachable(error) {
                    "the database does not answer"
                } else {
                    "the database tells nothing"
                };
                text.push_str(&logging::escape(&format!("{what}: {error}")));
                text.push('\n');
                if let Some(hint) = &self.hint {
                    text.push_str(&logging::escape(&format!("hint: {hint}")));
                    text.push('\n');
                }
            }
        }
        text
    }

    fn json(&self) -> Value {
        let table = self.table.as_ref();
        json!({
            "daemon": self.daemon.as_ref().ok(),
            "daemon_error": self.daemon.as_ref().err().map(Silence::reason),
            "database": table.and_then(|table| table.as_ref().ok()),
            "database_error": table.and_then(|table| Some(table.as_ref().err()?.to_string())),
        })
    }

    /// A daemon that does not answer is a failure even where the database does: the command is
    /// about the daemon's status.
    fn exit_code(&self) -> ExitCode {
        match (&self.daemon, &self.table) {
            (Ok(_), _) => ExitCode::SUCCESS,
            (Err(_), Some(Err(error))) if is_unreachable(error) => ExitCode::from(EXIT_UNAVAILABLE),
            (Err(_), _) => ExitCode::from(EXIT_FAILED),
        }
    }
}
