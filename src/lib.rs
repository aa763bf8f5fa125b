//! Dispatchbox delivers the events of a PostgreSQL outbox table at least once.

pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod error;
pub mod event;
pub mod handler;
pub mod logging;
pub mod nearest;
pub mod report;
pub mod store;

use std::process::ExitCode;

use cli::front::{self, Command, Parsed};
use cli::settings::Env;
use error::UsageError;
use handler::Handlers;

/// Does what the command line of this process says, with `handlers` beside those that ship with the program, and gives the exit
/// code. Two lines make a program of one's own the whole daemon:
///
/// ```no_run
/// use dispatchbox::handler::Handlers;
///
/// fn main() -> std::process::ExitCode {
///     dispatchbox::main_with(Handlers::default())
/// }
/// ```
pub fn main_with(handlers: Handlers) -> ExitCode {
    let parsed = front::parse(std::env::args_os().skip(1))
        .and_then(|parsed| Ok((parsed, cli::environment(std::env::vars_os())?)));
    match parsed {
        Ok((Parsed::Text(text), _)) => {
            cli::print(&text);
            ExitCode::SUCCESS
        }
        Ok((Parsed::Command(command), env)) => dispatch(*command, &env, handlers),
        Err(err) => cli::complain(&err),
    }
}

fn dispatch(command: Command, env: &Env, handlers: Handlers) -> ExitCode {
    match command {
        Command::Run(args) => match cli::settings::resolve(&args, env, &handlers) {
            Ok(settings) => supervise(settings),
            Err(err) => cli::complain(&err),
        },
        Command::Migrate(args) => cli::migrate::run(&args, env),
        Command::ConfigCheck(args) => cli::config::check(&args, env, &handlers),
        Command::Worker => cli::complain(&UsageError::new("unknown command `worker`")),
    }
}

/// Holds the place of the supervisor.
fn supervise(settings: cli::settings::RunSettings) -> ExitCode {
    logging::init(settings.config.log_level, "supervisor");
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    ExitCode::from(error::EXIT_FAILED)
}
