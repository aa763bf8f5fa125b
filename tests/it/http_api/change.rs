//! Requeue and discard: one, by ids, by description; what a stale worker cannot undo.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Holding, with_dead};
use crate::support::{Daemon, Recorder, TestDb, TestDir, signal_pid, wait_until};

const RETRY_BATCH: &str = "/api/dead-events/retry-batch";

/// Events that are as a requeue leaves them.
const REQUEUED: &str = "SELECT count(*) FROM outbox_event WHERE status = 'pending' AND attempts = 0 \
                        AND next_run_at BETWEEN now() - interval '1 minute' AND now()";

/// Events in the archive as they were.
const DISCARDED: &str = "SELECT count(*) FROM outbox_event_archive WHERE status = 'dead' AND attempts = 5 \
                         AND payload = jsonb_build_object('n', id) AND last_error = 'receiver said 503'";

#[test]
fn one_event_is_requeued() {
    let db = with_dead(2);
    let holding = Holding::on(&db);

    let answer = r#"{"status":"success","message":"Event 1 reset to pending","event_id":1}"#;
    holding.check("POST", "/api/dead-events/1/retry", "", 200, answer);
    assert_eq!((db.number(REQUEUED, &[]), db.count("dead")), (1, 1));
    let answer = r#"{"error":"Dead event 1 not found or already processed"}"#;
    holding.check("POST", "/api/dead-events/1/retry", "", 404, answer);
    let answer = r#"{"error":"Dead event 9 not found or already processed"}"#;
    holding.check("POST", "/api/dead-events/9/retry", "", 404, answer);
}

#[test]
fn one_event_is_discarded_into_the_archive() {
    let db = with_dead(2);
    let holding = Holding::on(&db);

    let answer = r#"{"status":"success","message":"Event 1 discarded","event_id":1}"#;
    holding.check("POST", "/api/dead-events/1/discard", "", 200, answer);
    assert_eq!((db.number(DISCARDED, &[]), db.count("dead")), (1, 1));
    let answer = r#"{"error":"Dead event 1 not found or already processed"}"#;
    holding.check("POST", "/api/dead-events/1/discard", "", 404, answer);
}

#[test]
fn those_of_a_list_that_are_dead_are_requeued() {
    let db = with_dead(3);
    let holding = Holding::on(&db);

    let answer = r#"{"status":"success","message":"2 event(s) reset to pending","requested":3,"processed":2}"#;
    holding.check(
        "POST",
        RETRY_BATCH,
        r#"{"event_ids": [1, 3, 77]}"#,
        200,
        answer,
    );
    assert_eq!((db.number(REQUEUED, &[]), db.count("dead")), (2, 1));
    let answer = r#"{"status":"success","message":"0 event(s) reset to pending","requested":1,"processed":0}"#;
    holding.check("POST", RETRY_BATCH, r#"{"event_ids": [1]}"#, 200, answer);
}

#[test]
fn those_of_a_list_that_are_dead_are_discarded() {
    let db = with_dead(3);
    let holding = Holding::on(&db);

    let answer =
        r#"{"status":"success","message":"2 event(s) discarded","requested":4,"processed":2}"#;
    let body = r#"{"event_ids": [1, 3, 3, 77]}"#;
    holding.check("POST", "/api/dead-events/discard-batch", body, 200, answer);
    assert_eq!((db.number(DISCARDED, &[]), db.count("dead")), (2, 1));
}

/// Goal: an event that something of the application keeps stops no other, and each answer says
/// which and why.
#[test]
fn events_that_cannot_be_discarded_are_named_in_the_answer() {
    let db = with_dead(3);
    db.execute("CREATE TABLE receipt (event_id bigint REFERENCES outbox_event (id)); INSERT INTO receipt VALUES (1)");
    let holding = Holding::on(&db);
    let why = "public.receipt refers to it (foreign key receipt_event_id_fkey)";

    let answer = format!(r#"{{"error":"Event 1 is not discarded: {why}"}}"#);
    holding.check("POST", "/api/dead-events/1/discard", "", 409, &answer);
    let left = format!(r#""left":[{{"event_id":1,"reason":"{why}"}}]"#);
    let answer = format!(
        r#"{{"status":"success","message":"1 event(s) discarded","requested":3,"processed":1,{left}}}"#
    );
    let body = r#"{"event_ids": [1, 2, 77]}"#;
    holding.check("POST", "/api/dead-events/discard-batch", body, 200, &answer);
    let answer = format!(
        r#"{{"status":"success","message":"1 event(s) discarded","dry_run":false,"processed":1,"complete":true,{left}}}"#
    );
    let body = r#"{"all": true}"#;
    holding.check("POST", "/api/dead-events/discard", body, 200, &answer);
    assert_eq!((db.number(DISCARDED, &[]), db.count("dead")), (2, 1));
}

/// Goal: an event that something of the application refuses stops no other, and each answer says
/// which and why.
#[test]
fn events_that_refuse_their_requeue_are_named_in_the_answer() {
    let db = with_dead(20);
    let refusals = db.refuse_requeues();
    let holding = Holding::on(&db);
    let left: Value = refusals
        .iter()
        .map(|(id, reason)| json!({ "event_id": id, "reason": reason }))
        .collect();

    let answer = format!(
        r#"{{"status":"success","message":"1 event(s) reset to pending","requested":8,"processed":1,"left":{left}}}"#
    );
    let body = r#"{"event_ids": [2, 3, 5, 7, 9, 11, 13, 77]}"#;
    holding.check("POST", RETRY_BATCH, body, 200, &answer);
    for (id, reason) in refusals {
        let error = format!("Event {id} is not reset to pending: {reason}");
        let answer = json!({ "error": error }).to_string();
        let path = format!("/api/dead-events/{id}/retry");
        holding.check("POST", &path, "", 409, &answer);
    }
    let answer = format!(
        r#"{{"status":"success","message":"13 event(s) reset to pending","dry_run":false,"processed":13,"complete":true,"left":{left}}}"#
    );
    let body = r#"{"all": true}"#;
    holding.check("POST", "/api/dead-events/retry", body, 200, &answer);
    assert_eq!((db.count("pending"), db.count("dead")), (14, 6));
}

#[test]
fn what_a_description_lets_pass_is_counted_and_then_requeued() {
    let db = with_dead(5);
    db.execute("UPDATE outbox_event SET event_type = 'other' WHERE id > 3; UPDATE outbox_event SET last_error = 'x' WHERE id = 3");
    let holding = Holding::on(&db);
    let path = "/api/dead-events/retry";

    let answer = r#"{"status":"success","message":"2 event(s) would be reset to pending","dry_run":true,"matched":2}"#;
    let body = r#"{"event_type": "order.created", "error": "said 5", "dry_run": true}"#;
    holding.check("POST", path, body, 200, answer);
    assert_eq!(db.count("dead"), 5);

    let answer = r#"{"status":"success","message":"2 event(s) reset to pending","dry_run":false,"processed":2,"complete":true}"#;
    let body = r#"{"event_type": "order.created", "error": "said 5"}"#;
    holding.check("POST", path, body, 200, answer);
    assert_eq!((db.number(REQUEUED, &[]), db.count("dead")), (2, 3));
}

#[test]
fn what_a_description_lets_pass_is_counted_and_then_discarded() {
    let db = with_dead(4);
    let holding = Holding::on(&db);
    let path = "/api/dead-events/discard";

    let body = r#"{"until": "2025-01-02T03:03:05.123456Z", "dry_run": true}"#;
    let answer = r#"{"status":"success","message":"2 event(s) would be discarded","dry_run":true,"matched":2}"#;
    holding.check("POST", path, body, 200, answer);
    let answer = r#"{"status":"success","message":"2 event(s) discarded","dry_run":false,"processed":2,"complete":true}"#;
    let body = r#"{"until": "2025-01-02T03:03:05.123456Z"}"#;
    holding.check("POST", path, body, 200, answer);
    assert_eq!((db.number(DISCARDED, &[]), db.count("dead")), (2, 2));
    let answer = r#"{"status":"success","message":"2 event(s) discarded","dry_run":false,"processed":2,"complete":true}"#;
    holding.check("POST", path, r#"{"all": true}"#, 200, answer);
    assert_eq!((db.number(DISCARDED, &[]), db.count("dead")), (4, 0));
}

/// Goal: events that fail again at once do not keep a change of very many from its end. Method: a
/// trigger makes each batch so slow that the time for one request is over after the third; what it
/// requeued is dead again when the next request comes.
#[test]
fn a_change_that_ran_out_of_time_goes_on_behind_what_it_has_done() {
    let db = TestDb::new();
    db.execute(
        "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status)
         SELECT 'order', i::text, 'order.created', '{}', 'dead' FROM generate_series(1, 40000) i;
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3.4); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER UPDATE ON outbox_event FOR EACH ROW WHEN (old.id % 10000 = 0) EXECUTE FUNCTION slow()",
    );
    let holding = Holding::on(&db);
    let daemon = &holding.daemon;
    let path = "/api/dead-events/retry";

    let (status, body) = daemon.post(path, r#"{"all": true}"#);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &answer["complete"]),
        (200, &false.into()),
        "{body}"
    );
    let first = answer["processed"].as_i64().unwrap();
    db.execute("DROP TRIGGER slow ON outbox_event; UPDATE outbox_event SET status = 'dead', last_error = 'again' WHERE status <> 'dead'");
    let request = json!({ "all": true, "after": answer["after"] }).to_string();
    let (status, body) = daemon.post(path, &request);

    let rest = 40_000 - first;
    let expected = format!(
        r#"{{"status":"success","message":"{rest} event(s) reset to pending","dry_run":false,"processed":{rest},"complete":true}}"#
    );
    assert_eq!((status, body), (200, expected));
    let left = "SELECT count(*) FROM outbox_event WHERE status = 'dead' AND last_error = 'again'";
    assert_eq!(db.number(left, &[]), first);
}

/// Goal: where a batch is too slow for the database, a smaller one gets through, and the answer
/// says how far it came. Method: a trigger makes each event so slow that no batch of usual size
/// fits into the time that a statement has.
#[test]
fn a_change_whose_batches_are_too_slow_goes_on_with_smaller_ones() {
    let db = TestDb::new();
    db.execute(
        "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status)
         SELECT 'order', i::text, 'order.created', '{}', 'dead' FROM generate_series(1, 2000) i;
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let holding = Holding::on(&db);
    let ids: Vec<String> = (1..=1000).map(|id| id.to_string()).collect();
    let ids = format!("{{\"event_ids\": [{}]}}", ids.join(","));

    let (status, body) = holding.daemon.post(RETRY_BATCH, &ids);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 503, "{body}");
    assert_eq!(answer["error"], "stopped after the time for one request");
    let by_ids = answer["processed"].as_i64().unwrap();
    assert!(by_ids > 0, "{body}");
    assert_eq!(db.count("dead"), 2000 - by_ids);

    let (status, body) = holding
        .daemon
        .post("/api/dead-events/retry", r#"{"all": true}"#);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &answer["complete"]),
        (200, &false.into()),
        "{body}"
    );
    let by_filter = answer["processed"].as_i64().unwrap();
    assert!(by_filter > 0, "{body}");
    assert_eq!(db.count("dead"), 2000 - by_ids - by_filter);
}

/// Goal: a request as large as any works. Method: where the machine is so busy that the time for
/// one request is over, it says how far it came, and is sent again.
#[test]
fn a_hundred_thousand_events_are_requeued_by_their_ids_and_discarded_by_description() {
    let db = TestDb::new();
    db.execute(
        "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status)
         SELECT 'order', i::text, 'order.created', '{}', 'dead' FROM generate_series(1, 100000) i",
    );
    let holding = Holding::on(&db);
    let ids: Vec<String> = (1..=100_000).map(|id| id.to_string()).collect();
    let all = [
        (
            RETRY_BATCH,
            format!("{{\"event_ids\": [{}]}}", ids.join(",")),
        ),
        ("/api/dead-events/discard", r#"{"all": true}"#.to_owned()),
    ];

    for (path, body) in all {
        // Those in front are claimed by now.
        db.execute("UPDATE outbox_event SET status = 'dead' WHERE id > 85000");
        let n_dead = db.count("dead");
        let mut processed = 0;
        loop {
            let (status, answer) = holding.daemon.post(path, &body);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            processed += answer["processed"].as_i64().unwrap();
            if status == 200 && answer["complete"] != false {
                break;
            }
            assert!(matches!(status, 200 | 503), "{answer}");
        }
        assert_eq!((processed, db.count("dead")), (n_dead, 0), "{path}");
    }
}

/// Goal: a worker that slept through its lease cannot undo what a person did with its events since.
/// Method: it is stopped in two handlers, its lease is ended, another daemon sweeps it and both
/// events become dead; one is requeued and runs again, the other is discarded; then it wakes up and
/// says that both are done.
#[test]
fn what_a_person_did_stays_when_a_stale_worker_wakes_up() {
    let db = TestDb::with_events(2);
    let directory = TestDir::new();
    let gate = directory.file("gate");
    std::fs::write(&gate, "").unwrap();
    let stale = Recorder::new().gated();
    // Attempt 2 fails for good; the first attempt after a requeue waits.
    let other = Recorder::new().then(&format!(
        r#"[ "$DISPATCHBOX_ATTEMPT" -gt 1 ] && exit 65; while [ -e {gate} ]; do sleep 0.01; done"#
    ));
    let lease = ["--lease-seconds", "4"];
    let sleeper = Daemon::new(&db).route(stale.route("*")).args(lease).start();
    let worker = sleeper.wait_workers(1)[0];
    stale.wait_runs(2);
    signal_pid(worker, Signal::STOP);
    db.expire_leases();
    let daemon = Daemon::new(&db)
        .route(other.route("*"))
        .args(lease)
        .args(["--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("another worker has buried them", || db.count("dead") == 2);

    assert_eq!(daemon.post("/api/dead-events/1/retry", "").0, 200);
    assert_eq!(daemon.post("/api/dead-events/2/discard", "").0, 200);
    other.wait_runs(3);
    stale.open_gate();
    signal_pid(worker, Signal::CONT);
    wait_until("what the stale worker says is counted as lost", || {
        sleeper.metric("dispatchbox_leases_lost_total", &[]) == Some(2.0)
    });

    let requeued =
        "SELECT count(*) FROM outbox_event WHERE id = 1 AND status = 'pending' AND attempts = 0";
    assert_eq!(db.number(requeued, &[]), 1);
    let discarded = "SELECT count(*) FROM outbox_event_archive WHERE id = 2 AND status = 'dead' AND attempts = 2";
    assert_eq!(db.number(discarded, &[]), 1);
    std::fs::remove_file(&gate).unwrap();
    wait_until("the requeued one is done", || db.count("done") == 1);
    let done = "SELECT attempts::bigint FROM outbox_event";
    assert_eq!(db.number(done, &[]), 1);
}
