//! Pure: method and path → what is asked for.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
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

/// Finds what `method` on `target` (path and query) asks for.
pub(super) fn find(method: &str, target: &str) -> Route {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let found = match path {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact_and_queries_do_not_matter() {
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
