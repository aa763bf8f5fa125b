//! Pure: method and path → route.

use crate::store::DeadChange;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Route {
    /// The page for a person.
    Page,
    /// Whether the process lives.
    Health,
    /// Whether the daemon should get traffic.
    Ready,
    /// Its metrics.
    Metrics,
    /// The state of the daemon, in detail.
    Status,
    /// Something about dead events.
    DeadEvents(DeadRoute),
    /// The path holds a value that is not allowed, for this reason.
    BadPath(&'static str),
    /// No route has this path.
    NotFound,
    /// The path has a route, for these methods.
    MethodNotAllowed(&'static str),
}

/// What is asked for about dead events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum DeadRoute {
    /// A page of the dead events.
    List,
    /// The number of dead events.
    Stats,
    /// One dead event.
    Show(i64),
    /// A change of dead events; the path of a requeue says retry, as it always has.
    Change(DeadChange, Target),
}

/// Which dead events a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Target {
    /// The event with this id.
    One(i64),
    /// The events that the body lists.
    Batch,
    /// All events that match the filter in the body.
    Matching,
}

/// Methods of the routes that change nothing.
const LOOK: &str = "GET, HEAD";

/// The method of the routes that change something.
const CHANGE: &str = "POST";

/// Most bytes of a body: more than any request needs, except a list of ids.
const BODY_MAX: u64 = 1024 * 1024;

/// Most bytes of a body with a list of ids: 100,000 ids of twenty digits fit.
const BATCH_BODY_MAX: u64 = 4 * 1024 * 1024;

/// Refusal of an id that is no number.
pub(in crate::http) const NO_EVENT_ID: &str = "event_id must be a positive integer";

/// Prefix of every path of the API.
const API: &str = "/api";

/// Says whether a request belongs to the API, also where no route has its path: strangers do not
/// even learn which paths exist.
pub(in crate::http) fn is_api(target: &str) -> bool {
    let rest = path(target).strip_prefix(API);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How long an answer takes, and so which group of threads gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Priority {
    /// The answer is a constant: the thread that takes the requests gives it, and no wait may ever
    /// be added to it.
    AtOnce,
    /// The answer shows what the daemon knows.
    Look,
    /// The answer waits for a look at the database, which all waiting requests share.
    Probe,
    /// The answer waits for a call of the API.
    Call,
}

impl Route {
    /// Which group of threads answers the request.
    pub(in crate::http) fn priority(self) -> Priority {
        match self {
            Route::Health | Route::BadPath(_) | Route::NotFound | Route::MethodNotAllowed(_) => {
                Priority::AtOnce
            }
            Route::Page | Route::Metrics | Route::Status => Priority::Look,
            Route::Ready => Priority::Probe,
            Route::DeadEvents(_) => Priority::Call,
        }
    }

    /// How many bytes the body of the request may have.
    pub(in crate::http) fn body_max(self) -> u64 {
        let is_batch = matches!(self, Route::DeadEvents(DeadRoute::Change(_, Target::Batch)));
        if is_batch { BATCH_BODY_MAX } else { BODY_MAX }
    }
}

/// Finds what `method` on `target` (path and query) asks for.
pub(in crate::http) fn find(method: &str, target: &str) -> Route {
    match at(path(target)) {
        Some((route, allowed)) if allowed.split(", ").any(|one| one == method) => route,
        Some((_, allowed)) => Route::MethodNotAllowed(allowed),
        None => Route::NotFound,
    }
}

/// The route at a path, and its methods.
fn at(path: &str) -> Option<(Route, &'static str)> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    match segments.as_slice() {
        [""] => Some((Route::Page, LOOK)),
        ["health"] => Some((Route::Health, LOOK)),
        ["ready"] => Some((Route::Ready, LOOK)),
        ["metrics"] => Some((Route::Metrics, LOOK)),
        ["api", "status"] => Some((Route::Status, LOOK)),
        ["api", "dead-events", rest @ ..] => dead_events(rest),
        _ => None,
    }
}

fn dead_events(segments: &[&str]) -> Option<(Route, &'static str)> {
    let look = |route| Some((Route::DeadEvents(route), LOOK));
    let change = |what, target| Some((Route::DeadEvents(DeadRoute::Change(what, target)), CHANGE));
    let of_event = |segment: &str, make: &dyn Fn(i64) -> DeadRoute, methods| {
        let route = match event_id(segment) {
            Some(id) => Route::DeadEvents(make(id)),
            None => Route::BadPath(NO_EVENT_ID),
        };
        (!segment.is_empty()).then_some((route, methods))
    };
    match segments {
        [] => look(DeadRoute::List),
        ["stats"] => look(DeadRoute::Stats),
        ["retry"] => change(DeadChange::Requeue, Target::Matching),
        ["discard"] => change(DeadChange::Discard, Target::Matching),
        ["retry-batch"] => change(DeadChange::Requeue, Target::Batch),
        ["discard-batch"] => change(DeadChange::Discard, Target::Batch),
        [id] => of_event(id, &DeadRoute::Show, LOOK),
        [id, "retry"] => of_event(
            id,
            &|id| DeadRoute::Change(DeadChange::Requeue, Target::One(id)),
            CHANGE,
        ),
        [id, "discard"] => of_event(
            id,
            &|id| DeadRoute::Change(DeadChange::Discard, Target::One(id)),
            CHANGE,
        ),
        _ => None,
    }
}

/// Reads any number of the column's type: a sequence that ran out may have been set to the negative
/// half. Only the table knows which numbers below one are ids.
fn event_id(segment: &str) -> Option<i64> {
    // `parse` would take a plus sign, too.
    segment.parse().ok().filter(|_| !segment.starts_with('+'))
}

/// The path as it was sent: it is neither decoded nor resolved, so a path that differs from a
/// route's in one letter is not found.
fn path(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_path_gets_around_the_api_being_guarded() {
        for target in [
            "/api",
            "/api/",
            "/api/status",
            "/api?x",
            "/api/nowhere#x",
            "/api/dead-events/1/retry",
        ] {
            assert!(is_api(target), "{target}");
        }
        for target in ["/apis", "/health?/api/", "", "/"] {
            assert!(!is_api(target), "{target}");
        }
        // Where the API is not seen, nothing of it is found.
        for target in [
            "/API/status",
            "//api/status",
            "/./api/status",
            "/%61pi/status",
            "/x/../api/status",
            "http://h/api/status",
            "api/status",
            "x/api/status",
        ] {
            assert_eq!(find("GET", target), Route::NotFound, "{target}");
            assert!(!is_api(target), "{target}");
        }
    }

    #[test]
    fn paths_are_exact_and_queries_do_not_matter() {
        assert_eq!(find("GET", "/"), Route::Page);
        assert_eq!(find("HEAD", "/?from=mail"), Route::Page);
        assert_eq!(find("GET", "//"), Route::NotFound);
        assert_eq!(find("POST", "/"), Route::MethodNotAllowed("GET, HEAD"));
        assert_eq!(find("GET", "/health"), Route::Health);
        assert_eq!(find("HEAD", "/ready?verbose=1"), Route::Ready);
        assert_eq!(find("GET", "/metrics"), Route::Metrics);
        assert_eq!(find("GET", "/api/status"), Route::Status);
        assert_eq!(
            find("GET", "/api/dead-events?limit=5"),
            Route::DeadEvents(DeadRoute::List)
        );
        for target in [
            "",
            "//",
            "/health/",
            "/api/dead-events/",
            "/api/dead-events//retry",
            "/api/dead-events/1/",
            "/api/dead-events/1/retry/",
            "/api/dead-events/1/forget",
        ] {
            assert_eq!(find("GET", target), Route::NotFound, "{target}");
        }
    }

    #[test]
    fn each_path_has_its_methods() {
        let post = |target: &str| find("POST", target);
        assert_eq!(post("/nowhere"), Route::NotFound);
        assert_eq!(post("/health"), Route::MethodNotAllowed("GET, HEAD"));
        for (word, change) in [
            ("retry", DeadChange::Requeue),
            ("discard", DeadChange::Discard),
        ] {
            for (path, target) in [
                (format!("/api/dead-events/7/{word}"), Target::One(7)),
                (format!("/api/dead-events/{word}-batch"), Target::Batch),
                (format!("/api/dead-events/{word}"), Target::Matching),
            ] {
                let expected = Route::DeadEvents(DeadRoute::Change(change, target));
                assert_eq!(post(&path), expected, "{path}");
                for method in ["GET", "HEAD", "PUT", "post", ""] {
                    assert_eq!(
                        find(method, &path),
                        Route::MethodNotAllowed("POST"),
                        "{method} {path}"
                    );
                }
            }
        }
        assert_eq!(
            post("/api/dead-events/7"),
            Route::MethodNotAllowed("GET, HEAD")
        );
    }

    #[test]
    fn an_event_id_is_an_integer_of_the_columns_type() {
        let show = |id: &str| find("GET", &format!("/api/dead-events/{id}"));
        for (text, id) in [
            ("007", 7),
            ("9223372036854775807", i64::MAX),
            ("0", 0),
            ("-5", -5),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(show(text), Route::DeadEvents(DeadRoute::Show(id)), "{text}");
        }
        for id in [
            "-",
            "--1",
            "- 1",
            "-9223372036854775809",
            "+1",
            "1.0",
            "1e3",
            "abc",
            "%31",
            "9223372036854775808",
        ] {
            assert_eq!(show(id), Route::BadPath(NO_EVENT_ID), "{id}");
        }
    }
}
