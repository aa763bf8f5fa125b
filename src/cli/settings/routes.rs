//! Reads routes: `--route 'order.*=https://host/hook'` and the `[[route]]` tables of the
//! configuration file.
//!
//! Only the form is checked here. What a kind of handler takes is known to that kind alone, and the
//! contents (patterns, URLs, names of handlers) are checked where routes are built, in `handlers`.

use std::time::Duration;

use crate::cli::settings::values;
use crate::domain::config::{self, Config, HandlerSpec, RouteSpec};
use crate::domain::retry::RetryPolicy;
use crate::handlers::keys::{Key, Keys};
use crate::handlers::kind::{self, KindEntry, Secrets};
use crate::handlers::{self, Handlers, KINDS, RouteError};
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
    // A URL without its pattern is not repeated: its query may hold a key. Nor is one that lacks a
    // slash.
    let begin = text.split('=').next().unwrap_or_default();
    if begin.contains("://") || begin.starts_with("http:/") || begin.starts_with("https:/") {
        return Err("needs a pattern before the url, as in `order.*=https://host/hook`".to_owned());
    }
    let (pattern, handler) = parse(text).map_err(|error| format!("has the {error}"))?;
    Ok(RouteSpec {
        name: None,
        patterns: vec![pattern],
        handler,
        timeout: defaults.timeout,
        max_parallel: None,
        retry: defaults.retry,
    })
}

/// Parses `PATTERN=HANDLER`, where each kind of handler has forms of its own.
fn parse(text: &str) -> Result<(String, HandlerSpec), RouteError> {
    let (pattern, handler) = text.split_once('=').unwrap_or((text, ""));
    handlers::check_pattern(pattern)?;
    let handler = kind::from_flag(handler).map_err(|problem| RouteError::new(pattern, problem))?;
    Ok((pattern.to_owned(), handler))
}

/// Keys of a `[[route]]` table that say which handler gets which events. Those of the kinds of
/// handlers follow them, and then [`LIMIT_KEYS`].
pub(in crate::cli) const TARGET_KEYS: &[Key] = &[
    Key {
        name: "name",
        help: "what the route is called in metrics and messages: letters, digits, `_`, `-` and \
               `.` [default: its first pattern]",
    },
    Key {
        name: "event_type",
        help: "exact event type, `prefix.*` or `*`, or a list of them; the first route that \
               matches wins",
    },
    Key {
        name: "handler",
        help: "one of the names above",
    },
];

/// Keys of a `[[route]]` table that limit the route.
pub(in crate::cli) const LIMIT_KEYS: &[Key] = &[
    Key {
        name: "timeout_seconds",
        help: "bound of one run of the handler [default: --handler-timeout]",
    },
    Key {
        name: "max_parallel",
        help: "most events of the route that a worker process queues and runs at once \
               [default: all its runners]",
    },
    Key {
        name: "retry",
        help: "table [route.retry], with the keys below",
    },
];

/// Keys of a `[route.retry]` table.
pub(in crate::cli) const RETRY_KEYS: &[Key] = &[
    Key {
        name: "max_attempts",
        help: "attempts before an event is dead [default: --max-attempts]",
    },
    Key {
        name: "backoff_seconds",
        help: "delay after the first failed attempt [default: --retry-backoff-seconds]",
    },
    Key {
        name: "multiplier",
        help: "growth of the delay with each further attempt [default: --retry-multiplier]",
    },
    Key {
        name: "max_seconds",
        help: "longest delay [default: --retry-max-seconds]",
    },
    Key {
        name: "jitter",
        help: "part of each delay that chance may take off [default: --retry-jitter]",
    },
];

/// Reads a `[[route]]` table; a refusal follows the name of the route.
pub(in crate::cli) fn from_table(
    table: &toml::Table,
    defaults: &RouteDefaults,
    handlers: &Handlers,
    secrets: Secrets<'_>,
) -> Result<RouteSpec, String> {
    let keys = Keys(table);
    let names = |keys: &'static [Key]| keys.iter().map(|key| key.name);
    let of_kinds = kind::keys();
    let known: Vec<&str> = names(TARGET_KEYS)
        .chain(of_kinds)
        .chain(names(LIMIT_KEYS))
        .collect();
    keys.check(&known)?;
    let patterns = patterns_of(keys)?;
    let name = keys.get("name").map(|_| keys.text("name")).transpose()?;
    let handler = keys.text("handler")?;
    let handler = kind::from_table(handler, keys, secrets, handlers.knows(handler))?;
    Ok(RouteSpec {
        name: name.map(str::to_owned),
        patterns,
        timeout: scalar(keys, "timeout_seconds")?.map_or(Ok(defaults.timeout), |text| {
            values::seconds(&text, &config::HANDLER_SECONDS).map_err(naming("timeout_seconds"))
        })?,
        max_parallel: scalar(keys, "max_parallel")?
            .map(|text| {
                values::positive(&text, &config::MAX_PARALLEL).map_err(naming("max_parallel"))
            })
            .transpose()?,
        retry: retry_of(keys, &defaults.retry)?,
        handler,
    })
}

fn patterns_of(keys: Keys<'_>) -> Result<Vec<String>, String> {
    if !keys.is_list("event_type") {
        return Ok(vec![keys.text("event_type")?.to_owned()]);
    }
    let patterns = keys.texts("event_type");
    patterns
        .filter(|patterns| (1..=config::PATTERNS_MAX).contains(&patterns.len()))
        .ok_or_else(|| {
            format!(
                "has `event_type`, which must be one text in quotes, or a list of 1 to {} of them",
                config::PATTERNS_MAX
            )
        })
}

fn retry_of(keys: Keys<'_>, inherited: &RetryPolicy) -> Result<RetryPolicy, String> {
    let keys = match keys.get("retry") {
        None => return Ok(*inherited),
        Some(value) => value
            .as_table()
            .map(Keys)
            .ok_or_else(|| "needs a table [route.retry]".to_owned())?,
    };
    let known: Vec<&str> = RETRY_KEYS.iter().map(|key| key.name).collect();
    keys.check(&known)?;
    let seconds = |key: &'static str, inherited: Duration| {
        scalar(keys, key)?.map_or(Ok(inherited), |text| {
            values::seconds(&text, &config::RETRY_SECONDS).map_err(naming(key))
        })
    };
    let number = |key: &'static str, allowed, inherited: f64| {
        scalar(keys, key)?.map_or(Ok(inherited), |text| {
            values::decimal(&text, &allowed, "").map_err(naming(key))
        })
    };
    Ok(RetryPolicy {
        max_attempts: scalar(keys, "max_attempts")?.map_or(Ok(inherited.max_attempts), |text| {
            values::count(&text, &config::MAX_ATTEMPTS).map_err(naming("max_attempts"))
        })?,
        backoff: seconds("backoff_seconds", inherited.backoff)?,
        multiplier: number("multiplier", config::RETRY_MULTIPLIER, inherited.multiplier)?,
        max: seconds("max_seconds", inherited.max)?,
        jitter: number("jitter", config::RETRY_JITTER, inherited.jitter)?,
    })
}

fn scalar(keys: Keys<'_>, key: &str) -> Result<Option<String>, String> {
    keys.get(key)
        .map(|value| values::from_toml(value).map_err(naming(key)))
        .transpose()
}

/// Puts the key before a refusal: "has `jitter`, which must be …".
fn naming(key: &str) -> impl Fn(String) -> String {
    move |refusal| format!("has `{key}`, which {refusal}")
}

/// Warns of what is allowed and yet can hardly be meant: a route that no event reaches, and what
/// the kinds of handlers warn of. The program's own routes come first.
pub(in crate::cli) fn warnings(specs: &[RouteSpec], handlers: &Handlers, env: &Env) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut earlier: Vec<&str> = handlers.patterns().collect();
    for spec in specs {
        let name = spec.name();
        let mut covered = Vec::new();
        for pattern in &spec.patterns {
            let by = earlier.iter().find(|by| handlers::covers(by, pattern));
            covered.extend(by.map(|by| (pattern, *by)));
            earlier.push(pattern);
        }
        match covered.as_slice() {
            [(_, by), ..] if covered.len() == spec.patterns.len() => warnings.push(format!(
                "route `{name}` is never asked: `{by}` stands before it and takes all of its events"
            )),
            some => warnings.extend(some.iter().map(|(pattern, by)| {
                format!(
                    "route `{name}` gets nothing by its pattern `{pattern}`: `{by}` stands before it and takes all of that"
                )
            })),
        }
        let settings = handlers::settings_of(&spec.handler, handlers).ok();
        if let Some(warning) = settings.and_then(|settings| settings.warning()) {
            warnings.push(format!("route `{name}`: {warning}"));
        }
    }
    let is_used = |kind: &&KindEntry| specs.iter().any(|spec| spec.handler.kind == kind.name);
    let of_kinds = KINDS.iter().filter(is_used);
    warnings.extend(of_kinds.filter_map(|kind| (kind.warning_of)(env)));
    warnings
}

/// Shows a route as `config check` prints it, with the limits that are not those of `usual`.
pub(in crate::cli) fn shown(spec: &RouteSpec, usual: &Config, handlers: &Handlers) -> String {
    let settings = handlers::settings_of(&spec.handler, handlers).ok();
    let target = settings.as_ref().map(|settings| settings.shown());
    let target = target.unwrap_or_else(|| spec.handler.kind.clone());
    let unusual = settings.and_then(|settings| settings.unusual());
    let target = logging::escape(&target).into_owned();
    let patterns = spec.patterns.join(", ");
    format!("{patterns}={target}{}", limits(spec, unusual, usual))
}

fn limits(spec: &RouteSpec, of_handler: Option<String>, usual: &Config) -> String {
    let seconds = values::seconds_text;
    let (retry, all) = (&spec.retry, &usual.retry);
    let mut limits = Vec::new();
    let mut limit = |is_own: bool, text: String| {
        if is_own {
            limits.push(text);
        }
    };
    if let Some(name) = &spec.name {
        limit(true, format!("name {name}"));
    }
    limit(
        spec.timeout != usual.handler_timeout,
        format!("timeout_seconds {}", seconds(spec.timeout)),
    );
    if let Some(most) = spec.max_parallel {
        limit(true, format!("max_parallel {most}"));
    }
    if let Some(of_handler) = of_handler {
        limit(true, of_handler);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_form_of_a_route_is_parsed() {
        let check = |text, pattern: &str, spec| {
            assert_eq!(parse(text), Ok((pattern.to_owned(), spec)));
        };
        let of = |kind: &str, settings| HandlerSpec {
            kind: kind.to_owned(),
            settings,
        };
        let exec = |words: &[&str]| of("exec", json!({ "command": words }));

        check("*=log", "*", HandlerSpec::named("log"));
        check(
            "order.*=https://host/hook?a=b",
            "order.*",
            of(
                "http",
                json!({
                    "url": "https://host/hook?a=b",
                    "url_source": "route",
                    "dead_statuses": [400, 410, 413, 415, 422],
                }),
            ),
        );
        check(
            "mail.*=exec:/usr/bin/send-mail --fast",
            "mail.*",
            exec(&["/usr/bin/send-mail", "--fast"]),
        );
        check(
            r#"a=exec:x 'b c' "d=$e" f\ g '' $(h)"#,
            "a",
            exec(&["x", "b c", "d=$e", "f g", "", "$(h)"]),
        );
        check("*=audit-2", "*", HandlerSpec::named("audit-2"));
    }

    #[test]
    fn a_route_that_says_nothing_is_refused_with_what_is_allowed() {
        let check = |text, part: &str| {
            let problem = parse(text).expect_err("this is refused").to_string();
            assert!(problem.contains(part), "{problem}");
        };

        check("order.*", "the handler must be `log`");
        check("order.*=", "the handler must be `log`");
        check("order.*=exec", "the handler must be `log`");
        check("order.*=http", "the handler must be `log`");
        check("order.*=ftp://host/", "the handler must be `log`");
        check("order.*=exec:", "`exec:` needs a program");
        check("order.*=exec:  ", "`exec:` needs a program");
        check("order.*=exec:a 'b", "ends inside a quotation");
        check("https://host/", "this is a URL");
        check("=log", "the event type is empty");
    }

    /// Found by the fuzzing of routes: without the second slash the error repeated the URL.
    #[test]
    fn a_url_without_a_pattern_is_refused_and_not_repeated() {
        let config = Config::default();
        let defaults = RouteDefaults {
            timeout: config.handler_timeout,
            retry: config.retry,
        };
        for url in [
            "https://h/key",
            "https:/h/key",
            "http:/h?key=1",
            "ftp://h/key",
        ] {
            let refusal = from_flag(url, &defaults).expect_err("a pattern is missing");
            assert!(
                refusal.starts_with("needs a pattern before the url") && !refusal.contains("key"),
                "{refusal}"
            );
        }
    }
}
