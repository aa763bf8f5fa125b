//! The schema: by psql and by `migrate`, on nothing, on the predecessor's table in use, and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::Session;
use dispatchbox::store::schema::{Flaws, MigrateReport, SCHEMA, migrate};

use crate::support::TestDb;
use crate::support::session::{RECORD_SETTINGS, claim, claim_all, ids, session, settle};

/// What the predecessor made, with rows in every status that its versions knew.
const PREDECESSOR: &str = "
CREATE TABLE outbox_event (id BIGSERIAL PRIMARY KEY, aggregate_type TEXT NOT NULL, aggregate_id TEXT NOT NULL, event_type TEXT NOT NULL,
    payload JSONB NOT NULL, status TEXT NOT NULL DEFAULT 'pending', attempts INT NOT NULL DEFAULT 0,
    next_run_at TIMESTAMPTZ NOT NULL DEFAULT now(), created_at TIMESTAMPTZ NOT NULL DEFAULT now(), claim_token TEXT);
CREATE INDEX idx_outbox_due ON outbox_event (next_run_at) WHERE status IN ('pending', 'retry');
CREATE TABLE outbox_event_archive (id BIGINT PRIMARY KEY, aggregate_type TEXT NOT NULL, aggregate_id TEXT NOT NULL,
    event_type TEXT NOT NULL, payload JSONB NOT NULL, status TEXT NOT NULL, attempts INT NOT NULL, next_run_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL, archived_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE INDEX idx_outbox_archive_date ON outbox_event_archive (archived_at);
CREATE FUNCTION archive_outbox_events(retention_days INT DEFAULT 7) RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts)
    SELECT 'order', i::text, 'order.created', '{}', (ARRAY['pending', 'processing', 'retry', 'done', 'dead'])[i % 5 + 1], 1
    FROM generate_series(1, 1000) i;
INSERT INTO outbox_event_archive SELECT id, aggregate_type, aggregate_id, event_type, payload, status, attempts, next_run_at, created_at
    FROM outbox_event WHERE id <= 3";

/// A database without the schema.
fn empty() -> TestDb {
    let db = TestDb::new();
    db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    db
}

fn predecessor() -> TestDb {
    let db = empty();
    db.execute(PREDECESSOR);
    db
}

fn run(session: &mut Session) -> MigrateReport {
    migrate(session, &mut |_| {}).unwrap()
}

/// Everything in the database that a schema consists of, one text a line.
fn shape(db: &TestDb) -> Vec<String> {
    let sql = "
        SELECT format('column %s.%s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull)
          FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
        UNION ALL SELECT format('index %s', pg_get_indexdef(indexrelid)) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
          WHERE relnamespace = 'public'::regnamespace AND indisvalid
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT format('%s %s', relname, reloptions) FROM pg_class WHERE relnamespace = 'public'::regnamespace
        ORDER BY 1";
    let rows = db.client().query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn psql_and_migrate_make_the_same_schema() {
    let (by_psql, by_us) = (empty(), empty());

    by_psql.execute(SCHEMA);
    let report = run(&mut session(&by_us));

    assert_eq!(shape(&by_psql), shape(&by_us));
    assert!(
        report
            .done
            .iter()
            .any(|what| what.starts_with("add table outbox_event, column outbox_event.id, "))
    );
    assert_eq!((report.advice, report.left), (vec![], Flaws::default()));
}

#[test]
fn either_way_again_changes_nothing() {
    let db = TestDb::new();
    let before = shape(&db);
    let mut session = session(&db);

    let reports = [(); 2].map(|()| run(&mut session));
    db.execute(SCHEMA);

    assert_eq!(
        reports,
        [MigrateReport::default(), MigrateReport::default()]
    );
    assert_eq!(shape(&db), before);
}

#[test]
fn what_is_missing_is_listed_in_words() {
    let db = predecessor();
    let mut session = session(&db);
    let before = session.missing_schema().unwrap();

    run(&mut session);

    let expected = [
        "column outbox_event.last_error",
        "column outbox_event.last_error_at",
        "column outbox_event.finished_at",
        "column outbox_event.headers",
        "index outbox_event_due",
        "index outbox_event_dead",
        "column outbox_event_archive.last_error",
        "column outbox_event_archive.last_error_at",
        "column outbox_event_archive.finished_at",
        "column outbox_event_archive.headers",
        "table outbox_lease",
        "column outbox_lease.token",
        "column outbox_lease.worker",
        "column outbox_lease.expires_at",
        "column outbox_lease.event_ids",
        "function outbox_leases_1",
        "function outbox_claim_2",
        "function outbox_skip_1",
        "function outbox_settle_1",
        "function outbox_settle_each_1",
        "function outbox_read_1",
        "function outbox_try_read_1",
        "function outbox_pass_over_1",
        "function outbox_look_again_1",
        "function outbox_requeue_2",
        "function outbox_requeue_1",
        "function outbox_move_1",
        "function outbox_warn_1",
        "function outbox_discard_2",
        "function outbox_discard_1",
        "function outbox_renew_1",
        "function outbox_truncated_1",
        "trigger outbox_event_truncated",
        "function outbox_archive_part_1",
        "function outbox_archive_1",
    ];
    assert_eq!(before, expected);
    assert_eq!(session.missing_schema().unwrap(), [""; 0]);
}

/// Goal: a table in use becomes ours while its producers go on. Method: two writers commit all the
/// time; nobody may wait longer than the migration's own lock timeout, and no row may be lost.
#[test]
fn a_predecessors_table_in_use_is_migrated_under_its_writers() {
    let db = predecessor();
    let is_migrated = AtomicBool::new(false);
    let writer = || {
        let mut client = db.client();
        let (mut n, mut longest) = (0, Duration::ZERO);
        while !is_migrated.load(Ordering::Relaxed) || n < 10 {
            let since = Instant::now();
            client
                .execute("INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', 'w', 'order.paid', '{}')", &[])
                .unwrap();
            longest = longest.max(since.elapsed());
            n += 1;
        }
        (n, longest)
    };

    let (report, writers) = std::thread::scope(|scope| {
        let writers = [scope.spawn(writer), scope.spawn(writer)];
        let report = run(&mut session(&db));
        is_migrated.store(true, Ordering::Relaxed);
        (report, writers.map(|writer| writer.join().unwrap()))
    });

    let written = writers[0].0 + writers[1].0;
    assert!(
        writers
            .iter()
            .all(|(_, longest)| *longest < Duration::from_secs(4)),
        "{writers:?}"
    );
    assert_eq!(
        db.number("SELECT count(*) FROM outbox_event", &[]),
        1000 + written
    );
    assert_eq!(
        db.number("SELECT count(*) FROM outbox_event_archive", &[]),
        3
    );
    assert!(
        report
            .done
            .contains(&"add index outbox_event_due".to_owned())
    );
    assert!(
        report
            .done
            .contains(&"replace function archive_outbox_events".to_owned())
    );
    assert_eq!(report.left, Flaws::default());
    assert_eq!(report.advice.len(), 1);
    assert!(
        report.advice[0].ends_with("DROP INDEX CONCURRENTLY public.idx_outbox_due"),
        "{}",
        report.advice[0]
    );
    assert_eq!(
        db.number(
            "SELECT count(*) FROM pg_class WHERE relname = 'idx_outbox_due'",
            &[]
        ),
        1
    );
    assert_eq!(run(&mut session(&db)).done, [""; 0]);
}

#[test]
fn a_migrated_table_serves_the_predecessor_and_us() {
    let db = predecessor();
    run(&mut session(&db));

    // Its workers go on as before, with a status that we do not know.
    db.execute(
        "UPDATE outbox_event SET status = 'processing', claim_token = 'x' WHERE status = 'pending' AND id <= 10;
         UPDATE outbox_event SET status = 'done', attempts = attempts + 1 WHERE status = 'processing' AND id <= 5",
    );
    let claimed = claim_all(&mut session(&db), "a");

    let due = "SELECT count(*) FROM outbox_event WHERE status IN ('pending', 'retry')";
    assert_eq!(i64::try_from(claimed.len()).unwrap(), db.number(due, &[]));
}

#[test]
fn psql_alone_migrates_a_predecessors_table() {
    let (by_psql, by_us) = (predecessor(), predecessor());

    by_psql.execute(SCHEMA);
    by_psql.execute(SCHEMA);
    run(&mut session(&by_us));

    assert_eq!(shape(&by_psql), shape(&by_us));
    assert_eq!(
        by_psql.number("SELECT count(*) FROM outbox_event", &[]),
        1000
    );
}

#[test]
fn a_table_that_is_held_is_waited_for_in_short_turns() {
    let db = predecessor();
    let mut client = db.client();
    let mut report_of_hours = client.transaction().unwrap();
    report_of_hours
        .execute("SELECT count(*) FROM outbox_event", &[])
        .unwrap();
    let pid: i32 = report_of_hours
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    let (waiting, is_waiting) = std::sync::mpsc::sync_channel(100);

    std::thread::scope(|scope| {
        let migration = scope.spawn(|| {
            migrate(&mut session(&db), &mut |what| {
                waiting.send(what.to_owned()).unwrap();
            })
            .unwrap()
        });
        let told = std::iter::from_fn(|| is_waiting.recv().ok())
            .find(|what| what.starts_with("another transaction holds the table"));
        // In the middle: for how long.
        let told = told.unwrap();
        let by = format!(" (server process {pid} for ");
        assert!(told.contains(&by), "{told}");
        assert!(told.ends_with(" s): waiting for its end"), "{told}");
        let since = Instant::now();
        db.insert_events("order.created", 1);
        let writer_waited = since.elapsed();
        report_of_hours.rollback().unwrap();

        assert_eq!(migration.join().unwrap().left, Flaws::default());
        assert!(writer_waited < Duration::from_secs(4));
    });
}

#[test]
fn an_index_that_an_interrupted_build_left_is_built_anew() {
    let db = TestDb::with_events(3);
    // Marked by hand, as a cancelled CREATE INDEX CONCURRENTLY leaves it.
    db.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_event_due'::regclass",
    );
    let mut session = session(&db);
    assert_eq!(
        session.missing_schema().unwrap(),
        ["index outbox_event_due"]
    );

    let report = run(&mut session);

    assert_eq!(report.done, ["add index outbox_event_due"]);
    assert_eq!(session.missing_schema().unwrap(), [""; 0]);
}

#[test]
fn two_migrations_at_once_come_one_after_the_other() {
    let db = predecessor();

    let reports = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| run(&mut session(&db))));
        both.map(|one| one.join().unwrap())
    });

    let done = reports
        .iter()
        .filter(|report| !report.done.is_empty())
        .count();
    assert_eq!(done, 1);
    assert_eq!(
        db.number(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[]
        ),
        0
    );
}

#[test]
fn a_table_that_lacks_a_column_of_its_producers_is_left_as_it_is() {
    let db = predecessor();
    db.execute("ALTER TABLE outbox_event DROP COLUMN attempts");
    let before = shape(&db);

    let report = run(&mut session(&db));

    let unfit = ["column outbox_event.attempts is missing, must be integer"];
    assert_eq!(report.left.unfit, unfit);
    assert_eq!(report.done, [""; 0]);
    assert_eq!(shape(&db), before);
}

#[test]
fn settings_that_a_person_chose_stay() {
    let db = predecessor();
    db.execute("ALTER TABLE outbox_event SET (fillfactor = 50)");

    run(&mut session(&db));

    let settings = "SELECT count(*) FROM pg_class WHERE oid = 'outbox_event'::regclass AND 'fillfactor=50' = ANY (reloptions) \
                    AND 'autovacuum_vacuum_scale_factor=0.02' = ANY (reloptions)";
    assert_eq!(db.number(settings, &[]), 1);
}

#[test]
fn a_session_goes_on_with_its_own_settings_after_it_has_migrated() {
    let db = predecessor();
    let mut session = session(&db);
    run(&mut session);
    db.execute(RECORD_SETTINGS);

    let claimed = claim(&mut session, "a", 1);
    settle(
        &mut session,
        "a",
        claimed.token,
        &ids(&claimed),
        &Outcome::Done,
    );

    let settings = "SELECT lock_timeout, statement_timeout, search_path FROM settings";
    let row = db.client().query_one(settings, &[]).unwrap();
    let settings: [String; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(settings, ["3s", "30s", "public, pg_temp"]);
    assert_eq!(session.missing_schema().unwrap(), [""; 0]);
}

#[test]
fn a_function_that_was_altered_or_moved_is_put_right() {
    let db = TestDb::with_events(1);
    db.execute(
        "CREATE OR REPLACE FUNCTION outbox_truncated_1() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         ALTER SCHEMA public RENAME TO moved; ALTER DATABASE current SET search_path = moved"
            .replace("current", db.name())
            .as_str(),
    );
    let mut session = session(&db);
    assert!(session.claim(&crate::support::session::query("a")).is_err());

    let report = run(&mut session);

    let replaced = report
        .done
        .iter()
        .filter(|what| what.starts_with("replace function "))
        .count();
    // Two are bound to no schema.
    let n_functions = SCHEMA.matches("-- step: function ").count() - 2;
    assert_eq!(
        (replaced, report.done.len()),
        (n_functions, n_functions),
        "{:?}",
        report.done
    );
    assert_eq!(claim_all(&mut session, "a"), [1]);
}

#[test]
fn the_migration_goes_to_the_schema_that_holds_the_table() {
    let db = predecessor();
    db.execute("CREATE SCHEMA first");
    db.execute(&format!(
        "ALTER DATABASE {} SET search_path = first, public",
        db.name()
    ));

    run(&mut session(&db));

    let elsewhere = "SELECT count(*) FROM pg_class WHERE relnamespace = 'first'::regnamespace";
    assert_eq!(db.number(elsewhere, &[]), 0);
    assert_eq!(session(&db).missing_schema().unwrap(), [""; 0]);
}

#[test]
fn without_any_schema_the_migration_says_so() {
    let db = TestDb::new();
    db.execute(&format!(
        "ALTER DATABASE {} SET search_path = nowhere",
        db.name()
    ));

    let error = migrate(&mut session(&db), &mut |_| {}).unwrap_err();

    assert!(error.is_schema());
    assert_eq!(
        error.to_string(),
        "could not choose the schema: no schema of the search_path exists"
    );
}

#[test]
fn a_new_table_refuses_a_status_that_would_never_be_delivered() {
    let db = TestDb::new();
    let insert = "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status) VALUES ('a', '1', 'a', '{}', 'Pending')";

    let error = db.client().batch_execute(insert).unwrap_err();

    assert_eq!(error.code().unwrap().code(), "23514");
}

/// Goal: a database in any encoding takes the schema.
#[test]
fn outside_of_comments_the_schema_is_ascii() {
    let odd: Vec<&str> = SCHEMA
        .lines()
        .filter(|line| !line.starts_with("--") && !line.is_ascii())
        .collect();

    assert_eq!(odd, [""; 0]);
}
