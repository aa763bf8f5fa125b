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

#[test]
fn a_bench_with_numbers_out_of_range_is_a_usage_error() {
    for (args, text) in [
        (["--processes", "0"], "--processes must be at least 1"),
        (["--batch-size", "901"], "--batch-size must be at most 900"),
        (["--events", "0"], "--events must be at least 1"),
        (["--pairs", "none"], "--pairs must be a whole number"),
    ] {
        let output = bench(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("error: {text}")), "{stderr}");
    }
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
