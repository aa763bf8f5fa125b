//! Routes: event type → handler, with the limits of each. Built in each worker to deliver, and in
//! the supervisor to label metrics and to choose retry policies.
//!
//! The first match wins, so the order in which routes are given is their order of precedence.
//! Lookup walks the list: there are a handful of routes, and comparing a few short strings costs
//! less than any table would.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::domain::config::{Config, HandlerSpec, RouteSpec};
use crate::domain::event::Event;
use crate::domain::nearest::did_you_mean;
use crate::domain::retry::RetryPolicy;
use crate::handlers::kind::{self, Build, Deliver, Settings};
use crate::handlers::transport::Roots;
use crate::handlers::{HandlerError, Handlers, KINDS, Run, sample};

/// What is wrong with a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route `{name}`: {problem}")]
pub struct RouteError {
    name: String,
    problem: String,
}

impl RouteError {
    pub(crate) fn new(name: &str, problem: impl Into<String>) -> RouteError {
        RouteError {
            name: name.to_owned(),
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
        let own = handlers.routes().map(|(pattern, handler)| {
            check_pattern(pattern)?;
            Ok(Route {
                name: pattern.to_owned(),
                patterns: vec![pattern.to_owned()],
                timeout: config.handler_timeout,
                max_parallel: None,
                retry: config.retry,
                handler,
            })
        });
        let configured = config
            .routes
            .iter()
            .chain(&samples)
            .map(|spec| Route::new(spec, config, handlers, &mut roots));
        let in_order: Vec<Route> = own.chain(configured).collect::<Result<_, _>>()?;
        check_route_names(config, &in_order)?;
        Ok(Routes {
            in_order,
            default_retry: config.retry,
            is_sample,
        })
    }

    /// Finds the first route that matches an event type.
    pub fn find(&self, event_type: &str) -> Option<usize> {
        self.in_order
            .iter()
            .position(|route| route.takes(event_type))
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
    /// As it was configured, or the first pattern; also the route's label in the metrics.
    pub name: String,
    /// The event types that it takes.
    pub patterns: Vec<String>,
    /// Bound of one run.
    pub timeout: Duration,
    /// Most events of this route in flight per worker; `None`: as many as there are runners.
    pub max_parallel: Option<NonZeroU16>,
    /// When failed events are tried again, and how often.
    pub retry: RetryPolicy,
    handler: Box<dyn Deliver>,
}

impl Route {
    fn new(
        spec: &RouteSpec,
        config: &Config,
        handlers: &Handlers,
        roots: &mut Roots,
    ) -> Result<Route, RouteError> {
        for pattern in &spec.patterns {
            check_pattern(pattern)?;
        }
        if let Some(name) = &spec.name {
            check_route_name(name)?;
        }
        let build = Build {
            timeout: spec.timeout,
            runners: spec.max_parallel.unwrap_or(config.max_parallel),
            database: &config.database,
            roots,
        };
        let handler = settings_of(&spec.handler, handlers)
            .and_then(|settings| settings.build(build))
            .map_err(|problem| RouteError::new(spec.name(), problem))?;
        Ok(Route {
            name: spec.name().to_owned(),
            patterns: spec.patterns.clone(),
            timeout: spec.timeout,
            max_parallel: spec.max_parallel,
            retry: spec.retry,
            handler,
        })
    }

    fn takes(&self, event_type: &str) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|pattern| matches(pattern, event_type))
    }

    /// Hands `event` to the handler and waits for its result. A handler of a library user may panic
    /// in here.
    pub fn run(&self, event: &Event, run: &Run<'_>) -> Result<(), HandlerError> {
        self.handler.deliver(event, run)
    }

    /// Says whether this is a handler of a library user: it does not keep the timeout by itself, so
    /// the watchdog watches it.
    pub fn is_library(&self) -> bool {
        self.handler.is_library()
    }
}

/// The settings of a route's handler, of whatever kind it is, or registered under its name.
pub(crate) fn settings_of<'a>(
    spec: &HandlerSpec,
    handlers: &'a Handlers,
) -> Result<Box<dyn Settings + 'a>, String> {
    if let Some(settings) = kind::settings(spec) {
        return settings;
    }
    match handlers.registered(&spec.kind) {
        Some(registered) => Ok(Box::new(registered)),
        None => Err(unknown(&spec.kind, handlers)),
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
pub(super) fn matches(pattern: &str, event_type: &str) -> bool {
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

/// The label of events that no route takes.
const NO_ROUTE: &str = "other";

fn check_route_name(name: &str) -> Result<(), RouteError> {
    if !kind::is_name(name) {
        let problem = "a route's name consists of letters, digits, `_`, `-` and `.`";
        return Err(RouteError::new(name, problem));
    }
    if name == NO_ROUTE {
        let problem = "this is what the metrics call events that no route takes";
        return Err(RouteError::new(name, problem));
    }
    Ok(())
}

/// Refuses a name that two routes would have. Routes without names may have the same first pattern:
/// the later one is never asked.
fn check_route_names(config: &Config, routes: &[Route]) -> Result<(), RouteError> {
    for name in config.routes.iter().filter_map(|spec| spec.name.as_ref()) {
        if routes.iter().filter(|route| route.name == *name).count() > 1 {
            return Err(RouteError::new(name, "two routes have this name"));
        }
    }
    Ok(())
}

fn check_names(handlers: &Handlers) -> Result<(), RouteError> {
    for (i, name) in handlers.names().enumerate() {
        let problem = if !kind::is_name(name) {
            "a handler's name consists of letters, digits, `_`, `-` and `.`"
        } else if kind::find(name).is_some() {
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
    let names = || KINDS.iter().map(|kind| kind.name).chain(handlers.names());
    let shown: Vec<String> = names().map(|name| format!("`{name}`")).collect();
    format!(
        "there is no handler `{name}`{}; there are {}",
        did_you_mean(name, names()),
        shown.join(", ")
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
}
