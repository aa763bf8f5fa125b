//! The commands `dead-events …`: what they print, change, ask and refuse.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cli, TestDb, TestDir, signal_pid, wait_until};

/// `n` dead events, event i written i minutes ago.
fn with_dead(n: u32) -> TestDb {
    let db = TestDb::with_events(n);
    db.execute(
        "UPDATE outbox_event SET status = 'dead', attempts = 5, last_error = 'receiver said 503', finished_at = now(),
             created_at = now() - id * interval '1 minute'",
    );
    db
}

fn cli(db: &TestDb, args: &[&str]) -> Cli {
    Cli::new(["dead-events"])
        .args(args.iter().copied())
        .args(["--dsn", &db.dsn()])
}

fn json(db: &TestDb, args: &[&str]) -> Value {
    let said = cli(db, args).args(["--json"]).run();
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}{}", said.stdout, said.stderr))
}

#[track_caller]
fn check_refused(args: &[&str], error: &str) {
    // Refused before anything is connected to: there is no such server.
    Cli::new(["dead-events"])
        .args(args.iter().copied())
        .args(["--dsn", "host=/nonexistent"])
        .stderr(format!(
            "error: {error}\nhint: `dispatchbox help dead-events {}` lists its options\n",
            args[0]
        ))
        .status(2)
        .check();
}

#[test]
fn the_list_is_a_table_or_the_object_of_the_api() {
    let db = with_dead(3);
    db.execute("UPDATE outbox_event SET created_at = '2025-01-02 03:04:05.678Z'; UPDATE outbox_event SET last_error = NULL WHERE id = 3");

    cli(&db, &["list"])
        .stdout(
            "id  written               event type     aggregate  attempts  last error\n\
             \u{20}3  2025-01-02 03:04:05Z  order.created  order/3           5  -\n\
             \u{20}2  2025-01-02 03:04:05Z  order.created  order/2           5  receiver said 503\n\
             \u{20}1  2025-01-02 03:04:05Z  order.created  order/1           5  receiver said 503\n",
        )
        .check();
    cli(&db, &["list", "--limit", "1", "--offset=1"])
        .stdout(
            "id  written               event type     aggregate  attempts  last error\n\
             \u{20}2  2025-01-02 03:04:05Z  order.created  order/2           5  receiver said 503\n",
        )
        .stderr("event 2 of 3; --offset 2 shows the next\n")
        .check();
    for (args, said) in [
        (
            &["--limit", "2"][..],
            "events 1 to 2 of 3; --offset 2 shows the next\n",
        ),
        (&["--limit", "3"], "events 1 to 3 of 3\n"),
        (&["--offset", "2"], ""),
        (
            &["--offset", "3"],
            "--offset 3 is behind the last of 3 dead events\n",
        ),
        (&["--offset", "1", "--error", "503"], ""),
        (
            &["--offset", "2", "--error", "503"],
            "--offset 2 is behind the last of 2 dead events, all that the filter lets pass\n",
        ),
    ] {
        let listed = cli(&db, &["list"]).args(args.iter().copied()).run();
        assert_eq!(
            (listed.status, listed.stderr.as_str()),
            (0, said),
            "{args:?}"
        );
    }
    let page = json(&db, &["list", "--limit", "2"]);
    assert_eq!(page["count"], 2);
    assert_eq!((&page["limit"], &page["offset"]), (&2.into(), &0.into()));
    assert_eq!(page["events"][0]["id"], 3);
    assert_eq!(
        page["events"][0]["created_at"],
        "2025-01-02T03:04:05.678000+00:00"
    );
    cli(&db, &["list", "--event-type", "nothing"])
        .stderr("no dead event matches the filter\n")
        .check();
}

#[test]
fn filters_choose_by_type_error_and_age() {
    let db = with_dead(90);
    db.execute(
        "UPDATE outbox_event SET last_error = '100% broken', event_type = 'mail.sent' WHERE id = 7",
    );
    let count = |args: &[&str]| json(&db, &[&["stats"], args].concat())["total"].clone();

    assert_eq!(count(&[]), 90);
    assert_eq!(count(&["--error", "0% b"]), 1);
    assert_eq!(
        count(&["--event-type", "mail.sent", "--aggregate-type", "order"]),
        1
    );
    assert_eq!(count(&["--since", "1h"]), 59);
    assert_eq!(count(&["--until", "1h"]), 31);
    assert_eq!(count(&["--since", "90m", "--until", "1h"]), 30);
    assert_eq!(count(&["--since", "2999-01-01T00:00:00Z"]), 0);
}

#[test]
fn stats_count_by_type() {
    let db = with_dead(3);
    db.execute("UPDATE outbox_event SET event_type = 'mail.sent' WHERE id = 1");

    cli(&db, &["stats"])
        .stdout("dead  event type\n   2  order.created\n   1  mail.sent\n")
        .stderr("3 dead in all\n")
        .check();
    let stats = json(&db, &["stats", "--event-type", "mail.sent"]);
    assert_eq!(stats["total"], 1);
    assert_eq!(stats["by_type"][0]["event_type"], "mail.sent");
    assert_eq!(stats["aggregate_type"], Value::Null);
}

#[test]
fn one_event_is_shown_with_its_payload() {
    let db = with_dead(1);
    db.execute("UPDATE outbox_event SET payload = '{\"n\": 1.10}', headers = '{\"a\": 1}'");

    let said = cli(&db, &["show", "1"]).run();
    for line in [
        "payload        {\"n\": 1.10}",
        "headers        {\"a\": 1}",
        "last error     receiver said 503",
    ] {
        assert!(
            said.stdout.contains(&format!("{line}\n")),
            "{}",
            said.stdout
        );
    }
    let said = cli(&db, &["show", "1", "--json"]).run();
    assert!(
        said.stdout.contains("\"payload\":{\"n\": 1.10},"),
        "{}",
        said.stdout
    );
    cli(&db, &["show", "2"])
        .stderr("error: dead event 2 not found; `dispatchbox explain 2` says what became of it\n")
        .status(1)
        .check();
}

/// Goal: no text of the database does anything to a terminal, in no command. Method: hostile texts
/// in each column, and a real terminal.
#[test]
fn no_control_character_reaches_a_terminal() {
    let db = with_dead(1);
    db.execute(
        "UPDATE outbox_event SET aggregate_type = E'a\\u001b]0;x\\u0007', aggregate_id = E'b\\u009b2J', event_type = E'c\\u001b[2J\\r',
             last_error = E'd\\u202e\\u001b[31m\\nnext\\u007f', payload = to_jsonb(E'e\\u009b\\u202e'::text), headers = to_jsonb(E'f\\u001b'::text)",
    );
    let calls: [&[&str]; 9] = [
        &["list"],
        &["list", "--json"],
        &["show", "1"],
        &["show", "1", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["export", "--format", "json"],
        &["export", "--format", "jsonl"],
        &["export", "--format", "csv"],
    ];
    for call in calls {
        for columns in [40, 200] {
            let (shown, status) = cli(&db, call).on_terminal(columns);
            assert_eq!(status, 0, "{call:?} {shown}");
            assert!(!shown.is_empty(), "{call:?}");
            let harmful = |c: char| c.is_control() && c != '\n' && c != '\r' || c == '\u{202e}';
            assert!(!shown.contains(harmful), "{call:?} {shown:?}");
            // The terminal itself makes each line end `\r\n`.
            assert!(
                !shown.replace("\r\n", "").contains('\r'),
                "{call:?} {shown:?}"
            );
        }
    }
}

#[test]
fn a_table_is_as_wide_as_the_terminal() {
    let db = with_dead(2);
    db.execute("UPDATE outbox_event SET last_error = repeat('long ', 100), event_type = repeat('order.', 20)");

    for columns in [60, 100] {
        let (shown, _) = cli(&db, &["list"]).on_terminal(columns);
        assert!(shown.contains('…'), "{shown}");
        for line in shown.lines() {
            assert!(
                line.trim_end().chars().count() <= columns.into(),
                "{columns}: {line}"
            );
        }
    }
}

#[test]
fn named_events_are_requeued_and_the_others_explained() {
    let db = with_dead(3);
    db.execute("UPDATE outbox_event SET status = 'done' WHERE id = 2");

    cli(&db, &["retry", "1", "2", "9", "1"])
        .stdout("requeued 1 event\n")
        .stderr(
            "event 2 was left alone: its status is `done`\n\
             event 9 was left alone: there is no such event\n",
        )
        .status(1)
        .check();
    assert_eq!((db.count("pending"), db.count("dead")), (1, 1));
    let answer = json(&db, &["retry", "3"]);
    assert_eq!(
        (&answer["requeued"], &answer["left_alone"]),
        (&1.into(), &0.into())
    );
    let answer = json(&db, &["retry", "2", "9"]);
    assert_eq!(answer["left_alone_ids"], serde_json::json!([2, 9]));
}

#[test]
fn a_span_that_ends_before_it_begins_is_refused() {
    let error = "--since is later than --until";
    check_refused(&["list", "--since", "2h", "--until", "3h"], error);
    let later = ["--since", "2025-01-02T03:04:06Z"];
    check_refused(
        &[&["stats"], &later[..], &["--until", "2025-01-02T03:04:05Z"]].concat(),
        error,
    );
    let db = with_dead(1);
    let said = cli(
        &db,
        &["list", "--since", "1h", "--until", "2025-01-02T03:04:05Z"],
    )
    .run();
    assert_eq!(said.status, 2, "{}", said.stderr);
    assert!(said.stderr.contains(error), "{}", said.stderr);
    cli(&db, &["list", "--since", "3h", "--until", "2h"])
        .stderr("no dead event matches the filter\n")
        .check();
}

#[test]
fn an_export_needs_a_file_and_not_a_directory() {
    let directory = TestDir::new();
    let path = directory.path().to_str().unwrap();
    check_refused(
        &["export", "--output", path],
        &format!("--output must be a file, and `{path}` is a directory"),
    );
}

#[test]
fn many_are_requeued_by_filter_or_by_a_file_of_ids() {
    let db = with_dead(30);
    db.execute("UPDATE outbox_event SET event_type = 'mail.sent' WHERE id <= 10");
    let directory = TestDir::new();
    let path = directory.file("ids");
    fs::write(&path, "# of yesterday\n11\n\n 12 \n11\n").unwrap();

    let by_type = ["retry-batch", "--event-type", "mail.sent"];
    cli(&db, &[&by_type[..], &["--dry-run"]].concat())
        .stdout("would retry 10 events\n")
        .check();
    assert_eq!(db.count("dead"), 30);
    cli(&db, &[&by_type[..], &["--yes"]].concat())
        .stdout("requeued 10 events\n")
        .check();
    cli(&db, &["retry-batch", "--ids-file", &path, "--yes"])
        .stdout("requeued 2 events\n")
        .check();
    cli(&db, &["retry-batch", "--ids-file", "-", "--yes"])
        .stdin("13\n14\n")
        .stdout("requeued 2 events\n")
        .check();
    let answer = json(&db, &["retry-batch", "--all", "--yes"]);
    assert_eq!(answer["requeued"], 16);
    assert_eq!(db.count("pending"), 30);
    cli(&db, &["retry-batch", "--all"])
        .stdout("requeued 0 events\n")
        .check();
}

#[test]
fn discarded_events_go_to_the_archive() {
    let db = with_dead(90);

    cli(&db, &["discard", "--older-than", "1h", "--dry-run"])
        .stdout("would discard 31 events\n")
        .check();
    cli(&db, &["discard", "--older-than", "1h", "--yes"])
        .stdout("discarded 31 events\n")
        .check();
    cli(&db, &["discard", "1", "2", "--yes"])
        .stdout("discarded 2 events\n")
        .check();
    assert_eq!(db.count("dead"), 57);
    assert_eq!(
        db.number("SELECT count(*) FROM outbox_event_archive", &[]),
        33
    );
}

/// Goal: an event that something of the application keeps stops no other, and a person reads which
/// and why.
#[test]
fn events_that_cannot_be_discarded_are_named_and_the_others_are_discarded() {
    let db = with_dead(90);
    db.execute("CREATE TABLE receipt (event_id bigint REFERENCES outbox_event (id)); INSERT INTO receipt VALUES (7)");
    let why =
        "event 7 was left alone: public.receipt refers to it (foreign key receipt_event_id_fkey)\n";

    cli(&db, &["discard", "--all", "--yes"])
        .stdout("discarded 89 events\n")
        .stderr(why)
        .status(1)
        .check();
    cli(&db, &["discard", "7", "--yes"])
        .stdout("discarded 0 events\n")
        .stderr(why)
        .status(1)
        .check();

    assert_eq!(db.count("dead"), 1);
}

/// Goal: an event that something of the application refuses stops no other, and a person reads
/// which and why.
#[test]
fn events_that_refuse_their_requeue_are_named_and_the_others_are_requeued() {
    let db = with_dead(1000);
    let refusals = db.refuse_requeues();
    let why = |(id, reason)| format!("event {id} was left alone: {reason}\n");

    cli(&db, &["retry-batch", "--all", "--yes"])
        .stdout("requeued 994 events\n")
        .stderr(refusals.map(why).concat())
        .status(1)
        .check();
    cli(&db, &["retry", "7"])
        .stdout("requeued 0 events\n")
        .stderr(why(refusals[2]))
        .status(1)
        .check();

    assert_eq!((db.count("pending"), db.count("dead")), (994, 6));
}

#[test]
fn a_person_is_asked_and_a_script_must_say_yes() {
    let db = with_dead(3);
    let all = ["discard", "--all"];

    cli(&db, &all)
        .stderr(format!(
            "error: to discard 3 events of the database {} needs --yes where no question can be asked\n\
             hint: `dispatchbox help dead-events discard` lists its options\n",
            db.name()
        ))
        .status(2)
        .check();
    for no in ["n\n", "\n", "yess\n"] {
        let (shown, status) = cli(&db, &all).on_terminal_typing(80, "[y/N]", no);
        assert!(
            shown.contains(&format!(
                "discard 3 events of the database {}? [y/N]",
                db.name()
            )),
            "{shown}"
        );
        assert!(shown.contains("nothing was changed"), "{shown}");
        assert_eq!(status, 1, "{shown}");
    }
    assert_eq!(db.count("dead"), 3);
    let (shown, status) = cli(&db, &all).on_terminal_typing(80, "[y/N]", "y\n");
    assert!(shown.contains("discarded 3 events"), "{shown}");
    assert_eq!((status, db.count("dead")), (0, 0));
}

#[test]
fn a_command_that_does_not_say_which_is_refused() {
    let which = "it is not said which dead events: give a filter, ids, or --all";
    check_refused(&["discard"], which);
    check_refused(&["discard", "--yes"], which);
    check_refused(&["retry-batch", "--yes"], which);
    check_refused(
        &["retry-batch", "--event-type="],
        "--event-type must not be empty",
    );
    check_refused(
        &["discard", "--all", "--error", "x"],
        "--all excludes the filters",
    );
    check_refused(
        &["discard", "7", "--all"],
        "ids exclude --all and the filters",
    );
    check_refused(
        &["discard", "--older-than", "1d", "--until", "2d"],
        "--older-than and --until exclude each other",
    );
    check_refused(
        &["discard", "--older-than", "30"],
        "--older-than must be a whole number with a unit: s, m, h, d or w, not `30`",
    );
    check_refused(
        &["list", "--since", "yesterday"],
        "--since must be a time such as `2025-01-02T03:04:05Z`, or an age such as `2h` or `30d`, not `yesterday`",
    );
    check_refused(
        &["list", "--limit", "1001"],
        "--limit must be at most 1000, not `1001`",
    );
    check_refused(
        &["list", "--offset", "-1"],
        "--offset must be at least 0, not `-1`",
    );
    check_refused(&["retry"], "at least one id is needed");
    check_refused(
        &["retry", "7", "x"],
        "an id must be a whole number, not `x`",
    );
    check_refused(
        &["show", "9223372036854775808"],
        "the id must be at most 9223372036854775807, not `9223372036854775808`",
    );
    check_refused(
        &["export", "--format", "xml"],
        "--format must be json, jsonl or csv, not `xml`",
    );
    check_refused(&["export", "--force"], "--force needs --output with a file");
    let directory = TestDir::new();
    let path = directory.file("ids");
    fs::write(&path, "1\nseven\n").unwrap();
    check_refused(
        &["retry-batch", "--ids-file", &path],
        &format!("--ids-file `{path}`, line 2: an id must be a whole number, not `seven`"),
    );
    check_refused(
        &["retry-batch", "--ids-file", &path, "--all"],
        "--ids-file excludes --all and the filters",
    );
}

#[test]
fn a_database_that_is_away_or_has_no_schema_has_its_own_exit_code() {
    let said = Cli::new(["dead-events", "list", "--dsn=host=/nonexistent"]).run();
    assert_eq!(said.status, 69, "{}", said.stderr);
    let db = TestDb::new();
    db.execute("DROP TABLE outbox_event CASCADE");
    let said = cli(&db, &["list"]).run();
    assert_eq!(said.status, 78, "{}", said.stderr);
}

#[test]
fn an_export_holds_every_event_as_postgresql_prints_it() {
    let db = with_dead(2500);
    db.execute("UPDATE outbox_event SET payload = '{\"d\": 123456789012345678901234567890.10}', last_error = E'a\\u001b\"b,\\n=1' WHERE id = 2000");
    let directory = TestDir::new();
    let export = |format: &str| {
        let path = directory.file(format);
        cli(&db, &["export", "--format", format, "--output", &path])
            .stderr("exported 2500 events\n")
            .check();
        fs::read_to_string(path).unwrap()
    };

    let lines = export("jsonl");
    let array = export("json");
    let csv = export("csv");

    let ids: Vec<i64> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["id"]
                .as_i64()
                .unwrap()
        })
        .collect();
    assert_eq!(ids, (1..=2500).collect::<Vec<i64>>());
    assert!(lines.contains("{\"d\": 123456789012345678901234567890.10}"));
    let array: Value = serde_json::from_str(&array).unwrap();
    assert_eq!(array.as_array().unwrap().len(), 2500);
    assert_eq!(array[1999]["last_error"], "a\u{1b}\"b,\n=1");
    assert!(csv.starts_with("id,aggregate_type,"), "{}", &csv[..50]);
    assert!(csv.contains("\"a\u{1b}\"\"b,\n=1\""));
    // One field holds a line end.
    assert_eq!(csv.lines().count(), 2502);
}

#[test]
fn a_payload_on_many_lines_is_one_line_of_an_export() {
    let db = with_dead(2);
    db.execute(
        "ALTER TABLE outbox_event ALTER payload TYPE json; UPDATE outbox_event SET payload = E'{\\n \"n\": 1.00\\n}' WHERE id = 1",
    );

    let exported = cli(&db, &["export"]).run().stdout;

    let lines: Vec<&str> = exported.lines().collect();
    assert_eq!(lines.len(), 2, "{exported}");
    assert!(
        lines[0].contains(r#""payload":{  "n": 1.00 },"#),
        "{exported}"
    );
}

#[test]
fn an_export_of_nothing_is_still_whole() {
    let db = TestDb::new();
    let said = |format: &str| cli(&db, &["export", "--format", format]).run().stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&said("json")).unwrap(),
        Value::Array(vec![])
    );
    assert_eq!(said("jsonl"), "");
    assert_eq!(said("csv").lines().count(), 1);
}

#[test]
fn an_export_replaces_no_file_unless_told_to() {
    let db = with_dead(1);
    let directory = TestDir::new();
    let path = directory.file("out");
    fs::write(&path, "precious").unwrap();
    let export = ["export", "--output", &path];

    cli(&db, &export)
        .stderr(format!(
            "error: `{path}` is there already: --force replaces it\n\
             hint: `dispatchbox help dead-events export` lists its options\n"
        ))
        .status(2)
        .check();
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    cli(&db, &[&export[..], &["--force"]].concat())
        .stderr("exported 1 event\n")
        .check();
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\"id\":1,"));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(directory.entries().len(), 1);
}

/// Goal: a file that appears while the export is under way is not lost either. Method: the export
/// waits for the table meanwhile.
#[test]
fn an_export_does_not_replace_what_was_made_meanwhile() {
    let db = with_dead(1);
    let directory = TestDir::new();
    let path = directory.file("out");
    let mut client = db.client();
    let mut held = client.transaction().unwrap();
    held.batch_execute("LOCK TABLE outbox_event IN ACCESS EXCLUSIVE MODE")
        .unwrap();

    let said = std::thread::scope(|scope| {
        let export = scope.spawn(|| cli(&db, &["export", "--output", &path]).run());
        wait_until("the export waits", || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox_event'::regclass";
            db.number(waiting, &[]) == 1
        });
        fs::write(&path, "precious").unwrap();
        held.commit().unwrap();
        export.join().unwrap()
    });

    assert_eq!(said.status, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is there already"), "{}", said.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(directory.entries().len(), 1);
}

#[test]
fn an_export_that_fails_leaves_nothing() {
    let db = with_dead(1);
    let directory = TestDir::new();
    // The first page can be read, and the second is refused by the server.
    db.execute(
        "UPDATE outbox_event SET payload = to_jsonb(repeat('x', 100)); ALTER TABLE outbox_event RENAME TO events;
         CREATE VIEW outbox_event AS SELECT id, aggregate_type, aggregate_id, event_type, payload, status, attempts + 1 / (id - 1)::int AS attempts,
             next_run_at, created_at, last_error, last_error_at, finished_at, headers FROM events",
    );

    let said = cli(&db, &["export", "--output", &directory.file("out")]).run();

    assert_eq!(said.status, 1, "{}", said.stderr);
    assert!(said.stderr.contains("division by zero"), "{}", said.stderr);
    assert_eq!(directory.entries().len(), 0);
    let said = cli(&db, &["export", "--output", "/nonexistent/out"]).run();
    assert_eq!(said.status, 1, "{}", said.stderr);
    assert!(
        said.stderr.contains("could not write `/nonexistent/out`"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_reader_that_has_seen_enough_ends_an_export_quietly() {
    let db = with_dead(5000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(["dead-events", "export", "--dsn", &db.dsn()])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();

    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();

    assert!(line.starts_with("{\"id\":1,"), "{line}");
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(["dead-events", "export", "--dsn", &db.dsn()])
        .env_clear()
        .stdout(full)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

/// Goal: an interrupt ends the work between two batches. Method: the second batch is held inside by
/// a trigger that asks again and again for a lock of the test's, which is given up after the signal
/// was sent; a lock that it waited for would be refused soon.
#[test]
fn an_interrupt_leaves_what_is_done_done_and_says_how_much() {
    let db = with_dead(30_000);
    db.execute(
        "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN WHILE NOT pg_try_advisory_xact_lock(7) LOOP PERFORM pg_sleep(0.1); END LOOP; RETURN NEW; END $$;
         CREATE TRIGGER wait_here BEFORE UPDATE ON outbox_event FOR EACH ROW WHEN (old.id = 15000) EXECUTE FUNCTION wait_here()",
    );
    let mut holder = db.client();
    holder.execute("SELECT pg_advisory_lock(7)", &[]).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args([
            "dead-events",
            "retry-batch",
            "--all",
            "--yes",
            "--dsn",
            &db.dsn(),
        ])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the second batch waits", || {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE wait_event = 'PgSleep' AND datname = current_database()";
        db.number(waiting, &[]) == 1
    });

    signal_pid(child.id(), Signal::INT);
    // The signal is in its process before the lock is free.
    wait_until("the signal has arrived", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        status
            .lines()
            .filter(|line| line.starts_with("ShdPnd:") || line.starts_with("SigPnd:"))
            .all(|line| line.ends_with("0000000000000000"))
    });
    holder.execute("SELECT pg_advisory_unlock(7)", &[]).unwrap();

    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(text(output.stdout), "requeued 20000 events\n");
    assert_eq!(
        text(output.stderr),
        "interrupted by SIGINT: the others are as they were\n"
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((db.count("pending"), db.count("dead")), (20_000, 10_000));
}

/// Goal: an error that concerns no single event ends the work. Method: a trigger raises one of such
/// a class.
#[test]
fn a_failure_in_the_middle_says_how_much_was_done() {
    let db = with_dead(20_000);
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now' USING ERRCODE = '25001'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON outbox_event FOR EACH ROW WHEN (old.id = 15000) EXECUTE FUNCTION refuse()",
    );

    let said = cli(&db, &["retry-batch", "--all", "--yes"]).run();

    assert_eq!(said.status, 1, "{}", said.stderr);
    assert!(
        said.stderr.starts_with("requeued 10000 events before that failed\nerror: could not requeue dead events: not now\n"),
        "{}",
        said.stderr
    );
    assert_eq!(db.count("pending"), 10_000);
}

#[test]
fn an_event_with_an_id_below_one_is_shown_retried_and_discarded_by_name() {
    let db = with_dead(1);
    db.execute(
        "INSERT INTO outbox_event (id, aggregate_type, aggregate_id, event_type, payload, status)
         SELECT i, 'order', '1', 'order.created', '{}', 'dead' FROM generate_series(-6, 0) i",
    );

    let shown = cli(&db, &["show", "-6"]).run();
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    assert!(shown.stdout.contains("-6"), "{}", shown.stdout);
    for args in [
        &["retry", "-6"][..],
        &["retry", "-4", "0"],
        &["discard", "-3", "--yes"],
    ] {
        let said = cli(&db, args).run();
        assert_eq!(said.status, 0, "{args:?} {}", said.stderr);
    }
    let dsn = db.dsn();
    let said = Cli::new(["dead-events", "retry", "--dsn", &dsn, "--", "-5"]).run();
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (0, "requeued 1 event\n")
    );
    assert_eq!((db.count("pending"), db.count("dead")), (4, 3));
}

#[test]
fn a_batch_that_is_too_slow_for_the_database_is_changed_in_smaller_ones() {
    let db = with_dead(300);
    db.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let args = ["retry-batch", "--all", "--yes", "--query-timeout", "1"];

    let said = cli(&db, &args).run();

    assert_eq!(
        (said.status, said.stdout.as_str()),
        (0, "requeued 300 events\n"),
        "{}",
        said.stderr
    );
    assert_eq!((db.count("pending"), db.count("dead")), (300, 0));
}
