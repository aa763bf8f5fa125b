//! Dispatchbox delivers the events of a PostgreSQL outbox table at least once.

pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod error;
pub mod event;
pub mod handler;
pub mod health;
pub mod http;
pub mod in_hand;
pub mod logging;
pub mod metrics;
pub mod nearest;
pub mod process;
pub mod report;
pub mod settings;
pub mod signal;
pub mod store;
pub mod supervisor;
pub mod worker;

use std::process::ExitCode;

use cli::front::{self, Command, Parsed};
use cli::settings::Env;
use config::Config;
use handler::Handlers;
use health::Published;
use http::HttpServer;
use store::dsn::Dsn;
use supervisor::{Refusal, Supervisor};

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
            Ok(settings) => supervise(settings, &handlers),
            Err(err) => cli::complain(&err),
        },
        Command::Migrate(args) => cli::migrate::run(&args, env),
        Command::ConfigCheck(args) => cli::config::check(&args, env, &handlers),
        Command::Worker => worker::main(&handlers),
    }
}

fn supervise(settings: cli::settings::RunSettings, handlers: &Handlers) -> ExitCode {
    let cli::settings::RunSettings {
        config,
        dsn,
        warnings,
    } = settings;
    logging::init(config.log_level, "supervisor");
    for warning in &warnings {
        log::warn!("{warning}");
    }
    match run_daemon(config, dsn, handlers) {
        Ok(code) => ExitCode::from(code),
        Err(Refusal { reason, code }) => {
            log::error!("{reason}");
            ExitCode::from(code)
        }
    }
}

fn run_daemon(config: Config, dsn: Dsn, handlers: &Handlers) -> Result<u8, Refusal> {
    let failed = |reason| Refusal {
        reason,
        code: error::EXIT_FAILED,
    };
    // First of all: a second daemon on the same port fails before it touches anything.
    let listener = config
        .http
        .as_ref()
        .map(|http| http::bind(&http.host, http.port))
        .transpose()
        .map_err(failed)?;
    let published = Published::default();
    let supervisor = Supervisor::start(config, dsn.clone(), handlers, published.clone())?;
    let server = listener
        .map(|listener| HttpServer::start(listener, dsn, &published))
        .transpose()
        .map_err(failed)?;
    let code = supervisor.run();
    if let Some(server) = server {
        server.stop();
    }
    Ok(code)
}
