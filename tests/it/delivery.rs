//! The whole daemon delivers: every event once, through each kind of handler.

use std::process::Command;
use std::time::Duration;

use crate::support::{
    Daemon, History, Receiver, Recorder, TestDb, n_events, wait_until, wait_until_within,
};

/// Fills the table as a shop would, with 50 event types, and returns the ids.
fn generate(db: &TestDb, rows: u32) -> Vec<i64> {
    let status = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts/generate_outbox"
    ))
    .args([
        "--rows",
        &rows.to_string(),
        "--event-types",
        "50",
        "--dsn",
        &db.dsn(),
    ])
    .status()
    .unwrap();
    assert!(status.success());
    let ids = db
        .client()
        .query("select id from outbox_event order by id", &[])
        .unwrap();
    ids.iter().map(|row| row.get(0)).collect()
}

/// Two daemons of two workers each deliver everything through `route`, once.
fn check_a_fleet_delivers_once(rows: u32, route: &str, history: impl Fn() -> History) {
    let db = TestDb::new();
    let ids = generate(&db, rows);
    let start = || {
        Daemon::new(&db)
            .route(route)
            .args(["--processes", "2"])
            .start()
    };

    let mut daemons = [start(), start()];
    let limit = Duration::from_secs(60 + u64::from(rows) / 50);
    wait_until_within(limit, "all events are done", || {
        db.count("done") == i64::from(rows)
    });

    for daemon in &mut daemons {
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        daemon.assert_no_files();
        assert!(daemon.processes().is_empty());
    }
    history().assert_complete(ids, 0);
    assert_eq!(db.count_where("attempts <> 1"), 0);
    assert_eq!(db.leases(), 0);
    let seconds =
        "select extract(epoch from max(finished_at) - min(finished_at))::bigint from outbox_event";
    eprintln!("{rows} events in {} s", db.number(seconds, &[]));
}

#[test]
fn two_daemons_of_two_workers_run_a_program_for_every_event_exactly_once() {
    let recorder = Recorder::new();

    check_a_fleet_delivers_once(n_events(1000), &recorder.route("*"), || recorder.history());
}

#[test]
fn two_daemons_of_two_workers_post_every_event_exactly_once() {
    let receiver = Receiver::start();

    check_a_fleet_delivers_once(n_events(5000), &receiver.route("*"), || receiver.history());
}

#[test]
fn a_failing_handler_is_tried_again_until_it_succeeds() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 3);
    let recorder = Recorder::failing_first(2);

    let _daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("all events are done", || db.count("done") == 3);

    let history = recorder.history();
    for id in ids {
        assert_eq!(history.count(id), 3);
    }
    assert_eq!(db.count_where("attempts = 3"), 3);
}

#[test]
fn an_event_whose_attempts_run_out_is_dead_with_its_last_error() {
    let db = TestDb::new();
    db.insert_events("order.created", 1);
    let recorder = Recorder::new().then("echo the parcel is too heavy >&2; exit 3");

    let _daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--max-attempts", "2", "--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("the event is dead", || db.count("dead") == 1);

    let said = "select count(*) from outbox_event where attempts = 2 and last_error like '%the parcel is too heavy%' \
                and last_error_at is not null and finished_at is not null";
    assert_eq!(db.number(said, &[]), 1);
    assert_eq!(recorder.history().len(), 2);
}

#[test]
fn the_sample_rows_end_as_in_the_predecessor() {
    let db = TestDb::new();
    db.execute(include_str!("../../sql/insert_outbox.sql"));
    let n_orders =
        db.count_where("event_type = 'order.created' and status in ('pending', 'retry')");
    let others = "select count(*) from outbox_event where event_type <> 'order.created' and status in ('pending', 'retry') \
                  and next_run_at <= now()";
    assert!(n_orders > 0 && db.number(others, &[]) > 0);

    let daemon = Daemon::new(&db)
        .args([
            "--retry-backoff-seconds",
            "0.05",
            "--retry-max-seconds",
            "0.1",
        ])
        .start();
    wait_until("nothing is due any more", || {
        db.count_where("status in ('pending', 'retry')") == 0
    });

    let unexplained = "select count(*) from outbox_event where status = 'dead' and finished_at is not null \
                       and last_error is distinct from 'No handler for event_type=' || event_type";
    assert_eq!(db.number(unexplained, &[]), 0);
    let done = db.count_where(
        "event_type = 'order.created' and status = 'done' and finished_at is not null",
    );
    assert_eq!(done, n_orders);
    assert!(
        daemon.log().contains("no route is configured"),
        "{}",
        daemon.log()
    );
}

#[test]
fn the_payload_reaches_the_handler_as_postgresql_prints_it() {
    let db = TestDb::new();
    let deep = format!("{}1{}", "[".repeat(3000), "]".repeat(3000));
    let big = "x".repeat(10_000_000);
    let payloads = [
        r#"{"n": 1e400}"#.to_owned(),
        r#"{"n": 123456789012345678901234567890}"#.to_owned(),
        r#"["a", null, 1.50]"#.to_owned(),
        "\"text\"".to_owned(),
        deep,
        format!("{{\"big\": \"{big}\"}}"),
    ];
    let mut client = db.client();
    for payload in &payloads {
        client
            .execute(
                "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) values ('t', '1', 't.e', $1::text::jsonb)",
                &[payload],
            )
            .unwrap();
    }
    let receiver = Receiver::start();

    let _daemon = Daemon::new(&db).route(receiver.route("*")).start();
    wait_until("all are done", || db.count("done") == 6);

    let printed: Vec<(i64, String)> = client
        .query("select id, payload::text from outbox_event", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (id, payload) in printed {
        let request = receiver
            .requests()
            .into_iter()
            .find(|request| request.header("dispatchbox-event-id") == Some(&id.to_string()))
            .unwrap();
        let body = String::from_utf8(request.body).unwrap();
        assert!(
            body.contains(&format!("\"payload\":{payload},\"attempt\":1,")),
            "event {id}"
        );
    }
}

#[test]
fn a_full_route_holds_up_no_other() {
    let db = TestDb::new();
    db.insert_events("slow.one", 2000);
    let (slow, fast) = (Recorder::new().gated(), Recorder::new());

    let daemon = Daemon::new(&db)
        .args(["--config", &slow_and_fast(&slow, &fast)])
        .args(["--poll-interval", "0.05"])
        .start();
    slow.wait_runs(2);
    let ids = db.insert_events("fast.one", 50);
    wait_until("the fast events are done", || db.count("done") == 50);

    fast.history().assert_complete(ids, 0);
    assert_eq!(slow.history().len(), 2, "max_parallel was exceeded");
    wait_until("two are in flight", || {
        daemon.metric("dispatchbox_events_in_flight", &[]) == Some(2.0)
    });
    slow.open_gate();
}

/// Writes a configuration with a route that takes two at a time and one without a limit.
fn slow_and_fast(slow: &Recorder, fast: &Recorder) -> String {
    let path = format!("{}.toml", slow.program());
    let text = format!(
        "[[route]]\nevent_type = \"slow.*\"\nhandler = \"exec\"\ncommand = [\"{}\"]\nmax_parallel = 2\n\n\
         [[route]]\nevent_type = \"fast.*\"\nhandler = \"exec\"\ncommand = [\"{}\"]\n",
        slow.program(),
        fast.program()
    );
    std::fs::write(&path, text).unwrap();
    path
}
