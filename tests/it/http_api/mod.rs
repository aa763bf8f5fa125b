//! Every endpoint: exact status and body.

/// Who gets in, and who does not.
mod access;

use crate::support::{Daemon, TestDb, wait_until};

#[test]
fn each_path_answers_as_it_should() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    let not_found = r#"{"error":"Not Found","message":"The requested resource was not found"}"#;
    let not_allowed = r#"{"error":"Method Not Allowed","message":"The HTTP method is not allowed for this resource"}"#;

    let cases = [
        ("GET", "/health", 200, r#"{"status":"ok"}"#),
        ("HEAD", "/health", 200, ""),
        ("GET", "/ready", 200, r#"{"status":"ready"}"#),
        ("GET", "/nowhere", 404, not_found),
        ("POST", "/health", 405, not_allowed),
        ("DELETE", "/metrics", 405, not_allowed),
    ];

    for (method, path, status, body) in cases {
        assert_eq!(
            daemon.request(method, path, "", ""),
            (status, body.to_owned()),
            "{method} {path}"
        );
    }
}

#[test]
fn a_schema_that_vanished_is_told() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    db.execute("drop function outbox_settle_1");

    wait_until("it says so", || {
        daemon.get("/ready").1.contains("schema not usable")
    });
    assert_eq!(daemon.get("/ready").0, 503);
    assert_eq!(daemon.get("/health").0, 200);
}
