//! Brings flags, environment and file together: flag before environment before file before default.
//!
//! The environment is handed in as a map, so that the rules can be tested; files are read here, once, at the start.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cli::database;
use crate::cli::file::{File, key_of};
use crate::cli::routes::{self, RouteDefaults};
use crate::cli::run::RunArgs;
use crate::cli::values;
use crate::config::{self, Config, HttpConfig, LogLevel, RouteSpec};
use crate::error::UsageError;
use crate::handler::{Handlers, RouteError, Routes};
use crate::nearest::did_you_mean;
use crate::store::dsn::Dsn;

/// The environment of the process.
pub type Env = BTreeMap<String, String>;

/// Every setting that flag, environment and file know by the same name, except the routes.
pub(super) const SETTINGS: &[&str] = &[
    "dsn",
    "dsn-file",
    "config",
    "processes",
    "max-parallel",
    "batch-size",
    "max-batch-bytes",
    "poll-interval",
    "handler-timeout",
    "max-attempts",
    "retry-backoff-seconds",
    "retry-multiplier",
    "retry-max-seconds",
    "retry-jitter",
    "lease-seconds",
    "drain-timeout",
    "pool-size",
    "connect-timeout",
    "query-timeout",
    "http-host",
    "http-port",
    "disable-http",
    "log-level",
];

/// Prefix of our environment variables.
const ENV_PREFIX: &str = "DISPATCHBOX_";

/// All that `dispatchbox run` starts with.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// The settings.
    pub config: Config,
    /// Where the database is.
    pub dsn: Dsn,
    /// What is allowed but looks wrong: to be logged once the log is up.
    pub warnings: Vec<String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The configuration file.
    File,
    /// Nobody said anything.
    Default,
}

impl Source {
    /// Makes the error that blames it.
    pub(super) fn blame(self, text: String) -> UsageError {
        match self {
            Source::Flag | Source::Environment | Source::Default => UsageError::new(text),
            Source::File => UsageError::in_file(text),
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Flag => "flag",
            Source::Environment => "environment",
            Source::File => "file",
            Source::Default => "default",
        }
    }
}

/// One setting as it is effective; its value holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The name of the option.
    pub name: &'static str,
    /// The value, as the option would take it.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
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
    let mut layers = Layers::gather(args.given(), env)?;
    let dsn = database::resolve(&mut layers, env)?;
    let mut config = scalars(&mut layers)?;
    config.routes = all_routes(&mut layers, &args.route, &config, handlers)?;
    warn_of_short_drain(&mut layers, &config);
    let settings = RunSettings {
        config,
        dsn,
        warnings: layers.warnings,
    };
    Ok((settings, layers.effective))
}

fn scalars(layers: &mut Layers) -> Result<Config, UsageError> {
    let default = Config::default();
    let processes = layers.count("processes", &config::PROCESSES, default.processes)?;
    let max_parallel = layers.count("max-parallel", &config::MAX_PARALLEL, default.max_parallel)?;
    let batch_size = layers.batch_size()?;
    let max_batch_bytes = layers.read(
        "max-batch-bytes",
        default.max_batch_bytes,
        |text| values::size(text, &config::MAX_BATCH_BYTES),
        |bytes| values::size_text(*bytes),
    )?;
    let poll_interval = layers.seconds(
        "poll-interval",
        &config::POLL_INTERVAL,
        default.poll_interval,
    )?;
    let handler_timeout = layers.seconds(
        "handler-timeout",
        &config::HANDLER_SECONDS,
        default.handler_timeout,
    )?;
    let retry = retry(layers)?;
    let lease = layers.seconds("lease-seconds", &config::LEASE_SECONDS, default.lease)?;
    let drain_timeout = layers.seconds(
        "drain-timeout",
        &config::DRAIN_SECONDS,
        default.drain_timeout,
    )?;
    let pool_size = layers.count("pool-size", &config::POOL_SIZE, default.pool_size)?;
    let connect_timeout = layers.seconds(
        "connect-timeout",
        &config::DATABASE_SECONDS,
        default.connect_timeout,
    )?;
    let query_timeout = query_timeout(layers, lease)?;
    let http = http(layers)?;
    let log_level = layers.log_level()?;
    Ok(Config {
        processes,
        batch_size,
        poll_interval,
        max_parallel,
        retry,
        connect_timeout,
        query_timeout,
        lease,
        drain_timeout,
        handler_timeout,
        pool_size,
        max_batch_bytes,
        routes: Vec::new(),
        http,
        log_level,
    })
}

fn retry(layers: &mut Layers) -> Result<crate::backoff::RetryPolicy, UsageError> {
    let default = Config::default().retry;
    let max_attempts = layers.read(
        "max-attempts",
        default.max_attempts,
        |text| values::count(text, &config::MAX_ATTEMPTS),
        u32::to_string,
    )?;
    let backoff = layers.seconds(
        "retry-backoff-seconds",
        &config::RETRY_SECONDS,
        default.backoff,
    )?;
    let multiplier = layers.read(
        "retry-multiplier",
        default.multiplier,
        |text| values::decimal(text, &config::RETRY_MULTIPLIER, ""),
        f64::to_string,
    )?;
    let max = layers.seconds("retry-max-seconds", &config::RETRY_SECONDS, default.max)?;
    let jitter = layers.read(
        "retry-jitter",
        default.jitter,
        |text| values::decimal(text, &config::RETRY_JITTER, ""),
        f64::to_string,
    )?;
    if backoff > max {
        // Whichever of the two was set is to blame; silently cutting the first delay would surprise.
        return Err(layers.refuse(
            "retry-backoff-seconds",
            &format!(
                "must be at most the longest delay ({} s, --retry-max-seconds), not `{}`",
                values::seconds_text(max),
                values::seconds_text(backoff),
            ),
        ));
    }
    Ok(crate::backoff::RetryPolicy {
        max_attempts,
        backoff,
        multiplier,
        max,
        jitter,
    })
}

fn query_timeout(layers: &mut Layers, lease: Duration) -> Result<Duration, UsageError> {
    let default = config::query_timeout_for(lease);
    let query_timeout = layers.seconds("query-timeout", &config::DATABASE_SECONDS, default)?;
    if query_timeout >= lease {
        return Err(layers.refuse(
            "query-timeout",
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
    let default = Config::default().http.unwrap_or_else(|| HttpConfig {
        host: String::new(),
        port: 0,
    });
    let host = layers.read(
        "http-host",
        default.host,
        |text| {
            let is_fit = !text.is_empty()
                && !text
                    .chars()
                    .any(|c| c.is_whitespace() || c.is_control() || c == '/');
            is_fit.then(|| text.to_owned()).ok_or_else(|| {
                format!(
                    "must be an address or a host name, not {}",
                    values::quoted(text)
                )
            })
        },
        String::clone,
    )?;
    let port = layers.read(
        "http-port",
        default.port,
        |text| values::count(text, &(0..=u16::MAX)),
        u16::to_string,
    )?;
    let is_disabled = layers.read("disable-http", false, values::switch, bool::to_string)?;
    Ok((!is_disabled).then_some(HttpConfig { host, port }))
}

/// The routes of the command line stand before those of the file, as the first match wins.
fn all_routes(
    layers: &mut Layers,
    flags: &[String],
    config: &Config,
    handlers: &Handlers,
) -> Result<Vec<RouteSpec>, UsageError> {
    let defaults = RouteDefaults {
        timeout: config.handler_timeout,
        retry: config.retry,
    };
    let by_flag = |err: RouteError| UsageError::new(format!("--route: {err}"));
    let mut specs = Vec::new();
    for flag in flags {
        specs.push(routes::from_flag(flag, &defaults).map_err(by_flag)?);
    }
    check_routes(config, &specs, handlers).map_err(by_flag)?;
    let n_flags = specs.len();
    if let Some(file) = &layers.file {
        let in_file = |text: String| UsageError::in_file(format!("{text} (in `{}`)", file.path));
        for (at, table) in file.routes.iter().enumerate() {
            let spec = routes::from_table(table, &defaults)
                .map_err(|refusal| in_file(format!("route {} {refusal}", at + 1)))?;
            specs.push(spec);
        }
        check_routes(config, &specs, handlers).map_err(|err| in_file(err.to_string()))?;
        if specs.is_empty() && !handlers.has_routes() {
            return Err(
                in_file("there is no route, so no event would be delivered".to_owned())
                    .hint("add a [[route]] table, or give --route"),
            );
        }
    }
    if specs.len() > config::ROUTES_MAX {
        return Err(UsageError::new(format!(
            "there may be at most {} routes, not {}",
            config::ROUTES_MAX,
            specs.len()
        )));
    }
    for (at, spec) in specs.iter().enumerate() {
        let source = if at < n_flags {
            Source::Flag
        } else {
            Source::File
        };
        layers.show("route", routes::shown(spec), source);
    }
    Ok(specs)
}

/// Builds the routes as a worker will, so that what is wrong with them is told before any worker exists.
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

/// A drain that is shorter than a handler may take is allowed: whoever restarts in a hurry accepts that attempts are cut short.
fn warn_of_short_drain(layers: &mut Layers, config: &Config) {
    let timeouts = config.routes.iter().map(|route| route.timeout);
    let longest = timeouts.fold(Duration::ZERO, Duration::max);
    let longest = if config.routes.is_empty() {
        config.handler_timeout
    } else {
        longest
    };
    if config.drain_timeout < longest {
        layers.warnings.push(format!(
            "a drain may take {} s but a handler {} s: a restart may kill handlers that are still running",
            values::seconds_text(config.drain_timeout),
            values::seconds_text(longest),
        ));
    }
}

/// A value as somebody gave it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: Source,
}

/// The three places where a value may stand, and what came of reading them.
#[derive(Debug)]
pub(super) struct Layers {
    flags: BTreeMap<&'static str, String>,
    env: BTreeMap<&'static str, String>,
    pub(super) file: Option<File>,
    file_path: String,
    pub(super) effective: Vec<Effective>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    /// Collects what was given, and reads the configuration file if one is named.
    pub(super) fn gather(
        flags: Vec<(&'static str, String)>,
        env: &Env,
    ) -> Result<Layers, UsageError> {
        let mut layers = Layers {
            flags: flags.into_iter().collect(),
            env: BTreeMap::new(),
            file: None,
            file_path: String::new(),
            effective: Vec::new(),
            warnings: Vec::new(),
        };
        layers.read_environment(env);
        if let Some(Given { text: path, source }) = layers.given("config") {
            layers.show("config", path.clone(), source);
            layers.file = Some(File::read(&path)?);
            layers.file_path = path;
        }
        Ok(layers)
    }

    /// An empty variable counts as not set: that is how unit files and compose files take one back. An unknown one is only worth a
    /// warning, since others may use the prefix, too.
    fn read_environment(&mut self, env: &Env) {
        let names: Vec<String> = SETTINGS.iter().map(|name| variable_of(name)).collect();
        for (variable, value) in env.range(ENV_PREFIX.to_owned()..) {
            if !variable.starts_with(ENV_PREFIX) {
                break;
            }
            let known = names.iter().position(|name| name == variable);
            match known.and_then(|at| SETTINGS.get(at)) {
                Some(name) if !value.is_empty() => {
                    self.env.insert(name, value.clone());
                }
                Some(_) => {}
                None if is_kubernetes_link(variable) => {}
                None => self.warnings.push(format!(
                    "the variable {variable} is not a setting of this version{}",
                    did_you_mean(variable, names.iter().map(String::as_str))
                )),
            }
        }
    }

    /// Finds a value where it counts most.
    pub(super) fn given(&self, name: &str) -> Option<Given> {
        let file = self.file.as_ref().map(|file| &file.values);
        [
            (self.flags.get(name), Source::Flag),
            (self.env.get(name), Source::Environment),
            (file.and_then(|values| values.get(name)), Source::File),
        ]
        .into_iter()
        .find_map(|(text, source)| {
            Some(Given {
                text: text?.clone(),
                source,
            })
        })
    }

    /// Takes a value from one place only.
    pub(super) fn given_by(&self, name: &str, source: Source) -> Option<&str> {
        let values = match source {
            Source::Flag => Some(&self.flags),
            Source::Environment => Some(&self.env),
            Source::File => self.file.as_ref().map(|file| &file.values),
            Source::Default => None,
        };
        values?.get(name).map(String::as_str)
    }

    /// Names a setting as its source does.
    pub(super) fn named(&self, name: &str, source: Source) -> String {
        match source {
            Source::Flag | Source::Default => format!("--{name}"),
            Source::Environment => variable_of(name),
            Source::File => format!("`{}` in `{}`", key_of(name), self.file_path),
        }
    }

    fn refuse(&self, name: &str, refusal: &str) -> UsageError {
        let source = self
            .given(name)
            .map_or(Source::Default, |given| given.source);
        source.blame(format!("{} {refusal}", self.named(name, source)))
    }

    pub(super) fn show(&mut self, name: &'static str, value: String, source: Source) {
        self.effective.push(Effective {
            name,
            value,
            source,
        });
    }

    /// Reads one setting.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Result<T, UsageError> {
        let (value, source) = match self.given(name) {
            None => (default, Source::Default),
            Some(given) => match parse(&given.text) {
                Ok(value) => (value, given.source),
                Err(refusal) => return Err(self.refuse(name, &refusal)),
            },
        };
        self.show(name, show(&value), source);
        Ok(value)
    }

    pub(super) fn seconds(
        &mut self,
        name: &'static str,
        allowed: &RangeInclusive<f64>,
        default: Duration,
    ) -> Result<Duration, UsageError> {
        self.read(
            name,
            default,
            |text| values::seconds(text, allowed),
            |value| values::seconds_text(*value),
        )
    }

    fn count(
        &mut self,
        name: &'static str,
        allowed: &RangeInclusive<u16>,
        default: NonZeroU16,
    ) -> Result<NonZeroU16, UsageError> {
        self.read(
            name,
            default,
            |text| values::positive(text, allowed),
            NonZeroU16::to_string,
        )
    }

    fn batch_size(&mut self) -> Result<Option<NonZeroU16>, UsageError> {
        let growing = format!(
            "{}, growing to {} under load",
            config::CLAIM_EVENTS_FIRST,
            config::CLAIM_EVENTS_GROWN
        );
        self.read(
            "batch-size",
            None,
            |text| values::positive(text, &config::BATCH_SIZE).map(Some),
            |size| size.map_or_else(|| growing.clone(), |size| size.to_string()),
        )
    }

    pub(super) fn log_level(&mut self) -> Result<LogLevel, UsageError> {
        self.read(
            "log-level",
            LogLevel::Info,
            |text| {
                LogLevel::parse(text).ok_or_else(|| {
                    format!(
                        "must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {}",
                        values::quoted(text)
                    )
                })
            },
            LogLevel::to_string,
        )
    }
}

/// The environment variable of a setting.
fn variable_of(name: &str) -> String {
    format!("{ENV_PREFIX}{}", key_of(name).to_ascii_uppercase())
}

/// Kubernetes sets such variables in every container when a service is called `dispatchbox`.
fn is_kubernetes_link(variable: &str) -> bool {
    let rest = variable.trim_start_matches(ENV_PREFIX);
    rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}
