//! From the given values to the validated settings of `run`: which values are allowed, and in which
//! combinations.
//!
//! The environment is passed as a map, so that the rules can be tested; files are read at the
//! start, once.

mod advice;
mod api_access;
pub(in crate::cli) mod database;
pub(in crate::cli) mod file;
#[cfg(test)]
mod fuzz;
pub(in crate::cli) mod layers;
pub(in crate::cli) mod routes;
pub mod run;
pub(in crate::cli) mod setting;
pub(in crate::cli) mod values;

use std::time::Duration;

use crate::cli::settings::layers::Layers;
use crate::cli::settings::routes::RouteDefaults;
use crate::cli::settings::run::{RunArgs, SETTINGS};
use crate::cli::settings::setting::{Texts, typed};
use crate::domain::config::{self, Config, HttpConfig, RouteSpec};
use crate::domain::retry::RetryPolicy;
use crate::domain::usage::UsageError;
use crate::handlers::kind::Secrets;
use crate::handlers::{Handlers, RouteError, Routes};
use crate::http::Access;
use crate::store::dsn::Dsn;

pub use crate::cli::settings::layers::Effective;
pub use crate::cli::settings::setting::Source;
pub use crate::store::dsn::Env;

/// All that `dispatchbox run` starts with.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// The settings.
    pub config: Config,
    /// Where the database is.
    pub dsn: Dsn,
    /// Which requests may use the HTTP API. It is not among the settings that travel to the
    /// workers, because it may hold the token.
    pub access: Access,
    /// What is allowed but looks wrong: to be logged once the log is up.
    pub warnings: Vec<String>,
    /// What is allowed and right, and has a consequence that a person should know: likewise.
    pub hints: Vec<String>,
}

/// Resolves the settings of `run`; `handlers` are those that the program itself brings.
pub fn resolve(args: &RunArgs, env: &Env, handlers: &Handlers) -> Result<RunSettings, UsageError> {
    explain(args, env, handlers).map(|(settings, _)| settings)
}

/// Resolves the settings of `run` and says where each comes from.
pub fn explain(
    args: &RunArgs,
    env: &Env,
    handlers: &Handlers,
) -> Result<(RunSettings, Vec<Effective>), UsageError> {
    read_all(args, env, handlers)
        .map_err(|error| error.hint("`dispatchbox help run` lists the options and their defaults"))
}

/// Reads which route takes which events, for commands that deliver no event: `file` and `routes`
/// are their `--config` and `--route`. No database has to be named, and the secrets of `run` (the
/// URLs in files and variables, the token of the API) need not be on this host.
pub(in crate::cli) fn read_patterns(
    file: Option<String>,
    routes: &[String],
    env: &Env,
    handlers: &Handlers,
) -> Result<(Config, Vec<Effective>), UsageError> {
    let mut layers = Layers::gather(typed([(SETTINGS.config.name, file)]), env)?;
    let mut config = scalars(&mut layers)?;
    let secrets = Secrets::Unread;
    config.routes = all_routes(&mut layers, routes, &config, handlers, secrets)?;
    Ok((config, layers.effective))
}

/// What a command that looks at a daemon's database knows of the daemon.
pub(in crate::cli) struct DaemonSettings {
    pub(in crate::cli) config: Config,
    pub(in crate::cli) dsn: Dsn,
    /// As those of [`RunSettings`].
    pub(in crate::cli) warnings: Vec<String>,
    /// What follows from a lease that is shorter than a handler may take.
    pub(in crate::cli) hint: Option<String>,
}

/// Reads the settings of a daemon for a command that looks at its database. The secrets of `run`
/// but the DSN need not be on this host.
pub(in crate::cli) fn read_daemon(
    given: Texts,
    routes: &[String],
    env: &Env,
    handlers: &Handlers,
) -> Result<DaemonSettings, UsageError> {
    let mut layers = Layers::gather(given, env)?;
    let dsn = database::resolve(&mut layers, env);
    let mut config = scalars(&mut layers)?;
    config.routes = all_routes(&mut layers, routes, &config, handlers, Secrets::Unread)?;
    Ok(judged(&mut layers, config, dsn?, env, handlers))
}

/// Adds what the settings mean together.
fn judged(
    layers: &mut Layers,
    mut config: Config,
    dsn: Dsn,
    env: &Env,
    handlers: &Handlers,
) -> DaemonSettings {
    dsn.database().clone_into(&mut config.database);
    let mut warnings = std::mem::take(&mut layers.warnings);
    warnings.extend(advice::warnings(layers, &config, &dsn));
    warnings.extend(routes::warnings(&config.routes, handlers, env));
    DaemonSettings {
        hint: advice::hint_of_long_handlers(&config, handlers),
        config,
        dsn,
        warnings,
    }
}

fn read_all(
    args: &RunArgs,
    env: &Env,
    handlers: &Handlers,
) -> Result<(RunSettings, Vec<Effective>), UsageError> {
    let mut layers = Layers::gather(args.given(), env)?;
    // A refusal of the DSN waits: a mistyped option is reported first.
    let dsn = database::resolve(&mut layers, env);
    let mut config = scalars(&mut layers)?;
    let access = api_access::resolve(&mut layers)?;
    let secrets = Secrets::Read(env);
    config.routes = all_routes(&mut layers, &args.route, &config, handlers, secrets)?;
    let daemon = judged(&mut layers, config, dsn?, env, handlers);
    let settings = RunSettings {
        config: daemon.config,
        dsn: daemon.dsn,
        access,
        warnings: daemon.warnings,
        hints: daemon.hint.into_iter().collect(),
    };
    Ok((settings, layers.effective))
}

/// What is effective where nothing is given. It stands here and not beside the type, since the
/// table of settings has the defaults.
impl Default for Config {
    fn default() -> Config {
        scalars(&mut Layers::default()).expect("the defaults do not contradict each other")
    }
}

/// Reads all settings but the routes, in the order in which `config check` shows them.
fn scalars(layers: &mut Layers) -> Result<Config, UsageError> {
    let unrouted = layers.read(&SETTINGS.unrouted)?;
    let processes = layers.read(&SETTINGS.processes)?;
    let max_parallel = layers.read(&SETTINGS.max_parallel)?;
    let batch_size = layers.read(&SETTINGS.batch_size)?;
    let max_batch_bytes = layers.read(&SETTINGS.max_batch_bytes)?;
    let poll_interval = layers.read(&SETTINGS.poll_interval)?;
    let handler_timeout = layers.read(&SETTINGS.handler_timeout)?;
    let retry = RetryPolicy {
        max_attempts: layers.read(&SETTINGS.max_attempts)?,
        backoff: layers.read(&SETTINGS.retry_backoff_seconds)?,
        multiplier: layers.read(&SETTINGS.retry_multiplier)?,
        max: layers.read(&SETTINGS.retry_max_seconds)?,
        jitter: layers.read(&SETTINGS.retry_jitter)?,
    };
    let lease = layers.read(&SETTINGS.lease_seconds)?;
    Ok(Config {
        unrouted,
        processes,
        max_parallel,
        batch_size,
        max_batch_bytes,
        poll_interval,
        handler_timeout,
        retry,
        lease,
        drain_timeout: layers.read(&SETTINGS.drain_timeout)?,
        pool_size: layers.read(&SETTINGS.pool_size)?,
        connect_timeout: connect_timeout(layers, lease)?,
        query_timeout: query_timeout(layers, lease)?,
        http: http(layers)?,
        log_level: layers.read(&SETTINGS.log_level)?,
        routes: Vec::new(),
        database: String::new(),
    })
}

/// Reads the bound of a connection attempt. A worker that has to connect again must have renewed
/// its leases before they are over, so with a short lease the default is half of it.
fn connect_timeout(layers: &mut Layers, lease: Duration) -> Result<Duration, UsageError> {
    let setting = &SETTINGS.connect_timeout;
    layers.read_or(setting, setting.default.min(lease / 2))
}

/// Reads the bound of a statement. A statement that may take as long as the lease would bring
/// events whose lease is over, so with a short lease the default is half of it.
fn query_timeout(layers: &mut Layers, lease: Duration) -> Result<Duration, UsageError> {
    let setting = &SETTINGS.query_timeout;
    let query_timeout = layers.read_or(setting, setting.default.min(lease / 2))?;
    if query_timeout >= lease {
        return Err(layers.refuse(
            setting,
            &format!(
                "must be less than the lease ({} s, --lease-seconds), not `{}`",
                values::seconds_text(lease),
                values::seconds_text(query_timeout),
            ),
        ));
    }
    Ok(query_timeout)
}

fn http(layers: &mut Layers) -> Result<Option<HttpConfig>, UsageError> {
    let http = HttpConfig {
        host: layers.read(&SETTINGS.http_host)?,
        port: layers.read(&SETTINGS.http_port)?,
    };
    let is_disabled = layers.read(&SETTINGS.disable_http)?;
    Ok((!is_disabled).then_some(http))
}

/// Puts the routes of the command line before those of the file: the first match wins.
fn all_routes(
    layers: &mut Layers,
    flags: &[String],
    config: &Config,
    handlers: &Handlers,
    secrets: Secrets<'_>,
) -> Result<Vec<RouteSpec>, UsageError> {
    let defaults = RouteDefaults {
        timeout: config.handler_timeout,
        retry: config.retry,
    };
    let by_flag = |refusal: String| UsageError::new(format!("--route {refusal}"));
    let mut specs = Vec::new();
    for flag in flags {
        specs.push(routes::from_flag(flag, &defaults).map_err(by_flag)?);
    }
    check_routes(config, &specs, handlers).map_err(|error| by_flag(format!("has the {error}")))?;
    let n_flags = specs.len();
    if let Some(file) = &layers.file {
        let in_file = |text: String| {
            UsageError::in_file(format!("{text} (in `{}`)", file.path))
                .hint("\"Routes and handlers\" in README.md shows what a [[route]] table can have")
        };
        for (at, table) in file.routes.iter().enumerate() {
            let spec = routes::from_table(table, &defaults, handlers, secrets)
                .map_err(|refusal| in_file(format!("route {} {refusal}", at + 1)))?;
            specs.push(spec);
        }
        check_routes(config, &specs, handlers).map_err(|error| in_file(error.to_string()))?;
        if specs.is_empty() && !handlers.has_routes() {
            let text = "there is no route, so no event would be delivered";
            return Err(UsageError::in_file(format!("{text} (in `{}`)", file.path))
                .hint("add a [[route]] table, or give --route"));
        }
    }
    if specs.len() > config::ROUTES_MAX {
        return Err(UsageError::new(format!(
            "there may be at most {} routes, not {}",
            config::ROUTES_MAX,
            specs.len()
        )));
    }
    for pattern in handlers.patterns() {
        let shown = format!("{pattern}=a handler of its own");
        layers.show(&SETTINGS.route, shown, Source::Program);
    }
    for (at, spec) in specs.iter().enumerate() {
        let source = if at < n_flags {
            Source::Flag
        } else {
            Source::File
        };
        layers.show(
            &SETTINGS.route,
            routes::shown(spec, config, handlers),
            source,
        );
    }
    Ok(specs)
}

/// Builds the routes as a worker will, so that errors in them are reported before any worker
/// exists.
fn check_routes(
    config: &Config,
    specs: &[RouteSpec],
    handlers: &Handlers,
) -> Result<(), RouteError> {
    let config = Config {
        routes: specs.to_vec(),
        ..config.clone()
    };
    Routes::new(&config, handlers).map(drop)
}
