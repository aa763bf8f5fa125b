//! The statistics of the table: what counts as backlog, what counting costs, and that it delays no
//! other work.

use std::time::Duration;

use dispatchbox::store::{Position, Session};

use crate::support::session::{claim, dead, session, settle_and_end};
use crate::support::{Daemon, TestDb, wait_until};

const LIMIT: u32 = 100_000;

/// A session as the statistics collector has one.
fn collector_session(db: &TestDb) -> Session {
    let mut session = session(db);
    session.set_up_statistics().unwrap();
    session
}

/// Makes a statement of plpgsql run when the statistics collector, and no other session, looks for
/// leases.
fn at_the_count(db: &TestDb, statement: &str) {
    db.execute(&format!(
        "ALTER FUNCTION outbox_leases_1() RENAME TO outbox_leases_real;
         CREATE FUNCTION outbox_leases_1() RETURNS SETOF outbox_lease LANGUAGE plpgsql AS $$ BEGIN
             IF current_setting('application_name') = 'dispatchbox statistics' THEN {statement}; END IF;
             RETURN QUERY SELECT * FROM outbox_leases_real();
         END $$"
    ));
}

#[test]
fn the_backlog_is_what_is_due_and_in_nobodys_hands() {
    let db = TestDb::with_events(10);
    db.execute(
        "UPDATE outbox_event SET next_run_at = now() + interval '1 hour' WHERE id = 7;
         UPDATE outbox_event SET status = 'done' WHERE id = 8;
         UPDATE outbox_event SET status = 'retry', next_run_at = now() - interval '100 s' WHERE id = 9;
         UPDATE outbox_event SET next_run_at = now() - interval '1 day' WHERE id = 1",
    );
    let mut collector = collector_session(&db);
    let before = collector.count_backlog(&Position::FRONT, LIMIT).unwrap();
    assert_eq!((before.n_events, before.is_capped), (8, false));
    assert_eq!(before.oldest_due_age.as_secs() / 60, 24 * 60);

    claim(&mut session(&db), "a", 1);
    let claimed = collector.count_backlog(&Position::FRONT, LIMIT).unwrap();
    assert_eq!(claimed.n_events, 7, "what is claimed waits no more");
    assert_eq!(claimed.oldest_due_age.as_secs() / 10, 10);

    db.execute("DELETE FROM outbox_lease; UPDATE outbox_event SET status = 'done'");
    let none = collector.count_backlog(&Position::FRONT, LIMIT).unwrap();
    assert_eq!((none.n_events, none.first), (0, None));
    assert_eq!(none.oldest_due_age, Duration::ZERO);
}

#[test]
fn what_waits_for_its_time_is_no_backlog_and_is_counted() {
    let db = TestDb::with_events(6);
    let mut collector = collector_session(&db);
    let none = collector.count_not_due(LIMIT).unwrap();
    assert_eq!((none.n_events, none.first_in), (0, None));

    db.execute(
        "UPDATE outbox_event SET next_run_at = now() + interval '1 hour' WHERE id = 1;
         UPDATE outbox_event SET status = 'retry', next_run_at = now() + interval '2 hours' WHERE id = 2;
         UPDATE outbox_event SET next_run_at = 'infinity' WHERE id = 3;
         UPDATE outbox_event SET status = 'dead', next_run_at = now() + interval '1 s' WHERE id = 4",
    );
    let three = collector.count_not_due(LIMIT).unwrap();
    assert_eq!((three.n_events, three.is_capped), (3, false));
    assert_eq!(three.first_in.unwrap().as_secs() / 10, 359);
    let two = collector.count_not_due(2).unwrap();
    assert_eq!((two.n_events, two.is_capped), (2, true));

    let daemon = Daemon::new(&db).route("*=log").start();
    wait_until("the status counts them", || {
        let status: serde_json::Value = serde_json::from_str(&daemon.get("/api/status").1).unwrap();
        status["not_due"]["events"] == 3
            && status["not_due"]["first_in_seconds"].as_f64() > Some(3500.0)
    });
}

#[test]
fn an_event_that_is_due_since_ever_counts_and_has_no_age() {
    let db = TestDb::with_events(3);
    db.execute(
        "UPDATE outbox_event SET next_run_at = '-infinity' WHERE id = 1;
         UPDATE outbox_event SET next_run_at = 'infinity' WHERE id = 2;
         UPDATE outbox_event SET next_run_at = now() - interval '20 s' WHERE id = 3",
    );
    let mut collector = collector_session(&db);

    let both = collector.count_backlog(&Position::FRONT, LIMIT).unwrap();
    assert_eq!(both.n_events, 2);
    assert_eq!(both.oldest_due_age.as_secs() / 10, 2);

    db.execute("DELETE FROM outbox_event WHERE id = 3");
    let one = collector.count_backlog(&Position::FRONT, LIMIT).unwrap();
    assert_eq!((one.n_events, one.oldest_due_age), (1, Duration::ZERO));
}

#[test]
fn a_look_from_the_first_due_event_finds_what_a_look_from_the_front_finds() {
    let db = TestDb::with_events(20);
    db.execute("UPDATE outbox_event SET status = 'done' WHERE id <= 5");
    let mut collector = collector_session(&db);
    // Claimed: no backlog, but where the next look has to start, since they may be given back.
    claim(&mut session(&db), "a", 3);

    let first = collector.count_backlog(&Position::FRONT, LIMIT).unwrap();
    let from = first.first.unwrap();
    let second = collector.count_backlog(&from, LIMIT).unwrap();
    assert_eq!((first.n_events, second.n_events), (12, 12));
    assert_eq!(second.first, Some(from));

    db.execute("DELETE FROM outbox_lease");
    let released = collector.count_backlog(&from, LIMIT).unwrap();
    assert_eq!(released.n_events, 15);
}

/// Goal: counting ends at its limit and reads no more than that, whatever other indexes and
/// statistics there are, with the first plans of a session and with its later ones. Method: the
/// server's own count of the entries that were read.
#[test]
fn counting_ends_at_its_limit() {
    let db = TestDb::new();
    db.execute("CREATE INDEX idx_outbox_due ON outbox_event (next_run_at) WHERE status IN ('pending', 'retry'); ANALYZE outbox_event");
    db.insert_events("order.created", 4000);
    db.execute("UPDATE outbox_event SET status = 'dead' WHERE id > 2000");
    let claimed = claim(&mut session(&db), "a", 10);
    let mut collector = collector_session(&db);

    for _ in 0..10 {
        let backlog = collector.count_backlog(&Position::FRONT, 100).unwrap();
        assert_eq!((backlog.n_events, backlog.is_capped), (100, true));
        let found = collector.count_dead_by_type(100).unwrap();
        assert_eq!(found.counts, [("order.created".to_owned(), 100)]);
        assert!(found.is_capped);
    }
    drop(collector);

    let read = |index: &str| {
        let sql = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = $1";
        db.number(sql, &[&index])
    };
    // The server counts when a session ends.
    wait_until("the reads are counted", || read("outbox_event_dead") > 0);
    assert_eq!(read("outbox_event_dead"), 10 * 100);
    let by_claim = i64::try_from(claimed.events.len()).unwrap();
    assert_eq!(read("outbox_event_due"), by_claim + 10 * (100 + by_claim));
    assert_eq!(read("idx_outbox_due"), 0);
}

#[test]
fn dead_events_are_counted_by_type() {
    let db = TestDb::new();
    let mail = db.insert_events("mail.sent", 2);
    let order = db.insert_events("order.created", 5);
    let mut worker = session(&db);
    let claimed = claim(&mut worker, "a", 100);
    let ids: Vec<i64> = mail.iter().chain(&order[..3]).copied().collect();
    settle_and_end(&mut worker, "a", claimed.token, &ids, &dead(), &[]);

    let found = collector_session(&db).count_dead_by_type(LIMIT).unwrap();

    let expected = [("order.created".to_owned(), 3), ("mail.sent".to_owned(), 2)];
    assert_eq!(found.counts, expected);
    assert!(!found.is_capped);
}

/// The claim leaves alone what somebody has locked, so here is a backlog that stands still.
#[test]
fn the_metrics_tell_what_waits_and_what_is_dead() {
    let db = TestDb::new();
    db.insert_events("order.created", 5);
    db.insert_events("order.paid", 2);
    db.insert_events("mail.sent", 3);
    db.execute(
        "UPDATE outbox_event SET status = 'dead' WHERE id > 5;
         UPDATE outbox_event SET next_run_at = now() - interval '1 hour' WHERE id = 2",
    );
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("SELECT FROM outbox_event FOR UPDATE")
        .unwrap();
    let daemon = Daemon::new(&db)
        .route("order.*=log")
        .route("sms.*=log")
        .start();

    let metric =
        |name: &str, labels: &[(&str, &str)]| daemon.metric(&format!("dispatchbox_{name}"), labels);
    wait_until("the table is surveyed", || {
        metric("backlog_events", &[]).is_some()
    });
    assert_eq!(metric("backlog_events", &[]), Some(5.0));
    assert_eq!(metric("backlog_capped", &[]), Some(0.0));
    let age = metric("oldest_due_age_seconds", &[]).unwrap();
    assert!((3600.0..3700.0).contains(&age), "{age}");
    let dead = |label| metric("dead_events", &[("event_type", label)]);
    assert_eq!(
        ["order.*", "sms.*", "other"].map(dead),
        [Some(2.0), Some(0.0), Some(3.0)]
    );
    assert_eq!(metric("dead_events_capped", &[]), Some(0.0));
}

/// A privilege that only the statistics collector needs is missed nowhere else.
#[test]
fn statistics_that_are_refused_are_told_and_keep_nothing_from_being_delivered() {
    let db = TestDb::with_events(3);
    at_the_count(
        &db,
        "RAISE insufficient_privilege USING MESSAGE = 'not for you'",
    );
    let daemon = Daemon::new(&db).route("*=log").start();

    daemon.wait_log("the metrics say nothing about backlog and dead events");
    wait_until("all is done", || db.count("done") == 3);
    daemon.wait_ready();
    assert_eq!(daemon.metric("dispatchbox_backlog_events", &[]), None);
}

/// Goal: a stop does not wait for a count that takes long. Method: the count sleeps inside the
/// server, which still does so when the daemon is gone.
#[test]
fn a_count_under_way_holds_up_no_stop() {
    let db = TestDb::new();
    at_the_count(&db, "PERFORM pg_sleep(60)");
    let counting = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name = 'dispatchbox statistics' AND state = 'active'";
        db.number(sql, &[]) == 1
    };
    let mut daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    wait_until("the survey is under way", counting);

    assert_eq!(daemon.terminate(), 0);

    assert!(counting(), "the survey ended first");
}
