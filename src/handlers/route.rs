//! Routes: event type → handler, with the limits of each; built once in each worker.
//!
//! The first match wins, so the order in which routes are given is their order of precedence.
//! Lookup walks the list: there are a handful of routes, and comparing a few short strings costs
//! less than any table would.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::config::{Config, HandlerSpec, RouteSpec, UrlSource};
use crate::domain::event::Event;
use crate::domain::nearest::did_you_mean;
use crate::domain::retry::RetryPolicy;
use crate::handlers::exec::Exec;
use crate::handlers::http::{DEAD_STATUSES, Http, Roots};
use crate::handlers::{Handler, HandlerError, Handlers, Run, log, sample};

/// The names of the handlers that ship with the program. A registered handler may not take them.
const BUILT_IN: [&str; 3] = ["log", "exec", "http"];

/// What is wrong with a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route `{pattern}`: {problem}")]
pub struct RouteError {
    pattern: String,
    problem: String,
}

impl RouteError {
    fn new(pattern: &str, problem: impl Into<String>) -> RouteError {
        RouteError {
            pattern: pattern.to_owned(),
            problem: problem.into(),
        }
    }
}

/// All routes of a worker in their order.
pub struct Routes {
    in_order: Vec<Route>,
    /// The retry policy of events that no route takes.
    default_retry: RetryPolicy,
    is_sample: bool,
}

impl Routes {
    /// Builds the routes of the program (`Handlers::on`), then those of the configuration; the
    /// sample routes when there are neither.
    pub fn new(config: &Config, handlers: &Handlers) -> Result<Routes, RouteError> {
        check_names(handlers)?;
        let is_sample = config.routes.is_empty() && !handlers.has_routes();
        let samples = if is_sample {
            sample::routes(config)
        } else {
            Vec::new()
        };
        let mut roots = Roots::default();
        let own = handlers.on.iter().map(|(pattern, handler)| {
            check_pattern(pattern)?;
            Ok(Route {
                pattern: pattern.clone(),
                timeout: config.handler_timeout,
                max_parallel: None,
                retry: config.retry,
                target: Target::Library(Arc::clone(handler)),
            })
        });
        let configured = config
            .routes
            .iter()
            .chain(&samples)
            .map(|spec| Route::new(spec, config, handlers, &mut roots));
        Ok(Routes {
            in_order: own.chain(configured).collect::<Result<_, _>>()?,
            default_retry: config.retry,
            is_sample,
        })
    }

    /// Finds the first route that matches an event type.
    pub fn find(&self, event_type: &str) -> Option<usize> {
        self.in_order
            .iter()
            .position(|route| matches(&route.pattern, event_type))
    }

    /// The retry policy of an event type: its route's, or the configuration's where no route takes
    /// it.
    pub fn retry_policy(&self, event_type: &str) -> RetryPolicy {
        self.find(event_type)
            .map_or(self.default_retry, |route| self.get(route).retry)
    }

    /// The route at `index`, as [`Routes::find`] returned it.
    pub fn get(&self, index: usize) -> &Route {
        &self.in_order[index]
    }

    /// Number of routes; never 0.
    #[expect(
        clippy::len_without_is_empty,
        reason = "there is always a route: the sample routes stand in when none is configured"
    )]
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Says whether these are the sample routes, which are used when no route is configured.
    pub fn is_sample(&self) -> bool {
        self.is_sample
    }
}

/// One route, ready to run.
pub struct Route {
    /// As it was configured; also the route's label in the metrics.
    pub pattern: String,
    /// Bound of one run.
    pub timeout: Duration,
    /// Most events of this route in flight per worker; `None`: as many as there are runners.
    pub max_parallel: Option<NonZeroU16>,
    /// When failed events are tried again, and how often.
    pub retry: RetryPolicy,
    target: Target,
}

enum Target {
    Log,
    Exec(Exec),
    Http(Box<Http>),
    Library(Arc<dyn Handler>),
}

impl Route {
    fn new(
        spec: &RouteSpec,
        config: &Config,
        handlers: &Handlers,
        roots: &mut Roots,
    ) -> Result<Route, RouteError> {
        check_pattern(&spec.pattern)?;
        let wrong = |problem: String| RouteError::new(&spec.pattern, problem);
        let target = match &spec.handler {
            HandlerSpec::Log => Target::Log,
            HandlerSpec::Exec { command } => Target::Exec(Exec::new(command).map_err(wrong)?),
            HandlerSpec::Http {
                url,
                url_source,
                dead_statuses,
            } => {
                let runners = spec.max_parallel.unwrap_or(config.max_parallel);
                let http = Http::new(url, url_source, dead_statuses, spec.timeout, runners, roots);
                Target::Http(Box::new(http.map_err(wrong)?))
            }
            HandlerSpec::Library { name } => {
                let handler = handlers.registered(name);
                Target::Library(Arc::clone(
                    handler.ok_or_else(|| wrong(unknown(name, handlers)))?,
                ))
            }
        };
        Ok(Route {
            pattern: spec.pattern.clone(),
            timeout: spec.timeout,
            max_parallel: spec.max_parallel,
            retry: spec.retry,
            target,
        })
    }

    /// Hands `event` to the handler and waits for its result. A handler of a library user may panic
    /// in here.
    pub fn run(&self, event: &Event, run: &Run<'_>) -> Result<(), HandlerError> {
        match &self.target {
            Target::Log => {
                log::run(event);
                Ok(())
            }
            Target::Exec(exec) => exec.run(event, run),
            Target::Http(http) => http.run(event, run),
            Target::Library(handler) => handler.handle(event),
        }
    }

    /// Says whether the handler runs inside this process, where nothing can interrupt it.
    pub fn is_library(&self) -> bool {
        matches!(self.target, Target::Library(_))
    }
}

/// Checks that `pattern` is an exact event type, `prefix.*` or `*`.
pub fn check_pattern(pattern: &str) -> Result<(), RouteError> {
    let problem = if pattern.is_empty() {
        "the event type is empty"
    } else if pattern.contains("://") {
        "this is a URL, not an event type; write PATTERN=URL, for example `*=https://crm.example/hooks`"
    } else if pattern.chars().any(char::is_control) || pattern.trim() != pattern {
        "an event type has no control characters, and no space at its ends"
    } else if !matches!(stem(pattern), Some(stem) if !stem.contains('*')) {
        "`*` may only stand alone, or at the end after a dot, as in `order.*`"
    } else {
        return Ok(());
    };
    Err(RouteError::new(pattern, problem))
}

/// What is left of a pattern without its star; `None` when the star stands where it must not.
fn stem(pattern: &str) -> Option<&str> {
    match pattern.strip_suffix('*') {
        None => Some(pattern),
        Some("") => Some(""),
        Some(prefix) => prefix.strip_suffix('.').filter(|stem| !stem.is_empty()),
    }
}

/// Matches by a checked pattern: `order.*` takes everything that begins with `order.`, and not
/// `order` itself.
fn matches(pattern: &str, event_type: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == event_type, |prefix| {
            event_type.starts_with(prefix)
        })
}

/// Says whether a route with the pattern `earlier` takes everything that one with `later` could: of
/// two checked patterns the later one is then never asked.
pub fn covers(earlier: &str, later: &str) -> bool {
    // What `order.paid.*` takes begins with `order.`, as does the pattern itself.
    matches(earlier, later)
}

/// Parses the command line's form of a route, such as `order.*=https://crm.example/hooks`, `*=log`,
/// `mail.*=exec:/usr/bin/send-mail --fast` or `audit.*=NAME` with the name of a registered handler.
///
/// The words after `exec:` are split as a shell would split and unquote them, and nothing else of a
/// shell happens to them.
pub fn parse_route(text: &str) -> Result<(String, HandlerSpec), RouteError> {
    let (pattern, handler) = text.split_once('=').unwrap_or((text, ""));
    check_pattern(pattern)?;
    let wrong = |problem: &str| Err(RouteError::new(pattern, problem));
    let spec = if handler == "log" {
        HandlerSpec::Log
    } else if let Some(line) = handler.strip_prefix("exec:") {
        match shlex::split(line) {
            Some(command) if !command.is_empty() => HandlerSpec::Exec { command },
            Some(_) => {
                return wrong("`exec:` needs a program, for example `exec:/usr/bin/send-mail`");
            }
            None => return wrong("the command after `exec:` ends inside a quotation"),
        }
    } else if handler.starts_with("https://") || handler.starts_with("http://") {
        HandlerSpec::Http {
            url: handler.to_owned(),
            url_source: UrlSource::Route,
            dead_statuses: DEAD_STATUSES.to_vec(),
        }
    } else if is_name(handler) && !BUILT_IN.contains(&handler) {
        HandlerSpec::Library {
            name: handler.to_owned(),
        }
    } else {
        // Only what stands before the colon is compared: the rest may be a secret.
        let scheme = handler.split_once(':').map_or("", |(scheme, _)| scheme);
        let meant = did_you_mean(scheme, ["exec", "http", "https"]);
        return wrong(&format!(
            "the handler must be `log`, `exec:COMMAND`, `http://…`, `https://…` or the name of a registered handler, \
             as in `order.*=https://crm.example/hooks`{meant}"
        ));
    };
    Ok((pattern.to_owned(), spec))
}

/// Names stand on the command line and in the file without quotation.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

fn check_names(handlers: &Handlers) -> Result<(), RouteError> {
    for (i, name) in handlers.names().enumerate() {
        let problem = if !is_name(name) {
            "a handler's name consists of letters, digits, `_`, `-` and `.`"
        } else if BUILT_IN.contains(&name) {
            "this is the name of a handler that ships with the program"
        } else if handlers.names().take(i).any(|earlier| earlier == name) {
            "two handlers are registered under this name"
        } else {
            continue;
        };
        return Err(RouteError::new(name, problem));
    }
    Ok(())
}

fn unknown(name: &str, handlers: &Handlers) -> String {
    let built_in_names: Vec<String> = BUILT_IN
        .iter()
        .copied()
        .chain(handlers.names())
        .map(|name| format!("`{name}`"))
        .collect();
    format!(
        "there is no handler `{name}`{}; there are {}",
        did_you_mean(name, BUILT_IN.iter().copied().chain(handlers.names())),
        built_in_names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(result: Result<impl Sized, RouteError>) -> String {
        result.err().expect("this is refused").to_string()
    }

    #[test]
    fn a_pattern_is_exact_or_a_prefix_or_everything() {
        let check = |pattern, event_type, expected| {
            assert!(check_pattern(pattern).is_ok(), "{pattern}");
            assert_eq!(
                matches(pattern, event_type),
                expected,
                "{pattern} {event_type}"
            );
        };

        check("order.created", "order.created", true);
        check("order.created", "order.created.crm", false);
        check("order.*", "order.created", true);
        check("order.*", "order.created.crm", true);
        check("order.*", "order", false);
        check("order.*", "orders.created", false);
        check("order.*", "Order.created", false);
        check("*", "", true);
        check("*", "anything", true);
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused() {
        for pattern in [
            "",
            "*.*",
            "*.created",
            "order*",
            ".*",
            "order.*.x",
            "**",
            "a.**",
        ] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
        for pattern in [" order", "order ", "or\nder"] {
            assert!(problem_of(check_pattern(pattern)).contains("control characters"));
        }
        assert_eq!(
            problem_of(check_pattern("order*")),
            "route `order*`: `*` may only stand alone, or at the end after a dot, as in `order.*`"
        );
    }

    #[test]
    fn each_form_of_a_route_is_parsed() {
        let check = |text, pattern: &str, spec| {
            assert_eq!(parse_route(text), Ok((pattern.to_owned(), spec)));
        };
        let exec = |words: &[&str]| HandlerSpec::Exec {
            command: words.iter().map(|&word| word.to_owned()).collect(),
        };

        check("*=log", "*", HandlerSpec::Log);
        check(
            "order.*=https://host/hook?a=b",
            "order.*",
            HandlerSpec::Http {
                url: "https://host/hook?a=b".to_owned(),
                url_source: UrlSource::Route,
                dead_statuses: vec![400, 410, 413, 415, 422],
            },
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
        let name = "audit-2".to_owned();
        check("*=audit-2", "*", HandlerSpec::Library { name });
    }

    #[test]
    fn a_route_that_says_nothing_is_refused_with_what_is_allowed() {
        let check = |text, part: &str| {
            let problem = problem_of(parse_route(text));
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
}
