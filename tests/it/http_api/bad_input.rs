//! What is refused with 400, and how it is named. What a value may be is tested where it is read;
//! here, that each endpoint reads it.

use super::{Holding, with_dead};

const NOT_FOUND: &str = r#"{"error":"Not Found","message":"The requested resource was not found"}"#;

const NOT_ALLOWED: &str = r#"{"error":"Method Not Allowed","message":"The HTTP method is not allowed for this resource"}"#;

#[test]
fn a_bad_query_names_its_parameter() {
    let db = with_dead(1);
    let holding = Holding::on(&db);

    for (query, error) in [
        ("limit=0", "limit must be at least 1"),
        ("limit=-1", "limit must be at least 1"),
        ("limit=ten", "limit must be an integer"),
        ("limit=1&limit=2", "limit must be given only once"),
        ("offset=-1", "offset must be non-negative"),
        ("offset=x", "offset must be an integer"),
        (
            "offset=9223372036854775808",
            "offset must be at most 9223372036854775807",
        ),
        (
            "since=yesterday",
            "since must be a time such as 2025-01-02T03:04:05Z",
        ),
        (
            "event_type=a%00",
            "event_type must not contain a NUL character",
        ),
        ("aggregate_type=%FF", "aggregate_type must be valid UTF-8"),
    ] {
        let answer = format!(r#"{{"error":"{error}"}}"#);
        holding.check(
            "GET",
            &format!("/api/dead-events?{query}"),
            "",
            400,
            &answer,
        );
    }
    let nul = r#"{"error":"error must not contain a NUL character"}"#;
    holding.check("GET", "/api/dead-events/stats?error=%00", "", 400, nul);
}

#[test]
fn where_the_table_holds_no_other_ids_an_event_id_is_a_positive_integer() {
    let db = with_dead(1);
    let holding = Holding::on(&db);

    let answer = r#"{"error":"event_id must be a positive integer"}"#;
    for id in ["0", "-1", "abc", "1.0", "9223372036854775808"] {
        holding.check("GET", &format!("/api/dead-events/{id}"), "", 400, answer);
        holding.check(
            "POST",
            &format!("/api/dead-events/{id}/retry"),
            "",
            400,
            answer,
        );
        holding.check(
            "POST",
            &format!("/api/dead-events/{id}/discard"),
            "",
            400,
            answer,
        );
    }
    assert_eq!(db.count("dead"), 1);
}

/// Goal: after a sequence ran out and was set to the negative half, whatever the table holds can be
/// shown and changed.
#[test]
fn ids_below_one_that_the_table_holds_are_ids() {
    let db = with_dead(1);
    db.execute(
        "INSERT INTO outbox_event (id, aggregate_type, aggregate_id, event_type, payload, status)
         SELECT i, 'order', '1', 'order.created', '{}', 'dead'
           FROM unnest('{-9223372036854775808, -7, -6, -5, -4, 0}'::bigint[]) i",
    );
    let holding = Holding::on(&db);
    let path = |id: &str, rest: &str| format!("/api/dead-events/{id}{rest}");

    for id in ["-9223372036854775808", "-7", "0"] {
        let (status, body) = holding.daemon.get(&path(id, ""));
        assert_eq!(status, 200, "{body}");
        assert!(body.starts_with(&format!(r#"{{"id":{id},"#)), "{body}");
    }
    let answer = r#"{"status":"success","message":"Event -5 reset to pending","event_id":-5}"#;
    holding.check("POST", &path("-5", "/retry"), "", 200, answer);
    let answer = r#"{"error":"Dead event -5 not found or already processed"}"#;
    holding.check("POST", &path("-5", "/retry"), "", 404, answer);
    let answer = r#"{"status":"success","message":"Event -4 discarded","event_id":-4}"#;
    holding.check("POST", &path("-4", "/discard"), "", 200, answer);
    let answer = r#"{"error":"Dead event -99 not found"}"#;
    holding.check("GET", &path("-99", ""), "", 404, answer);
    let answer = r#"{"status":"success","message":"3 event(s) reset to pending","requested":4,"processed":3}"#;
    let body = r#"{"event_ids": [-6, 0, -99, 1]}"#;
    holding.check("POST", "/api/dead-events/retry-batch", body, 200, answer);
    assert_eq!(db.count("dead"), 2);
}

#[test]
fn a_bad_list_of_ids_changes_nothing() {
    let db = with_dead(1);
    let holding = Holding::on(&db);
    let deep = "[".repeat(10_000);

    for (body, error) in [
        ("", "Invalid JSON in request body"),
        ("{\"event_ids\": [1}", "Invalid JSON in request body"),
        (&deep, "Invalid JSON in request body"),
        ("[1]", "Request body must be a JSON object"),
        ("{}", "event_ids must be a non-empty list"),
        ("{\"event_ids\": []}", "event_ids must be a non-empty list"),
        ("{\"event_ids\": 1}", "event_ids must be a non-empty list"),
        (
            "{\"event_ids\": [1, \"2\"]}",
            "All event_ids must be positive integers",
        ),
        (
            "{\"event_ids\": [1, 0]}",
            "All event_ids must be positive integers",
        ),
        (
            "{\"event_ids\": [1.5]}",
            "All event_ids must be positive integers",
        ),
        (
            r#"{"event_ids": [1], "dryRun": true}"#,
            "dry_run is misspelled as dryRun, and works with a filter, not with event_ids",
        ),
        (
            r#"{"event_ids": [1], "evnt_ids": [2]}"#,
            "event_ids is misspelled as evnt_ids",
        ),
    ] {
        let answer = format!(r#"{{"error":"{error}"}}"#);
        for path in [
            "/api/dead-events/retry-batch",
            "/api/dead-events/discard-batch",
        ] {
            holding.check("POST", path, body, 400, &answer);
        }
    }
    assert_eq!(db.count("dead"), 1);
}

#[test]
fn a_dry_run_of_one_event_changes_nothing() {
    let db = with_dead(1);
    let holding = Holding::on(&db);

    let answer = r#"{"error":"dry_run works with a filter, not with one event"}"#;
    for path in ["/api/dead-events/1/retry", "/api/dead-events/1/discard"] {
        holding.check("POST", path, r#"{"dry_run": true}"#, 400, answer);
    }
    assert_eq!(db.count("dead"), 1);
}

#[test]
fn a_description_that_may_mean_everything_changes_nothing() {
    let db = with_dead(1);
    let holding = Holding::on(&db);

    for (body, error) in [
        ("", "Invalid JSON in request body"),
        ("[]", "Request body must be a JSON object"),
        (
            "{}",
            r#"a filter must be given (aggregate_type, event_type, error, since, until), or \"all\": true"#,
        ),
        (
            r#"{"eventtype": "x"}"#,
            "event_type is misspelled as eventtype",
        ),
        (
            r#"{"eror": "500", "dry_run": true}"#,
            "error is misspelled as eror",
        ),
        (r#"{"event_type": 7}"#, "event_type must be a string"),
        (
            r#"{"all": true, "event_type": "order.created"}"#,
            "all cannot be combined with a filter",
        ),
    ] {
        let answer = format!(r#"{{"error":"{error}"}}"#);
        for path in ["/api/dead-events/retry", "/api/dead-events/discard"] {
            holding.check("POST", path, body, 400, &answer);
        }
    }
    assert_eq!(db.count("dead"), 1);
}

#[test]
fn an_unknown_path_is_not_found_and_a_wrong_method_names_the_right_one() {
    let db = with_dead(1);
    let holding = Holding::on(&db);

    for path in [
        "/api",
        "/api/dead-events/",
        "/api/dead-events/1/forget",
        "/api/nowhere",
    ] {
        holding.check("GET", path, "", 404, NOT_FOUND);
        holding.check("POST", path, "", 404, NOT_FOUND);
        holding.check("PROPFIND", path, "", 404, NOT_FOUND);
    }
    for (method, path, allow) in [
        ("POST", "/api/dead-events", "GET, HEAD"),
        ("DELETE", "/api/dead-events/1", "GET, HEAD"),
        ("PUT", "/api/dead-events/stats", "GET, HEAD"),
        ("GET", "/api/dead-events/1/retry", "POST"),
        ("GET", "/api/dead-events/retry", "POST"),
        ("GET", "/api/dead-events/discard-batch", "POST"),
        ("FOO", "/api/dead-events", "GET, HEAD"),
        ("PROPFIND", "/api/dead-events/1", "GET, HEAD"),
        ("QUERY", "/api/dead-events/1/retry", "POST"),
        ("get", "/api/dead-events/stats", "GET, HEAD"),
        ("M-SEARCH", "/health", "GET, HEAD"),
        ("PATCH", "/metrics", "GET, HEAD"),
    ] {
        let host = "Host: localhost\r\n";
        let answer = holding.daemon.exchange("127.0.0.1", method, path, host, "");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (405, NOT_ALLOWED),
            "{path}"
        );
        assert_eq!(answer.header("Allow"), Some(allow), "{path}");
    }
    assert_eq!(db.count("dead"), 1);
}
