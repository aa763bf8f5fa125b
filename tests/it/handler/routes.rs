//! Which handler an event goes to.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dispatchbox::domain::config::{HandlerSpec, RouteSpec};
use dispatchbox::domain::event::{Event, Outcome};
use dispatchbox::handlers::{
    Handler, HandlerError, Handlers, Route, Routes, Run, Segments, no_route_reason, outcome_of,
};
use serde_json::json;

use super::{LONG, RETRY, config, event, spec};

fn library(name: &str) -> HandlerSpec {
    HandlerSpec::named(name)
}

fn log() -> HandlerSpec {
    HandlerSpec::named("log")
}

/// Fails with its own name, so that it can be told who was asked.
fn names(name: &'static str) -> impl Handler + 'static {
    move |_: &Event| Err(HandlerError::retry(name))
}

fn run(route: &Route, event: &Event) -> Result<(), HandlerError> {
    let run = Run {
        timeout: route.timeout,
        on_group: &|_| (),
        worker: "test",
    };
    route.run(event, &run)
}

/// Who gets an event of this type.
fn asked(routes: &Routes, event_type: &str) -> Option<String> {
    let route = routes.get(routes.find(event_type)?);
    Some(run(route, &event(event_type)).err()?.to_string())
}

#[test]
fn the_first_match_wins_and_the_programs_own_routes_come_first() {
    let config = config(vec![
        spec("order.created", library("first")),
        spec("order.*", library("second")),
        spec("*", library("rest")),
    ]);
    let handlers = Handlers::default()
        .on("order.paid", names("own"))
        .register("first", names("first"))
        .register("second", names("second"))
        .register("rest", names("rest"));

    let routes = Routes::new(&config, &handlers).unwrap();

    for (event_type, expected) in [
        ("order.paid", "own"),
        ("order.created", "first"),
        ("order.created.crm", "second"),
        ("mail.sent", "rest"),
    ] {
        assert_eq!(asked(&routes, event_type).as_deref(), Some(expected));
    }
    assert_eq!(routes.len(), 4);
    assert!(!routes.is_sample());
    assert!(routes.get(0).is_library());
}

#[test]
fn a_route_takes_what_any_of_its_patterns_matches() {
    let several = RouteSpec {
        patterns: ["order.*", "invoice.paid"].map(str::to_owned).into(),
        ..spec("", log())
    };
    let config = config(vec![several, spec("invoice.*", log())]);

    let routes = Routes::new(&config, &Handlers::default()).unwrap();

    for (event_type, expected) in [
        ("order.created", Some(0)),
        ("invoice.paid", Some(0)),
        ("invoice.sent", Some(1)),
        ("order", None),
    ] {
        assert_eq!(routes.find(event_type), expected, "{event_type}");
    }
    // The database is told the same.
    let segments = Segments::new(&routes);
    let route_of = |event_type: &str| {
        let at = segments
            .bounds()
            .partition_point(|bound| bound.as_str() <= event_type);
        segments.routes()[at]
    };
    for event_type in [
        "order.created",
        "invoice.paid",
        "invoice.sent",
        "order",
        "invoice.paid2",
    ] {
        assert_eq!(
            route_of(event_type),
            routes.find(event_type),
            "{event_type}"
        );
    }
}

#[test]
fn a_route_keeps_its_limits_and_a_programs_own_takes_the_configurations() {
    let limited = RouteSpec {
        timeout: Duration::from_secs(7),
        max_parallel: NonZeroU16::new(2),
        ..spec("a", log())
    };
    let handlers = Handlers::default().on("b", names("b"));

    let routes = Routes::new(&config(vec![limited]), &handlers).unwrap();

    let own = routes.get(routes.find("b").unwrap());
    assert_eq!(
        (own.timeout, own.max_parallel, own.retry),
        (LONG, None, RETRY)
    );
    let configured = routes.get(routes.find("a").unwrap());
    assert_eq!(configured.patterns, ["a"]);
    assert_eq!(configured.name, "a");
    assert_eq!(configured.timeout, Duration::from_secs(7));
    assert_eq!(configured.max_parallel, NonZeroU16::new(2));
    assert!(!configured.is_library());
}

#[test]
fn without_any_route_the_three_sample_types_are_logged_and_no_other() {
    let routes = Routes::new(&config(Vec::new()), &Handlers::default()).unwrap();

    assert!(routes.is_sample());
    assert_eq!(routes.len(), 3);
    for event_type in [
        "order.created",
        "order.created.analytics",
        "order.created.crm",
    ] {
        let route = routes.get(routes.find(event_type).unwrap());
        assert_eq!(run(route, &event(event_type)), Ok(()));
    }
    assert_eq!(routes.find("order.paid"), None);
}

#[test]
fn one_route_of_the_program_is_enough_to_do_without_the_samples() {
    let handlers = Handlers::default().on("mail.*", names("mail"));

    let routes = Routes::new(&config(Vec::new()), &handlers).unwrap();

    assert!(!routes.is_sample());
    assert_eq!(routes.find("order.created"), None);
}

#[test]
fn an_event_that_no_route_matches_is_dead_only_after_its_attempts() {
    let routes = Routes::new(&config(vec![spec("a", log())]), &Handlers::default()).unwrap();
    assert_eq!(routes.find("b"), None);
    let outcome = |attempt| {
        let missing = Err(HandlerError::retry(no_route_reason("b")));
        outcome_of(Ok(missing), attempt, &RETRY, 0.0)
    };

    let reason = "No handler for event_type=b".to_owned();
    let delay = RETRY.backoff;
    assert_eq!(
        outcome(1),
        Outcome::Retry {
            delay,
            reason: reason.clone()
        }
    );
    assert_eq!(outcome(RETRY.max_attempts), Outcome::Dead { reason });
}

#[test]
fn a_handler_that_panics_fails_the_attempt_and_is_asked_again() {
    let calls = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&calls);
    let handlers = Handlers::default().on("*", move |_: &Event| {
        assert!(
            counting.fetch_add(1, Ordering::Relaxed) > 0,
            "the first call fails"
        );
        Ok(())
    });
    let routes = Routes::new(&config(Vec::new()), &handlers).unwrap();
    let outcome = || {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run(routes.get(0), &event("a"))
        }));
        outcome_of(caught, 1, &RETRY, 0.0)
    };

    let first = outcome();
    let second = outcome();

    assert_eq!(
        first.reason(),
        Some("handler panicked: the first call fails")
    );
    assert_eq!(first.name(), "retry");
    assert_eq!(second, Outcome::Done);
}

#[test]
fn a_shared_handler_can_be_looked_at_while_it_serves() {
    struct Counter(AtomicU32);
    impl Handler for Counter {
        fn handle(&self, _: &Event) -> Result<(), HandlerError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
    let counter = Arc::new(Counter(AtomicU32::new(0)));
    let handlers = Handlers::default().on("*", Arc::clone(&counter));
    let routes = Routes::new(&config(Vec::new()), &handlers).unwrap();

    assert_eq!(run(routes.get(0), &event("a")), Ok(()));

    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_wrong_with_a_route_is_told_with_its_pattern() {
    let check = |routes, handlers: Handlers, expected: &str| {
        let error = Routes::new(&config(routes), &handlers).err().unwrap();
        assert_eq!(error.to_string(), expected);
    };
    let of = |kind: &str, settings| HandlerSpec {
        kind: kind.to_owned(),
        settings,
    };
    let http = |url: &str, status: u16| {
        let settings = json!({ "url": url, "url_source": "route", "dead_statuses": [status] });
        of("http", settings)
    };
    let none = Handlers::default;
    let audit = || none().register("audit", names("audit"));

    check(
        vec![spec("a.*", library("audti"))],
        audit(),
        "route `a.*`: there is no handler `audti`; did you mean `audit`?; there are `log`, `exec`, `http`, `audit`",
    );
    check(
        vec![spec("order*", log())],
        none(),
        "route `order*`: `*` may only stand alone, or at the end after a dot, as in `order.*`",
    );
    check(
        Vec::new(),
        none().on("", names("own")),
        "route ``: the event type is empty",
    );
    check(
        vec![spec("a", of("exec", json!({ "command": [] })))],
        none(),
        "route `a`: the command is empty; it needs at least a program",
    );
    check(
        vec![spec("a", of("exec", json!("secret")))],
        none(),
        "route `a`: the settings of the handler `exec` are not those of this version",
    );
    check(
        vec![spec("a", http("ftp://me:secret@host/", 400))],
        none(),
        "route `a`: the URL has no scheme that can be used; \
         it must be an http or https URL such as `https://crm.example/hooks`",
    );
    check(
        vec![spec("a", http("http://host/", 200))],
        none(),
        "route `a`: dead statuses must be between 300 and 599, not 200",
    );
    check(
        Vec::new(),
        audit().register("audit", names("audit")),
        "route `audit`: two handlers are registered under this name",
    );
    check(
        Vec::new(),
        none().register("log", names("log")),
        "route `log`: this is the name of a handler that ships with the program",
    );
    check(
        Vec::new(),
        none().register("a b", names("a b")),
        "route `a b`: a handler's name consists of letters, digits, `_`, `-` and `.`",
    );
}
