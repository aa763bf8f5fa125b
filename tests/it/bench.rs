//! The bench: both figures, exact counts, nothing left in a database that it was given.

use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::support::daemon::signal_pid;
use crate::support::{TestDb, wait_until};

/// Few events: these tests are about the bench, not about the figures.
const SMALL: [&str; 6] = ["--events", "3000", "--pairs", "1", "--batch-size", "100"];

#[test]
fn a_bench_on_a_throwaway_server_prints_its_figures_as_one_json_object() {
    let output = bench(&[&SMALL[..], &["--json"]].concat());

    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    let figures: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| {
        figures[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key}: {text}"))
    };
    for key in [
        "pipeline_events_per_second",
        "ceiling_events_per_second",
        "ratio",
        "wal_bytes_per_event",
    ] {
        assert!(number(key) > 0.0, "{key}: {text}");
    }
    assert!(number("own_cpu_seconds_per_10k") >= 0.0);
    assert!(number("ratio") < 3.0, "{text}");
    assert_eq!((number("lost"), number("duplicates")), (0.0, 0.0));
    assert_eq!(text.matches('\n').count(), 1);
}

#[test]
fn a_bench_in_a_given_database_leaves_it_as_it_was() {
    let db = TestDb::with_events(7);

    let output = bench(&[&SMALL[..], &["--dsn", &db.dsn(), "--processes", "1"]].concat());

    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("median"), "{text}");
    assert_eq!(db.count("pending"), 7);
    assert_eq!(bench_schemas(&db), 0);
}

/// Goal: the bench empties its tables before each run, and these are never anybody's own.
#[test]
fn a_bench_never_works_in_a_schema_that_is_not_its_own() {
    let db = TestDb::with_events(7);
    let dsn = format!("{} options=-csearch_path=public", db.dsn());

    let output = bench(&[&SMALL[..], &["--dsn", &dsn, "--processes", "1"]].concat());

    assert_eq!(db.count("pending"), 7);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("the bench would work in the schema `public` and not in one of its own"),
        "{said}"
    );
    assert_eq!(bench_schemas(&db), 0);
}

#[test]
fn an_interrupted_bench_leaves_a_given_database_as_it_was() {
    let db = TestDb::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args([
            "bench",
            "--pairs",
            "1000",
            "--events",
            "3000",
            "--dsn",
            &db.dsn(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the bench has made its schema", || bench_schemas(&db) == 1);

    signal_pid(child.id(), Signal::INT);

    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(bench_schemas(&db), 0);
}

/// Goal: the soak's own counting is right. Method: a few seconds of it, whose every count is known
/// or follows from another one: each committed event is counted by the rows and by the handlers.
#[test]
fn a_short_soak_counts_every_event_and_every_run() {
    let output = bench(&["--soak", "--minutes", "0.1", "--rate", "400", "--json"]);

    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    let figures: serde_json::Value = serde_json::from_str(&text).unwrap();
    let count = |key: &str| {
        figures[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {text}"))
    };
    let (committed, dead) = (count("committed"), count("dead_letters"));
    assert_eq!((count("lost"), count("twice")), (0, 0), "{text}");
    assert!(committed > dead && dead > 0, "{text}");
    // The ids begin at 1 and have no gap. Every 20th event fails once, one of 400 twice, whatever
    // its type; but poison events fail three times more than the one run that each event has.
    let failures = (1..=committed)
        .map(|id| u64::from(id % 20 == 7) + 2 * u64::from(id % 400 == 11))
        .sum::<u64>();
    let least = committed + failures + 3 * dead - 2 * dead;
    assert!(
        (least..=committed + failures + 3 * dead).contains(&count("handler_runs")),
        "{text}"
    );
    for figure in [
        "committed, events/s",
        "delivered, events/s",
        "commit to done, p99, ms",
        "supervisor, memory, most, MB",
        "worker-01, descriptors, most",
        "outbox_event, most, MB",
    ] {
        let quarters = figures["quarters"][figure].as_array().unwrap();
        assert_eq!(quarters.len(), 4, "{figure}: {text}");
        assert!(
            quarters.iter().any(|one| one.as_f64().unwrap() > 0.0),
            "{figure}: {text}"
        );
    }
    assert_eq!(figures["verdicts"].as_object().unwrap().len(), 6, "{text}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches(" min: ").count(), 4, "{said}");
}

#[test]
fn a_soak_in_a_given_database_leaves_it_as_it_was() {
    let db = TestDb::with_events(7);
    let args = ["--soak", "--minutes", "0.05", "--rate", "100", "--dsn"];

    let output = bench(&[&args[..], &[&db.dsn()]].concat());

    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("Lost: 0. Handled more often than planned: 0."),
        "{text}"
    );
    assert_eq!(db.count("pending"), 7);
    assert_eq!(bench_schemas(&db), 0);
}

#[test]
fn a_bench_with_numbers_out_of_range_is_a_usage_error() {
    for (args, text) in [
        (["--processes", "0"], "--processes must be at least 1"),
        (["--batch-size", "901"], "--batch-size must be at most 900"),
        (["--events", "0"], "--events must be at least 1"),
        (["--pairs", "none"], "--pairs must be a whole number"),
        (["--rate", "5000"], "--rate is for --soak alone"),
        (["--minutes", "1"], "--minutes is for --soak alone"),
    ] {
        check_usage_error(&args, text);
    }
    for (args, text) in [
        (["--soak", "--rate", "0"], "--rate must be at least 1"),
        (
            ["--soak", "--minutes", "0"],
            "--minutes must be at least 0.05",
        ),
        (
            ["--soak", "--minutes", "an hour"],
            "--minutes must be a number",
        ),
        (
            ["--soak", "--pairs", "3"],
            "--pairs has no meaning with --soak",
        ),
        (
            ["--soak", "--events", "3"],
            "--events has no meaning with --soak",
        ),
    ] {
        check_usage_error(&args, text);
    }
}

fn check_usage_error(args: &[&str], text: &str) {
    let output = bench(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with(&format!("error: {text}")), "{stderr}");
}

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .arg("bench")
        .args(args)
        .output()
        .unwrap()
}

fn bench_schemas(db: &TestDb) -> i64 {
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'dispatchbox_bench_%'";
    db.number(sql, &[])
}
