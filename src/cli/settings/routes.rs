//! Reads routes: `--route 'order.*=https://host/hook'` and the `[[route]]` tables of the
//! configuration file.
//!
//! Only the form is checked here. The contents (patterns, URLs, names of handlers) are checked
//! where routes are built, in `handler`.

use std::time::Duration;

use crate::cli::settings::values::{self, quoted};
use crate::domain::config::{self, Config, HandlerSpec, RouteSpec, UrlSource};
use crate::domain::nearest::did_you_mean;
use crate::domain::retry::RetryPolicy;
use crate::handlers::{self, Handlers, exec, http};
use crate::store::dsn::Env;
use crate::system::logging;

/// Limits of a route that has none of its own.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct RouteDefaults {
    pub(in crate::cli) timeout: Duration,
    pub(in crate::cli) retry: RetryPolicy,
}

/// Reads the value of `--route`; a refusal follows the name of the option.
pub(in crate::cli) fn from_flag(text: &str, defaults: &RouteDefaults) -> Result<RouteSpec, String> {
    // A URL without its pattern is not repeated: its query may hold a key.
    if text
        .split('=')
        .next()
        .is_some_and(|pattern| pattern.contains("://"))
    {
        return Err("needs a pattern before the url, as in `order.*=https://host/hook`".to_owned());
    }
    let (pattern, handler) =
        handlers::parse_route(text).map_err(|error| format!("has the {error}"))?;
    Ok(RouteSpec {
        pattern,
        handler,
        timeout: defaults.timeout,
        max_parallel: None,
        retry: defaults.retry,
    })
}

/// Keys of a `[[route]]` table.
const ROUTE_KEYS: [&str; 10] = [
    "event_type",
    "handler",
    "url",
    "url_file",
    "url_env",
    "dead_statuses",
    "command",
    "timeout_seconds",
    "max_parallel",
    "retry",
];

/// Keys of its `[route.retry]` table.
const RETRY_KEYS: [&str; 5] = [
    "max_attempts",
    "backoff_seconds",
    "multiplier",
    "max_seconds",
    "jitter",
];

/// Reads a `[[route]]` table; a refusal follows the name of the route.
pub(in crate::cli) fn from_table(
    table: &toml::Table,
    defaults: &RouteDefaults,
    handlers: &Handlers,
    urls: SecretUrls<'_>,
) -> Result<RouteSpec, String> {
    check_keys(table, &ROUTE_KEYS)?;
    let pattern = required(table, "event_type")?;
    let handler = required(table, "handler")?;
    let handler = match handler {
        "log" => HandlerSpec::Log,
        "exec" => HandlerSpec::Exec {
            command: command_of(table)?,
        },
        "http" => {
            let (url, url_source) = url_of(table, urls)?;
            HandlerSpec::Http {
                url,
                url_source,
                dead_statuses: dead_statuses_of(table)?,
            }
        }
        name => HandlerSpec::Library {
            name: name.to_owned(),
        },
    };
    // Whether an unknown handler takes a key is not known: that there is no such handler is
    // reported when the route is built.
    let is_known = match &handler {
        HandlerSpec::Library { name } => handlers.knows(name),
        HandlerSpec::Log | HandlerSpec::Exec { .. } | HandlerSpec::Http { .. } => true,
    };
    if is_known {
        check_keys_fit(table, &handler)?;
    }
    Ok(RouteSpec {
        pattern: pattern.to_owned(),
        timeout: scalar(table, "timeout_seconds")?.map_or(Ok(defaults.timeout), |text| {
            values::seconds(&text, &config::HANDLER_SECONDS).map_err(naming("timeout_seconds"))
        })?,
        max_parallel: scalar(table, "max_parallel")?
            .map(|text| {
                values::positive(&text, &config::MAX_PARALLEL).map_err(naming("max_parallel"))
            })
            .transpose()?,
        retry: retry_of(table, &defaults.retry)?,
        handler,
    })
}

/// Keys that only `http` takes.
const HTTP_KEYS: [&str; 4] = ["url", "url_file", "url_env", "dead_statuses"];

/// Keys of the handlers that have settings.
const NOT_OF_LOG: [&str; 5] = ["url", "url_file", "url_env", "dead_statuses", "command"];

/// Refuses a key of another kind of handler: it is a mistake, since the receiver that it names
/// would get no event.
fn check_keys_fit(table: &toml::Table, handler: &HandlerSpec) -> Result<(), String> {
    let (kind, foreign): (&str, &[&str]) = match handler {
        HandlerSpec::Http { .. } => ("http", &["command"]),
        HandlerSpec::Exec { .. } => ("exec", &HTTP_KEYS),
        HandlerSpec::Log => ("log", &NOT_OF_LOG),
        HandlerSpec::Library { name } => (name, &NOT_OF_LOG),
    };
    match foreign.iter().find(|key| table.contains_key(**key)) {
        Some(key) => Err(format!(
            "has `{key}`, which the handler `{kind}` does not take"
        )),
        None => Ok(()),
    }
}

/// How to treat URLs that stand in a file or a variable.
#[derive(Clone, Copy)]
pub(in crate::cli) enum SecretUrls<'a> {
    /// Read them; variables are those of this environment.
    Read(&'a Env),
    /// Leave them unread: only the pattern of the route matters.
    Unread,
}

/// Stands in place of a URL that was not read; no name under this domain resolves.
const UNREAD_URL: &str = "http://unread.invalid/";

/// Finds the URL by the one key that says where it stands. No refusal repeats it.
fn url_of(table: &toml::Table, urls: SecretUrls<'_>) -> Result<(String, UrlSource), String> {
    let given: Vec<&str> = ["url", "url_file", "url_env"]
        .into_iter()
        .filter(|key| table.contains_key(*key))
        .collect();
    match given.as_slice() {
        [] => Err(
            "needs `url = \"…\"`, or `url_file` or `url_env` where the URL is a secret".to_owned(),
        ),
        ["url"] => Ok((required(table, "url")?.to_owned(), UrlSource::Route)),
        ["url_env"] => {
            let name = required(table, "url_env")?;
            let SecretUrls::Read(env) = urls else {
                return Ok((UNREAD_URL.to_owned(), UrlSource::Environment));
            };
            let url = env.get(name).map(|url| url.trim());
            url.filter(|url| !url.is_empty())
                .map(|url| (url.to_owned(), UrlSource::Environment))
                .ok_or_else(|| {
                    format!(
                        "has `url_env`, but the variable {} is not set",
                        quoted(name)
                    )
                })
        }
        [one, other, ..] => Err(format!(
            "has `{one}` and `{other}`, of which one alone may say where to"
        )),
        [_] => {
            let path = required(table, "url_file")?;
            if matches!(urls, SecretUrls::Unread) {
                return Ok((UNREAD_URL.to_owned(), UrlSource::File(path.to_owned())));
            }
            let url = http::read_url(path).map_err(|error| {
                format!(
                    "has `url_file`, but {} cannot be used: {error}",
                    quoted(path)
                )
            })?;
            Ok((url, UrlSource::File(path.to_owned())))
        }
    }
}

fn retry_of(table: &toml::Table, inherited: &RetryPolicy) -> Result<RetryPolicy, String> {
    let table = match table.get("retry") {
        None => return Ok(*inherited),
        Some(value) => value
            .as_table()
            .ok_or_else(|| "needs a table [route.retry]".to_owned())?,
    };
    check_keys(table, &RETRY_KEYS)?;
    let seconds = |key: &'static str, inherited: Duration| {
        scalar(table, key)?.map_or(Ok(inherited), |text| {
            values::seconds(&text, &config::RETRY_SECONDS).map_err(naming(key))
        })
    };
    let number = |key: &'static str, allowed, inherited: f64| {
        scalar(table, key)?.map_or(Ok(inherited), |text| {
            values::decimal(&text, &allowed, "").map_err(naming(key))
        })
    };
    Ok(RetryPolicy {
        max_attempts: scalar(table, "max_attempts")?
            .map_or(Ok(inherited.max_attempts), |text| {
                values::count(&text, &config::MAX_ATTEMPTS).map_err(naming("max_attempts"))
            })?,
        backoff: seconds("backoff_seconds", inherited.backoff)?,
        multiplier: number("multiplier", config::RETRY_MULTIPLIER, inherited.multiplier)?,
        max: seconds("max_seconds", inherited.max)?,
        jitter: number("jitter", config::RETRY_JITTER, inherited.jitter)?,
    })
}

fn command_of(table: &toml::Table) -> Result<Vec<String>, String> {
    let words = table.get("command").and_then(toml::Value::as_array);
    let command: Option<Vec<String>> = words.and_then(|words| {
        words
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect()
    });
    command
        .filter(|command| !command.is_empty())
        .ok_or_else(|| r#"needs `command = ["PROGRAM", "ARGUMENT"]`"#.to_owned())
}

fn dead_statuses_of(table: &toml::Table) -> Result<Vec<u16>, String> {
    let Some(value) = table.get("dead_statuses") else {
        return Ok(http::DEAD_STATUSES.to_vec());
    };
    let statuses: Option<Vec<u16>> = value.as_array().and_then(|statuses| {
        statuses
            .iter()
            .map(|status| {
                let status = u16::try_from(status.as_integer()?).ok()?;
                config::DEAD_STATUS.contains(&status).then_some(status)
            })
            .collect()
    });
    statuses.ok_or_else(|| {
        format!(
            "needs a list of statuses from {} to {} in dead_statuses",
            config::DEAD_STATUS.start(),
            config::DEAD_STATUS.end()
        )
    })
}

fn required<'a>(table: &'a toml::Table, key: &str) -> Result<&'a str, String> {
    match table.get(key) {
        None => Err(format!("needs `{key} = \"…\"`")),
        Some(toml::Value::String(text)) => Ok(text),
        Some(value) => Err(format!(
            "has `{key}`, which must be one text in quotes, not of the type {}",
            value.type_str()
        )),
    }
}

fn scalar(table: &toml::Table, key: &str) -> Result<Option<String>, String> {
    table
        .get(key)
        .map(|value| values::from_toml(value).map_err(naming(key)))
        .transpose()
}

/// Puts the key before a refusal: "has `jitter`, which must be …".
fn naming(key: &str) -> impl Fn(String) -> String {
    move |refusal| format!("has `{key}`, which {refusal}")
}

fn check_keys(table: &toml::Table, known: &[&str]) -> Result<(), String> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!(
            "has the unknown key {}{}; known are {}",
            quoted(key),
            did_you_mean(key, known.iter().copied()),
            known.join(", ")
        )),
        None => Ok(()),
    }
}

/// Warns of what is allowed and yet can hardly be meant: a route that no event reaches, a program
/// that does not exist. `own` are the patterns of the program's own routes, which come first.
pub(in crate::cli) fn warnings<'a>(
    own: impl Iterator<Item = &'a str>,
    specs: &'a [RouteSpec],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut earlier: Vec<&str> = own.collect();
    for spec in specs {
        let pattern = spec.pattern.as_str();
        if let Some(by) = earlier.iter().find(|by| handlers::covers(by, pattern)) {
            warnings.push(format!(
                "route `{pattern}` is never asked: `{by}` stands before it and takes all of its events"
            ));
        }
        earlier.push(pattern);
        if let HandlerSpec::Exec { command } = &spec.handler
            && let Some(program) = command.first()
            && !exec::is_executable(program)
        {
            warnings.push(format!(
                "route `{pattern}`: the program `{program}` is not there, or may not be executed"
            ));
        }
    }
    warnings
}

/// Variables that name a proxy for programs.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Warns that a proxy is not used, where one is set and a route could mean it. The values may hold
/// a password.
pub(in crate::cli) fn proxy_warning(specs: &[RouteSpec], env: &Env) -> Option<String> {
    let has_http = specs
        .iter()
        .any(|spec| matches!(spec.handler, HandlerSpec::Http { .. }));
    let set: Vec<&str> = PROXY_VARIABLES
        .into_iter()
        .filter(|name| env.get(*name).is_some_and(|value| !value.is_empty()))
        .collect();
    (has_http && !set.is_empty()).then(|| {
        format!(
            "{} in the environment has no effect: http routes connect to their receivers themselves, and use no proxy",
            set.join(", ")
        )
    })
}

/// Shows a route as `config check` prints it, with the limits that are not those of `usual`: a url
/// without its user part and query, and without its path where it is secret; a program without its
/// arguments, since they may hold secrets.
pub(in crate::cli) fn shown(spec: &RouteSpec, usual: &Config) -> String {
    let target = match &spec.handler {
        HandlerSpec::Log => "log".to_owned(),
        HandlerSpec::Exec { command } => {
            let program = command.first().map_or("", String::as_str);
            match command.len().saturating_sub(1) {
                0 => format!("exec:{program}"),
                1 => format!("exec:{program} and 1 argument"),
                n_arguments => format!("exec:{program} and {n_arguments} arguments"),
            }
        }
        HandlerSpec::Http {
            url, url_source, ..
        } if url_source.is_secret() => handlers::shown_url(url),
        HandlerSpec::Http { url, .. } => {
            let end = url.find(['?', '#']).unwrap_or(url.len());
            logging::redact(&url[..end]).into_owned()
        }
        HandlerSpec::Library { name } => name.clone(),
    };
    let target = logging::escape(&target).into_owned();
    format!("{}={target}{}", spec.pattern, limits(spec, usual))
}

fn limits(spec: &RouteSpec, usual: &Config) -> String {
    let seconds = values::seconds_text;
    let (retry, all) = (&spec.retry, &usual.retry);
    let mut limits = Vec::new();
    let mut limit = |is_own: bool, text: String| {
        if is_own {
            limits.push(text);
        }
    };
    limit(
        spec.timeout != usual.handler_timeout,
        format!("timeout_seconds {}", seconds(spec.timeout)),
    );
    if let Some(most) = spec.max_parallel {
        limit(true, format!("max_parallel {most}"));
    }
    if let HandlerSpec::Http { dead_statuses, .. } = &spec.handler {
        limit(
            dead_statuses[..] != http::DEAD_STATUSES,
            format!("dead_statuses {dead_statuses:?}"),
        );
    }
    limit(
        retry.max_attempts != all.max_attempts,
        format!("max_attempts {}", retry.max_attempts),
    );
    limit(
        retry.backoff != all.backoff,
        format!("backoff_seconds {}", seconds(retry.backoff)),
    );
    limit(
        retry.multiplier.to_bits() != all.multiplier.to_bits(),
        format!("multiplier {}", retry.multiplier),
    );
    limit(
        retry.max != all.max,
        format!("max_seconds {}", seconds(retry.max)),
    );
    limit(
        retry.jitter.to_bits() != all.jitter.to_bits(),
        format!("jitter {}", retry.jitter),
    );
    if limits.is_empty() {
        return String::new();
    }
    format!(" ({})", limits.join(", "))
}
