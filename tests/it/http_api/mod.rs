//! Every endpoint: exact status and body.

/// Who gets in, and who does not.
mod access;
/// What is refused with 400, and how it is named.
mod bad_input;
/// Calls of the API: few at a time, each with an end, and nothing else waits for them.
mod bounds;
/// Requeue and discard: one, by ids, by description; what a stale worker cannot undo.
mod change;
/// Dead events as they are listed, counted and shown.
mod look;

use crate::support::{Daemon, Recorder, RunningDaemon, TestDb, wait_until};

/// `n` dead events with fixed times, event i written at i minutes past three.
fn with_dead(n: u32) -> TestDb {
    let db = TestDb::with_events(n);
    db.execute(
        "UPDATE outbox_event SET status = 'dead', attempts = 5, last_error = 'receiver said 503',
             created_at = timestamptz '2025-01-02 03:00:05.123456Z' + id * interval '1 minute',
             next_run_at = '2025-01-02 03:30:00Z', last_error_at = '2025-01-02 04:00:00Z', finished_at = '2025-01-02 04:00:00Z'",
    );
    db
}

/// How event `id` of [`with_dead`] is shown; `id` below 10.
fn shown(id: u32) -> String {
    format!(
        r#"{{"id":{id},"aggregate_type":"order","aggregate_id":"{id}","event_type":"order.created","payload":{{"n": {id}}},"status":"dead","attempts":5,"next_run_at":"2025-01-02T03:30:00.000000+00:00","created_at":"2025-01-02T03:0{id}:05.123456+00:00","last_error":"receiver said 503","last_error_at":"2025-01-02T04:00:00.000000+00:00","finished_at":"2025-01-02T04:00:00.000000+00:00","headers":null}}"#
    )
}

/// A daemon whose handlers never end: what is requeued stays pending.
struct Holding {
    daemon: RunningDaemon,
    /// Its programs wait in here.
    _recorder: Recorder,
}

impl Holding {
    fn on(db: &TestDb) -> Holding {
        let recorder = Recorder::new().gated();
        let daemon = Daemon::new(db)
            .route(recorder.route("*"))
            .args(["--drain-timeout", "0"])
            .start();
        daemon.wait_ready();
        Holding {
            daemon,
            _recorder: recorder,
        }
    }

    #[track_caller]
    fn check(&self, method: &str, path: &str, body: &str, status: u16, answer: &str) {
        let got = self.daemon.request(method, path, "", body);
        assert_eq!(got, (status, answer.to_owned()), "{method} {path} {body}");
    }

    /// The ids of a list, in its order.
    #[track_caller]
    fn listed(&self, query: &str) -> Vec<i64> {
        let (status, body) = self.daemon.get(&format!("/api/dead-events?{query}"));
        assert_eq!(status, 200, "{body}");
        let list: serde_json::Value = serde_json::from_str(&body).unwrap();
        let events = list["events"].as_array().unwrap();
        assert_eq!(list["count"], events.len());
        events
            .iter()
            .map(|event| event["id"].as_i64().unwrap())
            .collect()
    }
}

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
