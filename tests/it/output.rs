//! Standard output that takes nothing: a full disk is told, a reader that has gone away is not.

use std::fs::File;
use std::io;
use std::process::{Command, Output, Stdio};

use crate::support::{Cli, TestDb, TestDir};

const LOST: &str = "error: could not write to standard output: no space left on device";

const EVENT: [&str; 4] = [
    "publish",
    "--event-type=order.created",
    "--aggregate-type=order",
    "--aggregate-id=1",
];

fn run(args: &[&str], db: Option<&TestDb>, stdout: impl Into<Stdio>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(args)
        .args(db.map(|db| format!("--dsn={}", db.dsn())))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(stdout)
        .output()
        .unwrap()
}

/// Runs it with standard output on a full disk.
#[track_caller]
fn check_lost(args: &[&str], db: Option<&TestDb>, stderr: &str) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let said = run(args, db, full);
    let told = String::from_utf8(said.stderr).unwrap();
    assert_eq!(told, stderr, "{args:?}");
    assert_eq!(said.status.code(), Some(1), "{args:?}");
}

#[test]
fn no_command_succeeds_whose_output_is_lost() {
    let db = TestDb::with_events(3);
    db.execute("UPDATE outbox_event SET status = 'dead', last_error = 'no' WHERE id < 3");
    let lost = format!("{LOST}\n");
    for args in [
        &["help"][..],
        &["--version"],
        &["run", "--help"],
        &["migrate", "--print"],
        &["config", "check", "--dsn=host=x"],
        &["status", "--url=http://127.0.0.1:1"],
        &["status", "--url=http://127.0.0.1:1", "--watch"],
    ] {
        check_lost(args, None, &lost);
    }
    for args in [
        &["dead-events", "list"][..],
        &["dead-events", "list", "--json"],
        &["dead-events", "show", "1"],
        &["dead-events", "export"],
        &["dead-events", "discard", "--all", "--dry-run"],
        &["dead-events", "stats"],
        &["explain", "3"],
        &["migrate"],
        &["migrate", "--check"],
    ] {
        check_lost(args, Some(&db), &lost);
    }
}

#[test]
fn what_was_done_is_told_where_the_output_is_lost() {
    let db = TestDb::with_events(1);
    db.execute("UPDATE outbox_event SET status = 'dead', last_error = 'no'");

    check_lost(
        &EVENT,
        Some(&db),
        &format!("{LOST}; the event is written, its id is 2\n"),
    );
    assert_eq!(db.count("pending"), 1);
    check_lost(
        &["dead-events", "retry", "1"],
        Some(&db),
        &format!("{LOST}; requeued 1 event\n"),
    );
    assert_eq!(db.count("pending"), 2);
}

#[test]
fn a_migration_is_not_broken_off_for_its_output() {
    let db = TestDb::new();
    db.execute("DROP TABLE outbox_event_archive");

    check_lost(&["migrate"], Some(&db), &format!("{LOST}\n"));

    Cli::new(["migrate", "--check", "--dsn", &db.dsn()])
        .stdout("the schema is complete\n")
        .check();
}

#[test]
fn a_reader_that_has_gone_away_is_no_failure() {
    let db = TestDb::with_events(1);
    // A pipe without its other end.
    let gone = || io::pipe().unwrap().1;
    for args in [&["explain", "1"][..], &EVENT, &["dead-events", "stats"]] {
        let said = run(args, Some(&db), gone());
        assert_eq!(said.status.code(), Some(0), "{args:?}");
        assert!(!String::from_utf8_lossy(&said.stderr).contains("error"));
    }
    let said = run(&["help"], None, gone());
    assert_eq!(
        (said.status.code(), said.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn an_export_names_the_file_that_could_not_be_written() {
    let db = TestDb::with_events(1);
    let directory = TestDir::new();
    let path = directory.file("missing/x.json");
    let said = Cli::new([
        "dead-events",
        "export",
        "--output",
        &path,
        "--dsn",
        &db.dsn(),
    ])
    .run();
    assert_eq!(said.status, 1);
    assert_eq!(
        said.stderr,
        format!("error: could not write `{path}`: no such file or directory\n")
    );
}
