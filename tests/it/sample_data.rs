//! The sample events: that they load, and are what their headers say.

use std::process::{Command, Output};

use crate::support::{TestDb, TestDir};

/// The predecessor's table, which sample data must fit into as well.
const PREDECESSORS_TABLE: &str = "DROP TABLE IF EXISTS outbox_event CASCADE;
    CREATE TABLE outbox_event (id bigserial PRIMARY KEY, aggregate_type text NOT NULL, aggregate_id text NOT NULL,
        event_type text NOT NULL, payload jsonb NOT NULL, status text NOT NULL DEFAULT 'pending', attempts int NOT NULL DEFAULT 0,
        next_run_at timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now())";

#[test]
fn a_hundred_sample_events_cover_every_status_and_number_of_attempts() {
    let db = TestDb::new();
    db.execute(PREDECESSORS_TABLE);
    let sql = include_str!("../../sql/insert_outbox.sql");

    db.execute(sql);

    let number = |sql: &str| db.number(sql, &[]);
    assert_eq!(number("SELECT count(*) FROM outbox_event"), 100);
    assert_eq!(
        number("SELECT count(DISTINCT event_type) FROM outbox_event"),
        3
    );
    assert_eq!(number("SELECT count(DISTINCT status) FROM outbox_event"), 4);
    assert_eq!(
        number("SELECT count(DISTINCT attempts) FROM outbox_event"),
        6
    );
    let unlike = "SELECT count(*) FROM outbox_event WHERE next_run_at NOT BETWEEN now() - interval '10 min' AND now()
        OR created_at > next_run_at OR jsonb_typeof(payload) <> 'object'
        OR NOT CASE status WHEN 'pending' THEN attempts = 0 WHEN 'dead' THEN attempts = 5 ELSE attempts BETWEEN 1 AND 4 END";
    assert_eq!(number(unlike), 0);
}

#[test]
fn generated_events_load_and_are_as_many_as_were_asked_for() {
    let db = TestDb::new();
    db.execute(PREDECESSORS_TABLE);
    let args = [
        "--rows",
        "20001",
        "--event-types",
        "50",
        "--status",
        "mixed",
    ];

    let sql = stdout(&generate(&args));
    db.execute(&sql);

    let number = |sql: &str| db.number(sql, &[]);
    assert_eq!(number("SELECT count(*) FROM outbox_event"), 20_001);
    assert_eq!(
        number("SELECT count(DISTINCT event_type) FROM outbox_event"),
        50
    );
    assert_eq!(number("SELECT count(DISTINCT status) FROM outbox_event"), 4);
    assert_eq!(
        number("SELECT count(*) FROM outbox_event WHERE next_run_at > now()"),
        0
    );
    assert!(number("SELECT max(length(payload::text))::bigint FROM outbox_event") > 600);
    assert!(number("SELECT min(length(payload::text))::bigint FROM outbox_event") < 60);
}

#[test]
fn generated_events_are_due_and_of_the_predecessors_types_unless_told_otherwise() {
    let db = TestDb::new();
    db.execute(PREDECESSORS_TABLE);

    db.execute(&stdout(&generate(&["--rows=300"])));

    let others = "SELECT count(*) FROM outbox_event WHERE status <> 'pending' OR attempts <> 0
        OR event_type NOT IN ('order.created', 'invoice.generated', 'user.registered')";
    assert_eq!(db.number(others, &[]), 0);
    assert_eq!(
        db.number("SELECT count(DISTINCT event_type) FROM outbox_event", &[]),
        3
    );
}

#[test]
fn the_same_seed_generates_the_same_events() {
    let with_seed = |seed| stdout(&generate(&["--rows", "50", "--seed", seed]));

    assert_eq!(with_seed("7"), with_seed("7"));
    assert_ne!(with_seed("7"), with_seed("8"));
}

#[test]
fn generated_events_go_straight_into_a_database() {
    let db = TestDb::new();
    db.execute(PREDECESSORS_TABLE);

    let output = generate(&["--rows", "1000", "--dsn", &db.dsn()]);

    assert!(output.status.success(), "{output:?}");
    assert_eq!(db.number("SELECT count(*) FROM outbox_event", &[]), 1000);
    assert!(output.stdout.is_empty());
}

#[test]
fn a_database_that_refuses_makes_the_generator_fail() {
    let db = TestDb::new();
    db.execute("DROP TABLE IF EXISTS outbox_event CASCADE");

    let output = generate(&["--rows", "10", "--dsn", &db.dsn()]);

    assert!(!output.status.success());
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    for (args, text) in [
        (&["--rows", "-1"][..], "--rows must be a number"),
        (&["--rows"], "--rows needs a value"),
        (&["--event-types", "0"], "--event-types must be from 1 to"),
        (
            &["--event-types", "1000"],
            "--event-types must be from 1 to",
        ),
        (
            &["--status", "foo"],
            "--status must be pending or mixed, not `foo`",
        ),
        (&["--colour", "red"], "unknown option `--colour`"),
        (&["many"], "unexpected argument `many`"),
    ] {
        let output = generate(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("error: {text}")), "{stderr}");
    }
}

/// Runs the script from another directory, as people do.
fn generate(args: &[&str]) -> Output {
    let elsewhere = TestDir::new();
    Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts/generate_outbox"
    ))
    .args(args)
    .current_dir(elsewhere.path())
    .output()
    .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
