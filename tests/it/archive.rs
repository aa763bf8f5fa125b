//! The archive: what is moved there, and what stays.

use std::sync::{Arc, Mutex};

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::LeftAlone;
use dispatchbox::store::schema::{self, Flaws, migrate};

use crate::support::TestDb;
use crate::support::session::{claim, session, settle};

#[test]
fn only_what_has_long_been_done_is_archived() {
    let db = TestDb::with_events(8);
    db.execute(
        "UPDATE outbox_event SET created_at = now() - interval '30 days';
         UPDATE outbox_event SET status = 'done', finished_at = now() - interval '8 days', last_error = 'once' WHERE id IN (1, 2);
         UPDATE outbox_event SET status = 'done', finished_at = now() - interval '6 days' WHERE id = 3;
         UPDATE outbox_event SET status = 'dead', finished_at = now() - interval '8 days' WHERE id = 4;
         UPDATE outbox_event SET status = 'done', headers = '{}' WHERE id = 5;
         UPDATE outbox_event SET status = 'done' WHERE id = 6;
         INSERT INTO outbox_event_archive SELECT id, 'older', '1', 'older', '{}', 'done', 1, now(), now() FROM outbox_event WHERE id = 2",
    );
    // Event 7 is done and still named by its lease.
    let mut session = session(&db);
    let token = claim(&mut session, "a", 1).token;
    settle(&mut session, "a", token, &[7], &Outcome::Done);
    db.execute("UPDATE outbox_event SET finished_at = now() - interval '8 days' WHERE id = 7");

    db.execute("SET search_path = pg_catalog; SELECT public.archive_outbox_events()");

    let left = "SELECT array_agg(id ORDER BY id) FROM outbox_event";
    let moved = "SELECT array_agg(format('%s %s %s', id, aggregate_type, coalesce(last_error, headers::text)) ORDER BY id) FROM outbox_event_archive";
    let mut client = db.client();
    assert_eq!(
        client.query_one(left, &[]).unwrap().get::<_, Vec<i64>>(0),
        [2, 3, 4, 7, 8]
    );
    assert_eq!(
        client
            .query_one(moved, &[])
            .unwrap()
            .get::<_, Vec<String>>(0),
        ["1 order once", "2 older ", "5 order {}", "6 order "]
    );
    db.execute("DELETE FROM outbox_lease; SELECT archive_outbox_events(9)");
    assert_eq!(db.number("SELECT count(*) FROM outbox_event", &[]), 5);
    db.execute("SELECT archive_outbox_events(0)");
    assert_eq!(
        client.query_one(left, &[]).unwrap().get::<_, Vec<i64>>(0),
        [2, 4, 8]
    );
}

/// Runs statements and returns the warnings that they brought.
fn warnings(db: &TestDb, sql: &str) -> Vec<String> {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&warnings);
    let mut config: postgres::Config = db.dsn().parse().unwrap();
    config
        .notice_callback(move |notice| listener.lock().unwrap().push(notice.message().to_owned()));
    let mut client = config.connect(postgres::NoTls).unwrap();
    client.batch_execute(sql).unwrap();
    warnings.lock().unwrap().clone()
}

/// `n` events that were done yesterday.
fn with_done(n: u32) -> TestDb {
    let db = TestDb::with_events(n);
    db.execute("UPDATE outbox_event SET status = 'done', attempts = 1, finished_at = now() - interval '1 day'");
    db
}

fn left(db: &TestDb) -> Vec<i64> {
    ids_of(db, "SELECT id FROM outbox_event ORDER BY id")
}

fn ids_of(db: &TestDb, sql: &str) -> Vec<i64> {
    let rows = db.client().query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Goal: what an application refers to stays, and stops no other. Method: one key is checked at
/// once, one at the commit, one is of two columns, and one belongs to a table that the role that
/// archives may not read.
#[test]
fn events_that_foreign_keys_refer_to_stay_and_are_named() {
    let db = with_done(20);
    db.execute(
        "CREATE TABLE receipt (event_id bigint REFERENCES outbox_event (id)); INSERT INTO receipt VALUES (7), (7);
         CREATE TABLE late (event_id bigint REFERENCES outbox_event (id) DEFERRABLE INITIALLY DEFERRED); INSERT INTO late VALUES (9);
         ALTER TABLE outbox_event ADD UNIQUE (id, event_type);
         CREATE TABLE pair (event_id bigint, event_type text, CONSTRAINT of_two FOREIGN KEY (event_id, event_type)
            REFERENCES outbox_event (id, event_type)); INSERT INTO pair VALUES (11, 'order.created');
         CREATE TABLE heap (event_id bigint REFERENCES outbox_event (id) ON DELETE CASCADE); INSERT INTO heap VALUES (13);
         CREATE TABLE note (event_id bigint REFERENCES outbox_event (id) ON DELETE SET NULL); INSERT INTO note VALUES (14)",
    );

    let named = warnings(&db, "SELECT archive_outbox_events(0)");

    assert_eq!(left(&db), [7, 9, 11]);
    assert_eq!(db.number("SELECT count(*) FROM heap", &[]), 0);
    let advice = migrate(&mut session(&db), &mut |_| {}).unwrap().advice;
    assert_eq!(advice.len(), 2, "{advice:?}");
    for (advice, words) in advice.iter().zip([
        "heap loses the rows that refer to an event when that is archived or discarded",
        "note forgets to which event its rows refer when that is archived or discarded",
    ]) {
        assert!(advice.starts_with(words), "{advice}");
    }
    assert_eq!(
        named,
        [
            "event 9 stays in outbox_event: public.late refers to it (foreign key late_event_id_fkey)",
            "event 7 stays in outbox_event: public.receipt refers to it (foreign key receipt_event_id_fkey)",
            "event 11 stays in outbox_event: update or delete on table \"outbox_event\" violates foreign key constraint \"of_two\" on table \"pair\"",
        ]
    );
    assert_eq!(
        db.number("SELECT count(*) FROM outbox_event_archive", &[]),
        17
    );
    db.execute("DELETE FROM receipt; DELETE FROM late; DELETE FROM pair");
    assert_eq!(warnings(&db, "SELECT archive_outbox_events(0)"), [""; 0]);
    assert_eq!(left(&db), [0; 0]);
}

/// Goal: no trigger and no constraint on either side loses an event, and each stops only what it
/// concerns.
#[test]
fn what_triggers_and_constraints_keep_stays_alone() {
    let db = with_done(30);
    db.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF old.id = 3 THEN RAISE 'legal hold'; END IF;
           RETURN CASE WHEN old.id <> 5 THEN old END; END $$;
         CREATE TRIGGER hold BEFORE DELETE ON outbox_event FOR EACH ROW EXECUTE FUNCTION hold();
         CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN new.id <> 8 THEN new END; END $$;
         CREATE TRIGGER swallow BEFORE INSERT ON outbox_event_archive FOR EACH ROW EXECUTE FUNCTION swallow();
         ALTER TABLE outbox_event_archive ADD CONSTRAINT no_ten CHECK (id <> 10), ADD CONSTRAINT once UNIQUE (aggregate_id) DEFERRABLE INITIALLY DEFERRED;
         UPDATE outbox_event SET aggregate_id = '1' WHERE id = 2",
    );

    let named = warnings(&db, "SELECT archive_outbox_events(0)");

    assert_eq!(left(&db), [2, 3, 5, 8, 10]);
    for part in [
        "event 2 stays in outbox_event: duplicate key value violates unique constraint \"once\"",
        "event 3 stays in outbox_event: legal hold",
        "event 5 stays in outbox_event: a trigger or a policy of outbox_event keeps it",
        "event 8 stays in outbox_event: a trigger of outbox_event_archive swallows it",
        "event 10 stays in outbox_event: new row for relation \"outbox_event_archive\" violates check constraint \"no_ten\"",
    ] {
        assert!(named.iter().any(|one| one == part), "{part}: {named:#?}");
    }
    assert_eq!(named.len(), 5);
}

#[test]
fn a_payload_that_is_null_is_archived() {
    let db = with_done(3);
    db.execute("ALTER TABLE outbox_event ALTER payload DROP NOT NULL, ALTER aggregate_id DROP NOT NULL; UPDATE outbox_event SET payload = null, aggregate_id = null WHERE id = 2");

    db.execute("SELECT archive_outbox_events(0)");

    assert_eq!(left(&db), [0; 0]);
    let nulls = "SELECT id FROM outbox_event_archive WHERE payload = 'null' AND aggregate_id = ''";
    assert_eq!(ids_of(&db, nulls), [2]);
}

#[test]
fn a_retention_that_cannot_be_meant_is_refused() {
    let db = with_done(1);
    for days in ["-1", "null", "1000001"] {
        for call in ["SELECT archive_outbox_events", "CALL outbox_archive_1"] {
            let error = db.client().batch_execute(&format!("{call}({days})"));
            let error = error.unwrap_err().as_db_error().unwrap().clone();
            let expected = format!("retention_days must be from 0 to 1000000, not {days}");
            assert_eq!(error.message(), expected);
        }
    }
    db.execute("SELECT archive_outbox_events(1000000)");
    assert_eq!(left(&db), [1]);
}

/// Goal: nothing of an event is lost without a word. Method: the table gets a column after the
/// archive was made; events without a value in it are moved, those with a value only when the
/// archive has the column, too.
#[test]
fn a_value_that_the_archive_has_no_column_for_keeps_only_its_event() {
    let db = with_done(4);
    db.execute("ALTER TABLE outbox_event ADD COLUMN \"Tenant\" varchar(10), ADD COLUMN doubled bigint GENERATED ALWAYS AS (id * 2) STORED; UPDATE outbox_event SET \"Tenant\" = 'acme' WHERE id = 4");
    let refusal = "outbox_event_archive has no column for the values of Tenant in outbox_event: alter table outbox_event_archive add column \"Tenant\" character varying(10)";

    db.execute("SELECT archive_outbox_events(0)");

    assert_eq!(left(&db), [4]);
    let checked = schema::check(&mut session(&db)).unwrap();
    let advice = migrate(&mut session(&db), &mut |_| {}).unwrap().advice;
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert!(
        advice[0].ends_with(
            "ALTER TABLE public.outbox_event_archive ADD COLUMN \"Tenant\" character varying(10)"
        ),
        "{advice:?}"
    );
    assert_eq!(checked.advice, advice);
    let free = db.insert_events("order.created", 1);
    db.execute("UPDATE outbox_event SET status = 'dead'");
    let changed = session(&db).discard(&[4, free[0]]).unwrap();
    assert_eq!(changed.ids, free);
    assert_eq!(
        changed.left,
        [LeftAlone {
            id: 4,
            reason: refusal.to_owned()
        }]
    );

    db.execute("ALTER TABLE outbox_event_archive ADD COLUMN \"Tenant\" varchar(10)");
    assert_eq!(session(&db).discard(&[4]).unwrap().ids, [4]);
    let kept = "SELECT id FROM outbox_event_archive WHERE \"Tenant\" = 'acme'";
    assert_eq!(ids_of(&db, kept), [4]);

    db.execute("ALTER TABLE outbox_event_archive ADD COLUMN reviewer text NOT NULL DEFAULT ''; ALTER TABLE outbox_event_archive ALTER reviewer DROP DEFAULT");
    db.insert_events("order.created", 1);
    db.execute("UPDATE outbox_event SET status = 'done'");
    let error = db
        .client()
        .batch_execute("SELECT archive_outbox_events(0)")
        .unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().message(),
        "outbox_event_archive demands reviewer, which no event has: give it a default, or drop its not null"
    );
}

/// Goal: an archive that somebody has made like the table itself takes the events, whatever is
/// generated there.
#[test]
fn an_archive_with_generated_columns_takes_the_events() {
    let db = with_done(3);
    db.execute(
        "DROP TABLE outbox_event_archive;
         ALTER TABLE outbox_event ADD COLUMN kind text GENERATED ALWAYS AS (split_part(event_type, '.', 1)) STORED, ADD COLUMN tenant text NOT NULL DEFAULT 'acme';
         ALTER TABLE outbox_event ALTER id DROP DEFAULT;
         DROP SEQUENCE outbox_event_id_seq;
         ALTER TABLE outbox_event ALTER id ADD GENERATED ALWAYS AS IDENTITY (START 4);
         CREATE TABLE outbox_event_archive (LIKE outbox_event INCLUDING ALL)",
    );
    migrate(&mut session(&db), &mut |_| {}).unwrap();

    assert_eq!(warnings(&db, "SELECT archive_outbox_events(0)"), [""; 0]);

    let whole = "SELECT id FROM outbox_event_archive WHERE kind = 'order' AND tenant = 'acme' AND archived_at IS NOT NULL ORDER BY id";
    assert_eq!(ids_of(&db, whole), [1, 2, 3]);
}

/// Goal: a row lock of hours stops no other event. Method: the lock stands while the call ends.
#[test]
fn an_event_that_another_transaction_has_locked_waits_for_the_next_time() {
    let db = with_done(2000);
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.execute("SELECT FROM outbox_event WHERE id = 7 FOR KEY SHARE", &[])
        .unwrap();

    let named = warnings(&db, "SELECT archive_outbox_events(0)");

    assert_eq!(
        named,
        ["event 7 stays in outbox_event: another transaction has locked it"]
    );
    assert_eq!(left(&db), [7]);
    lock.commit().unwrap();
    db.execute("SELECT archive_outbox_events(0)");
    assert_eq!(left(&db), [0; 0]);
}

/// Goal: an interruption loses nothing of what was moved. Method: an event in the third part ends
/// the call; the parts before it are there.
#[test]
fn the_procedure_commits_each_part() {
    let db = with_done(25_000);
    db.execute(
        "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF old.id = 20007 THEN RAISE 'gone' USING errcode = 'admin_shutdown'; END IF; RETURN old; END $$;
         CREATE TRIGGER away BEFORE DELETE ON outbox_event FOR EACH ROW EXECUTE FUNCTION away()",
    );
    let archived = "SELECT count(*) FROM outbox_event_archive";
    let mut client = db.client();
    client
        .batch_execute("SET search_path = pg_catalog")
        .unwrap();

    let ended = client.batch_execute("CALL public.outbox_archive_1(0)");

    assert_eq!(ended.unwrap_err().code().unwrap().code(), "57P01");
    assert_eq!(db.number(archived, &[]), 20_000);
    db.execute("DROP TRIGGER away ON outbox_event");
    db.execute("CALL outbox_archive_1(0)");
    assert_eq!(db.number(archived, &[]), 25_000);
}

/// Goal: the cost grows with the number of events, and not with its square. Method: what the parts
/// read of both tables is counted.
#[test]
fn each_part_reads_its_own_events_alone() {
    let n_events = 60_000;
    let db = with_done(n_events);
    db.execute("ANALYZE");
    let mut client = db.client();
    let mut transaction = client.transaction().unwrap();

    transaction
        .execute("SELECT archive_outbox_events(0)", &[])
        .unwrap();

    let n_read: i64 = transaction
        .query_one(
            "SELECT sum(idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables WHERE relname LIKE 'outbox_event%'",
            &[],
        )
        .unwrap()
        .get(0);
    assert!(n_read <= 4 * i64::from(n_events), "{n_read}");
}

/// A trigger that puts each event into a table of its month, as before PostgreSQL had partitions,
/// and partitions as it has them.
#[test]
fn an_archive_in_parts_takes_the_events() {
    let db = with_done(3);
    db.execute(
        "CREATE TABLE archive_2040 (CHECK (id > 0)) INHERITS (outbox_event_archive);
         CREATE FUNCTION redirect() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO archive_2040 SELECT new.*; RETURN null; END $$;
         CREATE TRIGGER redirect BEFORE INSERT ON outbox_event_archive FOR EACH ROW EXECUTE FUNCTION redirect()",
    );
    assert_eq!(warnings(&db, "SELECT archive_outbox_events(0)"), [""; 0]);
    assert_eq!(db.number("SELECT count(*) FROM archive_2040", &[]), 3);

    let db = with_done(3);
    db.execute(
        "ALTER TABLE outbox_event_archive RENAME TO old;
         CREATE TABLE outbox_event_archive (LIKE old) PARTITION BY RANGE (archived_at);
         CREATE TABLE archive_of_all_times PARTITION OF outbox_event_archive DEFAULT; DROP TABLE old",
    );
    let report = migrate(&mut session(&db), &mut |_| {}).unwrap();
    assert_eq!(report.left, Flaws::default());
    db.execute("UPDATE outbox_event SET status = 'dead' WHERE id = 2");
    assert_eq!(session(&db).discard(&[2]).unwrap().ids, [2]);
    assert_eq!(warnings(&db, "SELECT archive_outbox_events(0)"), [""; 0]);
    assert_eq!(
        db.number("SELECT count(*) FROM archive_of_all_times", &[]),
        3
    );
}

/// Goal: a table that events are written to all the time is archived up to where it ended at the
/// begin; both calls went on as long as new rows came faster than they looked, which is for ever
/// at a thousand events a second. Method: each archived event brings a new one that is done.
#[test]
fn archiving_ends_although_events_keep_coming() {
    for call in [
        "SELECT archive_outbox_events(0)",
        "CALL outbox_archive_1(0)",
    ] {
        let db = with_done(3);
        db.execute(
            "CREATE FUNCTION one_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status, finished_at)
               VALUES ('order', '1', 'order.created', '{}', 'done', now() - interval '1 day');
               RETURN NULL;
             END $$;
             CREATE TRIGGER one_more AFTER INSERT ON outbox_event_archive FOR EACH ROW EXECUTE FUNCTION one_more()",
        );
        let mut client = db.client();
        client
            .batch_execute("SET statement_timeout = '30s'")
            .unwrap();

        client.batch_execute(call).unwrap();

        assert_eq!(left(&db), [4, 5, 6], "{call}");
    }
}
