//! The composition: from the command line of the process to the parts that do its work.

use std::process::ExitCode;

use crate::cli::args;
use crate::cli::args::front::{self, Parsed};
use crate::cli::commands::{self, Command};
use crate::cli::settings::run::RunArgs;
use crate::cli::settings::{self, Env, RunSettings};
use crate::cli::terminal::message::complain;
use crate::cli::terminal::output;
use crate::dev::{bench, chaos};
use crate::domain::config::Config;
use crate::domain::usage::EXIT_FAILED;
use crate::handlers::Handlers;
use crate::http::{self, Access, HttpServer};
use crate::status::published::Published;
use crate::store::dsn::Dsn;
use crate::supervisor::{StartFailure, Supervisor};
use crate::system::logging;
use crate::worker;

/// Executes the command line of this process, with `handlers` beside those that ship with the
/// program, and returns the exit code. Two lines make a program of one's own the whole daemon:
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
        .and_then(|parsed| Ok((parsed, args::environment(std::env::vars_os())?)));
    let code = match parsed {
        Ok((Parsed::Text(text), _)) => output::finish(&text, ExitCode::SUCCESS),
        Ok((Parsed::Command(command), env)) => dispatch(*command, &env, handlers),
        Err(error) => complain(&error),
    };
    logging::flush();
    code
}

fn dispatch(command: Command, env: &Env, handlers: Handlers) -> ExitCode {
    match command {
        Command::Run(args) => run(&args, env, &handlers),
        Command::Migrate(args) => commands::migrate::run(&args, env),
        Command::ConfigCheck(args) => commands::config::check(&args, env, &handlers),
        Command::Status(args) => commands::status::run(&args, env),
        Command::DeadEvents(command) => commands::dead_events::run(&command, env),
        Command::Explain(args) => commands::explain::run(&args, env, &handlers),
        Command::Doctor(args) => commands::doctor::run(&args, env, &handlers),
        Command::Publish(args) => commands::publish::run(&args, env, &handlers),
        Command::Demo(args) => commands::demo::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::BenchDaemon(args) => run(&args, env, &bench::with_handlers(handlers)),
        Command::Chaos(args) => commands::chaos::run(&args),
        Command::ChaosDaemon(args) => run(&args, env, &chaos::with_play(handlers)),
        Command::Worker => worker::main(&chaos::with_play(bench::with_handlers(handlers))),
    }
}

fn run(args: &RunArgs, env: &Env, handlers: &Handlers) -> ExitCode {
    match settings::resolve(args, env, handlers) {
        Ok(settings) => supervise(settings, handlers),
        Err(error) => complain(&error),
    }
}

fn supervise(settings: RunSettings, handlers: &Handlers) -> ExitCode {
    let RunSettings {
        config,
        dsn,
        access,
        warnings,
        hints,
    } = settings;
    logging::init_daemon(config.log_level, "supervisor");
    for warning in &warnings {
        log::warn!("{warning}");
    }
    for hint in &hints {
        log::info!("{hint}");
    }
    match run_daemon(config, dsn, access, handlers) {
        Ok(code) => ExitCode::from(code),
        Err(StartFailure { reason, code }) => {
            log::error!("{reason}");
            ExitCode::from(code)
        }
    }
}

fn run_daemon(
    config: Config,
    dsn: Dsn,
    access: Access,
    handlers: &Handlers,
) -> Result<u8, StartFailure> {
    let failed = |reason| StartFailure {
        reason,
        code: EXIT_FAILED,
    };
    // The port is bound first: a second daemon on the same port fails before it touches anything.
    let listener = config
        .http
        .as_ref()
        .map(|http| http::bind(http.host.as_deref(), http.port))
        .transpose()
        .map_err(failed)?;
    let published = Published::new(config.processes.get());
    let listening_on = listener.as_ref().and_then(|it| it.local_addr().ok());
    let supervisor = Supervisor::start(
        config,
        dsn.clone(),
        handlers,
        listening_on,
        published.clone(),
    )?;
    let server = listener
        .map(|listener| HttpServer::start(listener, dsn, access, &published))
        .transpose()
        .map_err(failed)?;
    let code = supervisor.run();
    if let Some(server) = server {
        server.stop();
    }
    Ok(code)
}
