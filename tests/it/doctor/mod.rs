//! The command `doctor`: each finding is provoked on a real server, and what is well is called so.

mod server;

use serde_json::Value;

use crate::support::session::{claim, session};
use crate::support::{Cli, PgBouncer, TestDb};

/// A database that `doctor` looks at: its report.
struct Report {
    findings: Vec<Value>,
    status: i32,
}

impl Report {
    /// Has the doctor look, with these further arguments.
    fn of(dsn: &str, args: &[&str]) -> Report {
        let said = Cli::new(["doctor", "--json", "--dsn", dsn])
            .args(args.iter().copied())
            .run();
        assert_eq!(said.stderr, "", "{}", said.stdout);
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        Report {
            findings: report["findings"].as_array().unwrap().clone(),
            status: said.status,
        }
    }

    /// What a check has found, a line a finding: `error: message | remedy`.
    fn told(&self, check: &str) -> String {
        let of_check = self.findings.iter().filter(|it| it["check"] == check);
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let lines = of_check.map(|it| {
            let [level, message, remedy] = ["level", "message", "remedy"].map(|key| text(&it[key]));
            format!("{level}: {message} | {remedy}\n")
        });
        lines.collect::<Vec<_>>().concat()
    }

    #[track_caller]
    fn assert_tells(&self, check: &str, parts: &[&str]) {
        let told = self.told(check);
        for part in parts {
            assert!(told.contains(part), "`{part}` of `{check}` in: {told}");
        }
    }
}

/// A fault that needs no server of its own: the check that finds it, the statements that make it,
/// the arguments of the daemon, and parts of what is told.
struct Fault {
    check: &'static str,
    made_by: &'static str,
    args: &'static [&'static str],
    told: &'static [&'static str],
}

const FAULTS: &[Fault] = &[
    Fault {
        check: "schema",
        made_by: "drop function outbox_settle_1",
        args: &[],
        told: &["error: the schema lacks the function outbox_settle_1", "dispatchbox migrate"],
    },
    Fault {
        check: "schema",
        made_by: "alter table outbox_event alter id type int",
        args: &[],
        told: &["error: column outbox_event.id is integer, must be bigint"],
    },
    Fault {
        check: "schema",
        made_by: "create schema app; alter table outbox_event set schema app; alter table outbox_lease set schema app",
        args: &[],
        told: &["error: the table outbox_event stands in the schema app", "search_path"],
    },
    Fault {
        check: "schema",
        made_by: "create or replace function outbox_renew_1(worker text, tokens bigint[], lease interval) returns setof bigint language sql as 'select 1::bigint'",
        args: &[],
        told: &["warning: of another version: function outbox_renew_1", "dispatchbox migrate"],
    },
    Fault {
        check: "other schemas",
        made_by: "create schema old; create table old.outbox_event (like outbox_event)",
        args: &[],
        told: &["warning: there is an outbox in the schema old, too", "same search_path"],
    },
    Fault {
        check: "indexes",
        made_by: "update pg_index set indisvalid = false where indexrelid = 'outbox_event_due'::regclass",
        args: &[],
        told: &["error: the index outbox_event_due on outbox_event is not valid", "DROP INDEX CONCURRENTLY outbox_event_due"],
    },
    Fault {
        check: "rights",
        made_by: "select",
        args: &[],
        told: &["warning: the role postgres is a superuser", "sql/roles.sql"],
    },
    Fault {
        check: "server",
        made_by: "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$",
        args: &[],
        told: &["error: transactions only read", "set it to off"],
    },
    Fault {
        check: "connections",
        made_by: "do $$ begin execute format('alter database %I connection limit 11', current_database()); end $$",
        args: &["--processes", "2", "--pool-size", "4"],
        told: &["error: this daemon opens up to 19 connections", "allows 11", "CONNECTION LIMIT -1"],
    },
    Fault {
        check: "connections",
        made_by: "select",
        args: &["--processes", "40"],
        told: &["error: this daemon opens up to 207 connections", "max_connections"],
    },
    Fault {
        check: "autovacuum",
        made_by: "alter table outbox_lease set (autovacuum_enabled = false)",
        args: &[],
        told: &["error: autovacuum is off for outbox_lease", "ALTER TABLE outbox_lease RESET (autovacuum_enabled)"],
    },
    Fault {
        check: "autovacuum",
        made_by: "alter table outbox_event reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
                  update pg_class set reltuples = 10000000 where oid = 'outbox_event'::regclass",
        args: &[],
        told: &["warning: autovacuum begins on outbox_event at 2,000,050 dead rows", "autovacuum_vacuum_scale_factor = 0.02"],
    },
    Fault {
        check: "durability",
        made_by: "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$",
        args: &[],
        told: &["warning: synchronous_commit is off", "synchronous_commit = on"],
    },
    Fault {
        check: "event types",
        made_by: "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) values ('', '', 'mail.sent', '{}'), ('', '', 'order.paid', '{}')",
        args: &["--route", "order.*=log"],
        told: &["error: no route takes 1 of the first events that wait, of 1 type: mail.sent", "add a route"],
    },
    Fault {
        check: "event types",
        made_by: "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) values ('', '', 'mail.sent', '{}')",
        args: &["--route", "order.*=log", "--unrouted", "leave"],
        told: &["ok: no route takes 1 of the first events that wait", "left to other daemons"],
    },
    Fault {
        check: "due times and statuses",
        made_by: "alter table outbox_event alter next_run_at drop not null, drop constraint outbox_event_status_known;
                  insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, next_run_at) values
                  ('', '', 'a', '{}', 'pending', null), ('', '', 'a', '{}', 'retry', 'infinity'), ('', '', 'a', '{}', 'processing', now())",
        args: &[],
        told: &["error: 1 event(s) have no time at which they are due, such as 1", "warning: 1 event(s) are due at infinity, such as 2",
                "error: events such as 3 have the status 'processing'", "UPDATE outbox_event SET status = 'pending' WHERE id = 3"],
    },
    Fault {
        check: "unreadable events",
        made_by: "insert into outbox_lease (token, worker, expires_at, event_ids) values (1, 'unreadable/7', 'infinity', '{7}')",
        args: &[],
        told: &["error: 1 event(s) cannot be read: 7", "dispatchbox explain"],
    },
    Fault {
        check: "triggers",
        made_by: "create function audit() returns trigger language plpgsql as 'begin return null; end';
                  create trigger audit before update on outbox_event for each row execute function audit();
                  create rule keep as on delete to outbox_event do instead nothing",
        args: &[],
        told: &["warning: the trigger audit runs whenever a row is updated of outbox_event", "DROP TRIGGER audit ON outbox_event",
                "warning: the rule keep rewrites deletes of outbox_event"],
    },
    Fault {
        check: "foreign keys",
        made_by: "create table line (event_id bigint references outbox_event)",
        args: &[],
        told: &["warning: line refers to outbox_event (foreign key line_event_id_fkey)", "DROP CONSTRAINT line_event_id_fkey"],
    },
    Fault {
        check: "settings",
        made_by: "select",
        args: &["--route", "*=log", "--route", "order.*=log"],
        told: &["warning: route `order.*` is never asked"],
    },
];

#[test]
fn each_fault_is_told_with_what_mends_it() {
    for fault in FAULTS {
        let db = TestDb::new();
        db.execute(fault.made_by);

        let report = Report::of(&db.dsn(), fault.args);

        report.assert_tells(fault.check, fault.told);
        let is_error = fault.told.iter().any(|part| part.starts_with("error"));
        // The server of the suite has autovacuum and fsync off, which are errors, too.
        assert!(
            !is_error || report.status == 2,
            "{}",
            report.told(fault.check)
        );
    }
}

#[test]
fn leases_that_nothing_sweeps_are_told_with_their_worker() {
    let db = TestDb::with_events(3);
    claim(&mut session(&db), "gone/1", 3);
    db.execute("update outbox_lease set expires_at = now() - interval '10 seconds'");

    let early = Report::of(&db.dsn(), &["--lease-seconds", "600"]);
    let late = Report::of(&db.dsn(), &["--lease-seconds", "2"]);

    early.assert_tells("leases", &["ok: none is left behind"]);
    late.assert_tells(
        "leases",
        &[
            "warning: the worker gone/1 is gone, and has held 3 event(s)",
            "start a daemon",
        ],
    );
}

#[test]
fn the_mode_of_a_pooler_is_told() {
    let db = TestDb::with_events(1);
    for (mode, told) in [
        ("session", "in session mode"),
        ("transaction", "in transaction mode"),
    ] {
        let bouncer = PgBouncer::start(&db, mode, 3, "");

        let report = Report::of(&bouncer.dsn(&db), &["--route", "*=log"]);

        report.assert_tells("pooler", &["ok: ", told]);
        report.assert_tells("event types", &["ok: each that waits has a route"]);
        let unknown = report.findings.iter().filter(|it| it["level"] == "unknown");
        assert_eq!(unknown.count(), 0, "{:?}", report.findings);
    }
    Report::of(&db.dsn(), &[]).assert_tells("pooler", &["ok: no pooler"]);
}

#[test]
fn a_database_that_is_away_is_the_finding() {
    let report = Report::of("host=127.0.0.1 port=1 dbname=x user=y", &[]);

    report.assert_tells("connection", &["error: could not connect", "127.0.0.1"]);
    assert_eq!(report.status, 2);
}

/// Goal: a check that meets a limit says so, and the others go on.
#[test]
fn what_a_lock_hides_is_not_known() {
    let db = TestDb::with_events(1);
    let mut holder = db.client();
    holder
        .batch_execute("begin; lock table outbox_event in access exclusive mode")
        .unwrap();

    let report = Report::of(&db.dsn(), &["--route", "*=log"]);

    for check in ["event types", "due times and statuses"] {
        report.assert_tells(check, &["unknown: not known: could not", "lock"]);
    }
    report.assert_tells("durability", &["error: fsync is off"]);
}

#[test]
fn nothing_can_be_changed_by_a_check() {
    let db = TestDb::with_events(1);
    let mut session = session(&db);
    session.begin_checkup().unwrap();

    let result = session.findings(
        "update outbox_event set status = 'done' returning 'ok', '', '', '{}'",
        None,
    );

    let error = result.unwrap_err().to_string();
    assert!(error.contains("read-only transaction"), "{error}");
    assert_eq!(db.count("pending"), 1);
}

/// Goal: one look names all that is wrong. Run it with `--nocapture` to see the report.
#[test]
fn a_database_with_many_faults_has_each_of_them_named() {
    let db = TestDb::with_events(2);
    claim(&mut session(&db), "gone/1", 1);
    db.execute(
        "update outbox_lease set expires_at = now() - interval '1 day';
         insert into outbox_lease (token, worker, expires_at, event_ids) values (1000, 'unreadable/7', 'infinity', '{7}');
         alter table outbox_event alter next_run_at drop not null, drop constraint outbox_event_status_known;
         insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, next_run_at) values
           ('', '', 'mail.sent', '{}', 'pending', now()), ('', '', 'order.paid', '{}', 'pending', null),
           ('', '', 'order.paid', '{}', 'retry', 'infinity'), ('', '', 'order.paid', '{}', 'processing', now());
         alter table outbox_lease set (autovacuum_enabled = off);
         create schema old; create table old.outbox_event (like outbox_event);
         create table line (event_id bigint references outbox_event);
         create function audit() returns trigger language plpgsql as 'begin return null; end';
         create trigger \"audit\u{1b}[2J\" before update on outbox_event for each row execute function audit();
         drop function outbox_settle_1;
         create or replace function outbox_renew_1(worker text, tokens bigint[], lease interval) returns setof bigint language sql as 'select 1::bigint';
         update pg_index set indisvalid = false where indexrelid = 'outbox_event_due'::regclass",
    );
    let args = [
        "--route",
        "order.*=log",
        "--route",
        "order.paid=log",
        "--processes",
        "60",
    ];

    let report = Report::of(&db.dsn(), &args);
    let said = Cli::new(["doctor", "--dsn", &db.dsn()]).args(args).run();

    eprintln!("{}", said.stdout);
    for (check, level) in [
        ("settings", "warning"),
        ("schema", "error"),
        ("other schemas", "warning"),
        ("indexes", "error"),
        ("rights", "warning"),
        ("connections", "error"),
        ("durability", "error"),
        ("autovacuum", "error"),
        ("leases", "warning"),
        ("event types", "error"),
        ("due times and statuses", "error"),
        ("unreadable events", "error"),
        ("triggers", "warning"),
        ("foreign keys", "warning"),
    ] {
        report.assert_tells(check, &[&format!("{level}: ")]);
        let line = format!("{level:7}  {check}");
        let is_shown = said.stdout.lines().any(|it| it.starts_with(&line));
        assert!(is_shown, "`{line}` in: {}", said.stdout);
    }
    assert_eq!((report.status, said.status), (2, 2));
    // A name in the database moves no cursor.
    assert!(!said.stdout.contains('\u{1b}'), "{}", said.stdout);
    assert!(said.stdout.contains("\\x1b[2J"), "{}", said.stdout);
}

#[test]
fn a_bad_option_is_named_before_anything_is_asked() {
    let said = Cli::new(["doctor", "--dsn", "host=/nowhere", "--processes", "none"]).run();

    assert!(said.stderr.contains("--processes"), "{}", said.stderr);
    assert_eq!((said.stdout.as_str(), said.status), ("", 2));
}
