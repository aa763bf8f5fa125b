//! The command `explain`: each answer it can give.

use dispatchbox::domain::event::Outcome;
use serde_json::Value;

use crate::support::session::{claim, session, settle_and_end};
use crate::support::{Cli, Daemon, TestDb, TestDir};

/// Explains an event with these further arguments: the JSON object and the exit code.
fn explain(db: &TestDb, id: i64, args: &[&str]) -> (Value, i32) {
    let said = Cli::new(["explain", &id.to_string(), "--json", "--dsn", &db.dsn()])
        .args(args.iter().copied())
        .run();
    assert_eq!(said.stderr, "", "{}", said.stdout);
    (serde_json::from_str(&said.stdout).unwrap(), said.status)
}

#[track_caller]
fn check(db: &TestDb, id: i64, args: &[&str], code: &str, words: &[&str]) {
    let (answer, status) = explain(db, id, args);
    assert_eq!(answer["code"], code, "{answer}");
    for word in words {
        let verdict = answer["verdict"].as_str().unwrap();
        assert!(verdict.contains(word), "`{word}` in: {verdict}");
    }
    assert_eq!(status, i32::from(code == "not_found"), "{answer}");
}

#[test]
fn an_event_that_is_not_there_may_be_in_the_archive() {
    let db = TestDb::with_events(1);
    db.execute("UPDATE outbox_event SET status = 'dead', attempts = 5, last_error = 'no'");
    session(&db).discard(&[1]).unwrap();

    check(
        &db,
        1,
        &[],
        "archived",
        &["in the archive since", "as dead after 5 attempts"],
    );
    check(
        &db,
        2,
        &[],
        "not_found",
        &["neither in outbox_event nor in the archive"],
    );
}

#[test]
fn a_finished_event_says_how_it_ended() {
    let db = TestDb::with_events(3);
    db.execute(
        "UPDATE outbox_event SET status = 'done', finished_at = '2025-01-02 03:04:05Z' WHERE id = 1;
         UPDATE outbox_event SET status = 'dead', attempts = 1, last_error = 'receiver said 410' WHERE id = 2;
         ALTER TABLE outbox_event DROP CONSTRAINT outbox_event_status_known;
         UPDATE outbox_event SET status = 'processing' WHERE id = 3",
    );

    check(
        &db,
        1,
        &[],
        "done",
        &["it was done at 2025-01-02 03:04:05Z"],
    );
    check(
        &db,
        2,
        &[],
        "dead",
        &[
            "it has been dead since ",
            "after 1 attempt: receiver said 410",
            "dead-events retry 2",
        ],
    );
    check(&db, 3, &[], "unknown_status", &["`processing`"]);
}

#[test]
fn an_event_that_is_not_due_says_until_when() {
    let db = TestDb::with_events(4);
    db.execute(
        "ALTER TABLE outbox_event ALTER next_run_at DROP NOT NULL;
         UPDATE outbox_event SET next_run_at = now() + interval '200 seconds' WHERE id = 1;
         UPDATE outbox_event SET next_run_at = now() + interval '2 days', status = 'retry', attempts = 2, last_error = 'said 503' WHERE id = 2;
         UPDATE outbox_event SET next_run_at = 'infinity' WHERE id = 3;
         UPDATE outbox_event SET next_run_at = NULL WHERE id = 4",
    );

    check(&db, 1, &[], "not_due", &["(in 3 min "]);
    check(
        &db,
        2,
        &[],
        "not_due",
        &["(in 1 d 23 h)", "for attempt 3", "said 503"],
    );
    check(&db, 3, &[], "never_due", &["infinity"]);
    check(&db, 4, &[], "never_due", &["null"]);
}

#[test]
fn a_type_that_no_route_takes_is_the_reason_whatever_else_holds() {
    let db = TestDb::with_events(2);
    db.execute(
        "UPDATE outbox_event SET event_type = 'nobody.takes';
         UPDATE outbox_event SET next_run_at = now() + interval '200 seconds', status = 'retry', attempts = 3, last_error = 'x' WHERE id = 1",
    );
    let log = ["--route", "order.*=log"];

    check(
        &db,
        1,
        &log,
        "no_route",
        &[
            "no route takes nobody.takes: it will fail again at ",
            "attempt 4) until a route is added",
        ],
    );
    // No worker is seen either.
    check(&db, 2, &log, "no_route", &["it has been due for "]);
    // A daemon that leaves such events to others does not fail them.
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    let text = "unrouted = 'leave'\n[[route]]\nevent_type = 'order.*'\nhandler = 'log'\n";
    std::fs::write(&path, text).unwrap();
    for id in [1, 2] {
        let args = ["--config", &path];
        check(
            &db,
            id,
            &args,
            "no_route",
            &["leaves it alone, until one has a route for it"],
        );
    }
    check(&db, 2, &[], "no_worker", &[]);
}

#[test]
fn a_long_error_is_cut_in_the_sentence_and_times_look_alike() {
    let db = TestDb::with_events(1);
    db.execute(
        "UPDATE outbox_event SET status = 'retry', attempts = 1, last_error = repeat('x', 4000), last_error_at = '2025-01-02 03:04:05.678Z',
             next_run_at = '2125-01-02 03:04:05.678Z'",
    );

    let said = Cli::new(["explain", "1", "--dsn", &db.dsn()]).run();

    let (sentence, fields) = said.stdout.split_once("\nevent type").unwrap();
    assert!(sentence.ends_with("xxx…"), "{sentence}");
    assert!(sentence.len() < 350, "{sentence}");
    assert!(
        sentence.contains("until 2125-01-02 03:04:05Z"),
        "{sentence}"
    );
    assert!(fields.contains(&"x".repeat(4000)), "{fields}");
    for line in [
        "due at         2125-01-02 03:04:05Z\n",
        "failed last    2025-01-02 03:04:05Z\n",
    ] {
        assert!(fields.contains(line), "{fields}");
    }
}

#[test]
fn a_claimed_event_names_its_worker_and_the_end_of_the_lease() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    claim(&mut session, "db1/worker-00/x", 1);

    check(
        &db,
        1,
        &[],
        "leased",
        &["worker db1/worker-00/x", "(for 59 s unless it renews)"],
    );

    db.execute("UPDATE outbox_lease SET expires_at = now() - interval '1 hour'");
    check(
        &db,
        1,
        &[],
        "lease_expired",
        &["is over since", "not swept yet"],
    );
}

#[test]
fn a_due_event_that_nobody_claims_says_what_is_missing() {
    let db = TestDb::with_events(4);
    let log = ["--route", "order.*=log"];
    check(
        &db,
        4,
        &log,
        "no_worker",
        &["it has been due for ", "none holds a lease"],
    );

    let mut session = session(&db);
    let token = claim(&mut session, "w", 2).token;
    check(&db, 4, &log, "due", &["waits for its turn"]);
    check(&db, 4, &[], "due", &[]);
    check(
        &db,
        4,
        &["--route", "mail.*=log"],
        "no_route",
        &[
            "no route takes event_type `order.created`",
            "No handler for event_type=order.created",
        ],
    );

    // Two are claimed by the only worker that is seen, and its route takes no more.
    let directory = crate::support::TestDir::new();
    let full = |most: u32| {
        let path = directory.file(&format!("{most}.toml"));
        let text = format!(
            "[[route]]\nevent_type = 'order.*'\nhandler = 'log'\nmax_parallel = {most}\n[route.retry]\nmax_attempts = 8\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    check(
        &db,
        4,
        &["--config", &full(2)],
        "route_full",
        &["`order.*` seems to be full: 2 of"],
    );
    check(&db, 4, &["--config", &full(3)], "due", &[]);
    let (answer, _) = explain(&db, 4, &["--config", &full(3)]);
    assert_eq!(answer["route"]["max_attempts"], 8);
    assert_eq!(answer["workers"]["leasing"], 1);

    // What is done stays named by the lease, and is no longer in flight.
    settle_and_end(&mut session, "w", token, &[1], &Outcome::Done, &[]);
    check(&db, 4, &["--config", &full(2)], "due", &[]);
}

#[test]
fn an_idle_worker_is_known_by_its_connections() {
    let db = TestDb::with_events(1);
    db.execute("UPDATE outbox_event SET next_run_at = 'infinity'");
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    crate::support::wait_until("the worker is connected", || {
        explain(&db, 1, &[]).0["workers"]["connected"] == 1
    });
    let (answer, _) = explain(&db, 999, &[]);
    assert_eq!(answer["code"], "not_found");
    assert_eq!(answer["workers"]["connected"], 1);
}

#[test]
fn a_person_is_told_the_same_and_no_control_character_reaches_the_terminal() {
    let db = TestDb::with_events(1);
    db.execute(
        "UPDATE outbox_event SET status = 'dead', attempts = 2, event_type = E'order\\u001b[31m', last_error = E'a\\u009b2Jb\\nc\\u202e'",
    );

    let (shown, status) =
        Cli::new(["explain", "1", "--dsn", &db.dsn(), "--route", "*=log"]).on_terminal(80);

    assert_eq!(status, 0, "{shown}");
    assert!(
        !shown.contains(['\u{1b}', '\u{9b}', '\u{202e}']),
        "{shown:?}"
    );
    assert!(shown.contains("a\\u{9b}2Jb\\nc\\u{202e}"), "{shown:?}");
    assert!(shown.contains("2 of 5"), "{shown}");
}

#[test]
fn a_bad_id_or_route_is_a_usage_error() {
    Cli::new(["explain", "seven", "--dsn=host=/nonexistent"])
        .stderr("error: the id must be a whole number, not `seven`\nhint: `dispatchbox help explain` lists its options\n")
        .status(2)
        .check();
    let said = Cli::new(["explain", "7", "--dsn=host=/nonexistent", "--route=*"]).run();
    assert_eq!(said.status, 2, "{}", said.stderr);
    assert!(
        said.stderr
            .ends_with("hint: `dispatchbox help explain` lists its options\n"),
        "{}",
        said.stderr
    );
    let said = Cli::new(["explain", "7", "--dsn=host=/nonexistent"]).run();
    assert_eq!(said.status, 69, "{}", said.stderr);
    let db = TestDb::new();
    db.execute("DROP TABLE outbox_event_archive");
    let said = Cli::new(["explain", "7", "--dsn", &db.dsn()]).run();
    assert_eq!(said.status, 78, "{}", said.stderr);
    assert!(
        said.stderr.contains("dispatchbox migrate"),
        "{}",
        said.stderr
    );
}

/// Goal: what keeps a handled event from being written is said, and the event is not touched for
/// it.
#[test]
fn an_event_whose_outcome_the_database_does_not_take_says_why() {
    let db = TestDb::with_events(4);
    db.execute(
        "CREATE FUNCTION hurdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             CASE new.id WHEN 1 THEN RAISE EXCEPTION 'not on sundays'; WHEN 2 THEN RETURN old; WHEN 3 THEN PERFORM pg_sleep(60);
             ELSE NULL; END CASE; RETURN new; END $$;
         CREATE TRIGGER hurdle BEFORE UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION hurdle()",
    );
    claim(&mut session(&db), "w", 4);

    check(
        &db,
        1,
        &[],
        "refused",
        &["worker w has claimed it", "not on sundays"],
    );
    check(&db, 2, &[], "refused", &["keeps the row as it was"]);
    check(&db, 3, &[], "refused", &["statement timeout"]);
    check(
        &db,
        4,
        &[],
        "leased",
        &["worker w has claimed it and holds it"],
    );
    assert_eq!((db.count("pending"), db.leases()), (4, 1));
}
