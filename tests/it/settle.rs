//! Settling: what is written for each outcome.

use std::time::{Duration, Instant};

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::{Limits, SettleBatch, SettleResult, Written};

use crate::support::TestDb;
use crate::support::session::{
    claim, dead, ids, named_only, query, retry, session, settle, settle_and_end, settlements,
    table, written,
};

#[test]
fn each_outcome_is_written_as_it_is() {
    let db = TestDb::with_events(4);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 10).token;

    let done = settle(&mut session, "a", token, &[1], &Outcome::Done);
    let retried = settle(
        &mut session,
        "a",
        token,
        &[2],
        &retry(Duration::from_hours(1)),
    );
    let died = settle(&mut session, "a", token, &[3], &dead());
    let released = settle_and_end(&mut session, "a", token, &[4], &Outcome::Released, &[token]);

    assert_eq!(
        [done, retried, died, released].concat(),
        written(&[1, 2, 3, 4])
    );
    assert_eq!(
        table(&db),
        [
            "1 done 1 finished",
            "2 retry 1 failed receiver said 503",
            "3 dead 1 finished failed receiver said 410",
            "4 pending 0",
        ]
    );
    assert_eq!(db.leases(), 0);
}

#[test]
fn a_retry_is_due_after_its_delay_and_counts_its_attempts() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    let first = claim(&mut session, "a", 1);
    settle_and_end(
        &mut session,
        "a",
        first.token,
        &[1],
        &retry(Duration::ZERO),
        &[first.token],
    );

    let second = claim(&mut session, "a", 10);
    let attempts: Vec<u32> = second.events.iter().map(|event| event.attempt).collect();
    settle_and_end(
        &mut session,
        "a",
        second.token,
        &[1, 2],
        &retry(Duration::from_millis(1_800_500)),
        &[second.token],
    );

    // It was due later than the other one, which never failed.
    assert_eq!((ids(&second), attempts), (vec![2, 1], vec![1, 2]));
    assert_eq!(session.claim(&query("a")).unwrap(), None);
    let due = "SELECT count(*) FROM outbox_event WHERE next_run_at BETWEEN now() + interval '29 min' AND now() + interval '1800.5 s'";
    assert_eq!(db.number(due, &[]), 2);
    assert!(table(&db)[0].starts_with("1 retry 2 "));
}

#[test]
fn an_event_that_is_done_after_failures_keeps_its_last_error() {
    let db = TestDb::with_events(1);
    let mut session = session(&db);
    for outcome in [retry(Duration::ZERO), Outcome::Done] {
        let token = claim(&mut session, "a", 1).token;
        settle_and_end(&mut session, "a", token, &[1], &outcome, &[token]);
    }

    assert_eq!(table(&db), ["1 done 2 finished failed receiver said 503"]);
}

#[test]
fn a_released_event_is_due_at_once_and_uses_no_attempt() {
    let db = TestDb::with_events(3);
    let (mut one, mut two) = (session(&db), session(&db));
    let token = claim(&mut one, "a", 10).token;

    settle(&mut one, "a", token, &[1, 3], &Outcome::Released);

    let claimed = claim(&mut two, "b", 10);
    let attempts: Vec<u32> = claimed.events.iter().map(|event| event.attempt).collect();
    assert_eq!((ids(&claimed), attempts), (vec![1, 3], vec![1, 1]));
}

#[test]
fn an_event_that_is_gone_or_finished_by_a_person_is_named_but_not_written() {
    let db = TestDb::with_events(3);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 10).token;
    db.execute(
        "DELETE FROM outbox_event WHERE id = 1; UPDATE outbox_event SET status = 'dead' WHERE id = 2",
    );

    let settled = settle(&mut session, "a", token, &[1, 2, 3], &Outcome::Done);

    assert_eq!(settled, [named_only(&[1, 2]), written(&[3])].concat());
    assert_eq!(table(&db)[0], "2 dead 0");
}

#[test]
fn attempts_never_overflow_and_start_at_zero() {
    let db = TestDb::with_events(3);
    db.execute(
        "ALTER TABLE outbox_event ALTER attempts DROP NOT NULL;
         UPDATE outbox_event SET attempts = (ARRAY[-5, 2147483647, NULL])[id]",
    );
    let mut session = session(&db);
    let token = claim(&mut session, "a", 10).token;

    settle_and_end(
        &mut session,
        "a",
        token,
        &[1, 2, 3],
        &Outcome::Done,
        &[token],
    );

    assert_eq!(
        table(&db),
        [
            "1 done 1 finished",
            "2 done 2147483647 finished",
            "3 done 1 finished"
        ]
    );
}

#[test]
fn the_last_error_is_made_fit_for_its_column() {
    let db = TestDb::with_events(3);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 10).token;
    let texts = [
        "a\0b\0".to_owned(),
        "x".repeat(10_000),
        // 4095 bytes and then a character of three.
        format!("{}€€", "y".repeat(4095)),
    ];
    let outcomes: Vec<_> = (1..)
        .zip(&texts)
        .flat_map(|(id, text)| {
            let reason = text.clone();
            settlements(token, &[id], &Outcome::Dead { reason })
        })
        .collect();

    session
        .settle(&SettleBatch {
            worker: "a",
            outcomes: &outcomes,
            ended: &[token],
            expired: false,
        })
        .unwrap();

    let rows = db
        .client()
        .query("SELECT last_error FROM outbox_event ORDER BY id", &[])
        .unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        stored,
        ["ab".to_owned(), "x".repeat(4096), "y".repeat(4095)]
    );
}

#[test]
fn a_delay_beyond_all_measure_is_still_a_date() {
    let db = TestDb::with_events(1);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 1).token;

    settle(&mut session, "a", token, &[1], &retry(Duration::MAX));

    let later = "SELECT count(*) FROM outbox_event WHERE next_run_at > now() + interval '20 years'";
    assert_eq!(db.number(later, &[]), 1);
}

#[test]
fn an_empty_batch_ends_leases() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    let mine = claim(&mut session, "a", 1).token;
    let others = claim(&mut session, "b", 1).token;

    settle_and_end(
        &mut session,
        "a",
        mine,
        &[],
        &Outcome::Done,
        &[mine, others],
    );

    assert_eq!(session.leases_of("a").unwrap(), []);
    assert_eq!(session.leases_of("b").unwrap().len(), 1);
}

/// Goal: what a trigger keeps as it was is told apart from what was written, and stays named by its
/// lease, whatever it was before.
#[test]
fn a_row_that_an_update_leaves_as_it_was_is_kept_by_its_lease() {
    for what in ["null", "old"] {
        let db = TestDb::with_events(6);
        let mut session = session(&db);
        let first = claim(&mut session, "a", 2).token;
        settle_and_end(
            &mut session,
            "a",
            first,
            &[1, 2],
            &retry(Duration::ZERO),
            &[first],
        );
        db.execute(&format!(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF new.id % 2 = 0 THEN RETURN {what}; END IF; RETURN new; END $$;
             CREATE TRIGGER keep BEFORE UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION keep()"
        ));
        let token = claim(&mut session, "a", 6).token;
        let outcomes = [
            settlements(token, &[1, 2], &retry(Duration::ZERO)),
            settlements(token, &[3, 4], &Outcome::Done),
            settlements(token, &[5, 6], &dead()),
        ]
        .concat();
        let batch = SettleBatch {
            worker: "a",
            outcomes: &outcomes,
            ended: &[token],
            expired: false,
        };
        let kept = |id| Written {
            event_id: id,
            written: false,
            kept: true,
        };
        let expected = [
            written(&[1]),
            vec![kept(2)],
            written(&[3]),
            vec![kept(4)],
            written(&[5]),
            vec![kept(6)],
        ]
        .concat();

        assert_eq!(session.settle(&batch).unwrap(), expected, "return {what}");
        let leases = session.leases_of("a").unwrap();
        assert_eq!(leases.len(), 1);
        let mut named = leases[0].event_ids.clone();
        named.sort_unstable();
        assert_eq!(named, [2, 4, 6], "return {what}");

        // Outcome by outcome it is the same.
        let results = session.settle_each(&batch).unwrap();
        assert_eq!(results, [2, 4, 6].map(|id| SettleResult::Known(kept(id))));
        db.execute("DROP TRIGGER keep ON outbox_event");
        let results = session.settle_each(&batch).unwrap();
        assert_eq!(
            results,
            [2, 4, 6].map(|id| SettleResult::Known(written(&[id])[0]))
        );
        assert_eq!(db.leases(), 0);
        assert_eq!(
            db.number(
                "SELECT sum(attempts) FROM outbox_event WHERE id IN (1, 2)",
                &[]
            ),
            4
        );
    }
}

/// Goal: outcome by outcome, each row in the way is named with its reason, the others are written,
/// and a lease ends with its last one.
#[test]
fn written_one_by_one_only_what_is_in_the_way_is_left() {
    let db = TestDb::with_events(4);
    let mut session = session(&db);
    db.execute(
        "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.id = 2 THEN RAISE EXCEPTION 'not on sundays'; END IF; RETURN new; END $$;
         CREATE TRIGGER veto BEFORE UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION veto()",
    );
    let token = claim(&mut session, "a", 4).token;
    let outcomes = settlements(token, &[1, 2, 3, 4], &Outcome::Done);
    let batch = SettleBatch {
        worker: "a",
        outcomes: &outcomes,
        ended: &[token],
        expired: false,
    };
    let mut client = db.client();
    let mut person = client.transaction().unwrap();
    person
        .execute("SELECT 1 FROM outbox_event WHERE id = 3 FOR UPDATE", &[])
        .unwrap();
    session
        .wait_no_longer(Limits {
            lock: Some(Duration::from_millis(50)),
            statement: None,
        })
        .unwrap();

    let results = session.settle_each(&batch).unwrap();

    assert_eq!(results[0], SettleResult::Known(written(&[1])[0]));
    assert_eq!(results[3], SettleResult::Known(written(&[4])[0]));
    assert!(
        matches!(&results[1], SettleResult::Refused { event_id: 2, error } if error.to_string() == "could not settle events: not on sundays"),
        "{results:?}"
    );
    assert!(
        matches!(&results[2], SettleResult::Refused { event_id: 3, error } if error.is_lock_timeout()),
        "{results:?}"
    );
    assert_eq!(db.leases(), 1);
    person.rollback().unwrap();
    db.execute("DROP TRIGGER veto ON outbox_event");
    assert_eq!(session.settle_each(&batch).unwrap().len(), 4);
    assert_eq!((db.count("done"), db.leases()), (4, 0));
}

/// Goal: one row that a person holds stops only the batch it is in, and only for the lock timeout.
/// Method: the others are settled and the lease renewed, by other sessions, while the first one
/// waits.
#[test]
fn a_foreign_lock_on_one_event_ends_in_a_lock_timeout_while_all_others_go_on() {
    let db = TestDb::with_events(3);
    let (mut one, mut two) = (session(&db), session(&db));
    let held = claim(&mut one, "a", 2).token;
    let other = claim(&mut one, "a", 1).token;
    let mut client = db.client();
    let mut person = client.transaction().unwrap();
    person
        .execute("SELECT 1 FROM outbox_event WHERE id = 2 FOR UPDATE", &[])
        .unwrap();

    let since = Instant::now();
    let (error, renewed, settled) = std::thread::scope(|scope| {
        let blocked = scope.spawn(|| {
            let outcomes = settlements(held, &[1, 2], &Outcome::Done);
            let batch = SettleBatch {
                worker: "a",
                outcomes: &outcomes,
                ended: &[],
                expired: false,
            };
            one.settle(&batch).unwrap_err()
        });
        let renewed = two.renew("a", &[other], Duration::from_mins(1)).unwrap();
        let settled = settle(&mut two, "a", other, &[3], &Outcome::Done);
        (blocked.join().unwrap(), renewed, settled)
    });
    let waited = since.elapsed();
    let alone = settle(&mut one, "a", held, &[1], &Outcome::Done);

    assert!(error.is_lock_timeout() && error.is_transient() && !error.is_connection_lost());
    assert_eq!(error.reason(), "lock_timeout");
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(10));
    assert_eq!((renewed, settled), (vec![other], written(&[3])));
    assert_eq!(alone, written(&[1]));
}

/// Goal: what settles, requeues and discards a few events reads no others, though the planner
/// believes that there are none. Method: statistics from when all was done, then many events, and
/// how many rows the transaction has read.
#[test]
fn a_few_events_are_found_without_reading_all_that_wait() {
    let db = TestDb::with_events(20_000);
    let mut client = db.client();
    db.execute("UPDATE outbox_event SET status = 'done'");
    db.execute("VACUUM ANALYZE outbox_event");
    client
        .batch_execute(
            "ALTER TABLE outbox_event SET (autovacuum_enabled = off);
             INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status)
             SELECT 'a', 'a', 'a', '{}', CASE WHEN i % 2 = 0 THEN 'pending' ELSE 'dead' END FROM generate_series(1, 20000) i;
             INSERT INTO outbox_lease (token, worker, event_ids, expires_at)
             SELECT 1, 'w', array_agg(id), now() + interval '1 hour' FROM (SELECT id FROM outbox_event WHERE status = 'pending' LIMIT 50) e",
        )
        .unwrap();
    let dead =
        "array(SELECT id FROM (SELECT id FROM outbox_event WHERE status = 'dead' LIMIT 50) e)";
    for call in [
        "outbox_settle_1('w', array_fill(1::bigint, array[50]), ids, array_fill('done'::text, array[50]), \
         array_fill(0::float8, array[50]), array_fill(null::text, array[50]), '{}', false)",
        "outbox_requeue_2(ids)",
        "outbox_discard_2(ids)",
    ] {
        let ids = if call.contains("settle") {
            "(SELECT event_ids FROM outbox_lease WHERE token = 1)"
        } else {
            dead
        };
        client
            .batch_execute(&format!("CREATE TEMP TABLE chosen AS SELECT {ids} AS ids"))
            .unwrap();
        let mut transaction = client.transaction().unwrap();
        let changed = transaction
            .query(&format!("SELECT {call} FROM chosen"), &[])
            .unwrap();
        assert_eq!(changed.len(), 50, "{call}");
        let read: i64 = transaction
            .query_one(
                "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'outbox_event'",
                &[],
            )
            .unwrap()
            .get(0);
        transaction.rollback().unwrap();
        client.batch_execute("DROP TABLE chosen").unwrap();
        assert!(read <= 500, "{call} read {read}");
    }
}
