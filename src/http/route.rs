//! Pure: method and path → what is asked for.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The page for a person.
    Page,
    /// Is the process alive?
    Health,
    /// Should it get traffic?
    Ready,
    /// Its metrics.
    Metrics,
    /// How it stands, in detail.
    Status,
    /// Nothing is there.
    NotFound,
    /// Something is there, for these methods.
    MethodNotAllowed(&'static str),
}

/// What stands before every path of the API.
const API: &str = "/api";

/// Says whether a request is one to the API, whether or not there is something: strangers are not even told what is there.
pub(super) fn is_api(target: &str) -> bool {
    let rest = path(target).strip_prefix(API);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Finds what `method` on `target` (path and query) asks for.
pub(super) fn find(method: &str, target: &str) -> Route {
    let found = match path(target) {
        "/" => Route::Page,
        "/health" => Route::Health,
        "/ready" => Route::Ready,
        "/metrics" => Route::Metrics,
        "/api/status" => Route::Status,
        _ => return Route::NotFound,
    };
    match method {
        "GET" | "HEAD" => found,
        _ => Route::MethodNotAllowed("GET, HEAD"),
    }
}

/// The path as it was sent: nothing is decoded or resolved, so what is no path of ours letter by letter is not found.
fn path(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_path_gets_around_the_api_being_guarded() {
        for target in ["/api", "/api/", "/api/status", "/api?x", "/api/nowhere#x"] {
            assert!(is_api(target), "{target}");
        }
        for target in ["/apis", "/health?/api/", "", "/"] {
            assert!(!is_api(target), "{target}");
        }
        for target in [
            "/API/status",
            "//api/status",
            "/./api/status",
            "/%61pi/status",
            "/x/../api/status",
            "http://h/api/status",
        ] {
            assert_eq!(find("GET", target), Route::NotFound, "{target}");
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
        assert_eq!(find("GET", "/health/"), Route::NotFound);
        assert_eq!(find("GET", ""), Route::NotFound);
        assert_eq!(find("POST", "/nowhere"), Route::NotFound);
        assert_eq!(
            find("POST", "/health"),
            Route::MethodNotAllowed("GET, HEAD")
        );
    }
}
