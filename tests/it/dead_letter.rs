//! Dead letters in the table: the list and its filters, requeue and discard, and what both leave
//! alone.

use std::time::Instant;

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::{DEAD_BATCH, DeadCursor, DeadFilter, LeftAlone, Session};
use postgres::types::ToSql;

use crate::support::TestDb;
use crate::support::session::{claim, dead, ids, query, session, settle, settle_and_end, table};

/// `n` dead events, event i written i minutes ago.
fn with_dead(n: u32) -> TestDb {
    let db = TestDb::with_events(n);
    db.execute(
        "UPDATE outbox_event SET status = 'dead', attempts = 5, last_error = 'receiver said 503', last_error_at = now(), finished_at = now(),
             created_at = now() - id * interval '1 minute'",
    );
    db
}

fn all() -> DeadFilter {
    DeadFilter::default()
}

fn listed(session: &mut Session, filter: &DeadFilter) -> Vec<i64> {
    let events = session.dead_events(filter, 1000, 0, usize::MAX).unwrap();
    events.iter().map(|event| event.id).collect()
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

fn left(refusals: &[(i64, &str)]) -> Vec<LeftAlone> {
    let left = |&(id, reason): &(i64, &str)| LeftAlone {
        id,
        reason: reason.to_owned(),
    };
    refusals.iter().map(left).collect()
}

fn numbers(db: &TestDb, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<i64> {
    let rows = db.client().query(sql, params).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn the_list_is_newest_first_and_comes_in_pages() {
    let db = with_dead(5);
    db.execute("UPDATE outbox_event SET created_at = (SELECT created_at FROM outbox_event WHERE id = 2) WHERE id = 4");
    let mut session = session(&db);

    let page = |session: &mut Session, limit, offset| -> Vec<i64> {
        let events = session
            .dead_events(&all(), limit, offset, usize::MAX)
            .unwrap();
        events.iter().map(|event| event.id).collect()
    };

    assert_eq!(page(&mut session, 100, 0), [1, 4, 2, 3, 5]);
    assert_eq!(page(&mut session, 2, 1), [4, 2]);
    assert_eq!(page(&mut session, 2, u64::MAX), [0; 0]);
    assert_eq!(page(&mut session, 0, 0), [0; 0]);
}

#[test]
fn a_dead_event_is_shown_as_it_stands() {
    let db = TestDb::new();
    db.execute(
        r#"INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts, created_at, next_run_at, last_error,
               last_error_at, headers)
           VALUES ('order', '1', 'order.created', '{"n": 1e400, "d": 123456789012345678901234567890.10}', 'dead', -5,
               '2025-01-02 03:04:05.123456Z', 'infinity', E'a\u001b[31m', '-infinity', '{"trace": "x"}')"#,
    );
    let mut session = session(&db);

    let event = session.dead_event(1).unwrap().unwrap();

    // PostgreSQL prints 1e400 in full.
    let payload: String = db
        .client()
        .query_one("SELECT payload::text FROM outbox_event", &[])
        .unwrap()
        .get(0);
    assert_eq!(event.payload, payload);
    assert_eq!(event.attempts, -5);
    assert_eq!(
        event.created_at.as_deref(),
        Some("2025-01-02T03:04:05.123456+00:00")
    );
    assert_eq!(event.next_run_at.as_deref(), Some("infinity"));
    assert_eq!(event.last_error_at.as_deref(), Some("-infinity"));
    assert_eq!(event.finished_at, None);
    assert_eq!(event.headers.as_deref(), Some(r#"{"trace": "x"}"#));
    assert!(event.to_json().contains(&payload));
    assert_eq!(session.dead_event(2).unwrap(), None);
    db.execute("UPDATE outbox_event SET status = 'done'");
    assert_eq!(session.dead_event(1).unwrap(), None);
}

#[test]
fn filters_are_exact_and_an_error_is_found_by_a_part_of_it() {
    let db = with_dead(6);
    db.execute(
        "UPDATE outbox_event SET event_type = 'order.paid' WHERE id = 2;
         UPDATE outbox_event SET aggregate_type = 'order%' WHERE id = 3;
         UPDATE outbox_event SET last_error = '100% of \\d_ ''quoted''' WHERE id = 4;
         UPDATE outbox_event SET last_error = NULL WHERE id = 5;
         UPDATE outbox_event SET status = 'retry' WHERE id = 6",
    );
    let mut session = session(&db);
    let text = |text: &str| Some(text.to_owned());
    let cases: [(DeadFilter, &[i64]); 7] = [
        (all(), &[1, 2, 3, 4, 5]),
        (
            DeadFilter {
                event_type: text("order.paid"),
                ..all()
            },
            &[2],
        ),
        (
            DeadFilter {
                event_type: text("order"),
                ..all()
            },
            &[],
        ),
        (
            DeadFilter {
                aggregate_type: text("order%"),
                ..all()
            },
            &[3],
        ),
        (
            DeadFilter {
                error: text("0% of \\d_ 'q"),
                ..all()
            },
            &[4],
        ),
        (
            DeadFilter {
                error: text("%"),
                ..all()
            },
            &[4],
        ),
        (
            DeadFilter {
                error: text("503"),
                event_type: text("order.created"),
                ..all()
            },
            &[1, 3],
        ),
    ];

    for (filter, expected) in cases {
        assert_eq!(listed(&mut session, &filter), expected, "{filter:?}");
        let count = session.count_dead(&filter).unwrap();
        assert_eq!(count, expected.len() as u64, "{filter:?}");
        let found = session.matching_dead(&filter, &mut DeadCursor::default(), 100);
        assert_eq!(found.unwrap(), expected, "{filter:?}");
    }
    assert_eq!(
        session.dead_by_type(&all(), 10).unwrap(),
        [
            ("order.created".to_owned(), 4),
            ("order.paid".to_owned(), 1)
        ]
    );
    assert_eq!(session.dead_by_type(&all(), 1).unwrap().len(), 1);
}

#[test]
fn a_time_range_holds_its_begin_and_not_its_end() {
    let db = TestDb::with_events(4);
    db.execute("UPDATE outbox_event SET status = 'dead', created_at = to_timestamp(id)");
    db.execute("UPDATE outbox_event SET created_at = 'infinity' WHERE id = 4");
    let mut session = session(&db);
    let mut between = |since: Option<i64>, until: Option<i64>| {
        let filter = DeadFilter {
            since_micros: since,
            until_micros: until,
            ..all()
        };
        listed(&mut session, &filter)
    };

    assert_eq!(between(Some(2_000_000), None), [4, 3, 2]);
    assert_eq!(between(None, Some(2_000_000)), [1]);
    assert_eq!(between(Some(1_000_001), Some(3_000_000)), [2]);
    assert_eq!(between(Some(i64::MIN), Some(i64::MAX)), [3, 2, 1]);
}

/// Goal: work on all dead letters meets each once, also those without a date, which only tables of
/// another origin have.
#[test]
fn a_walk_over_all_dead_letters_meets_each_once() {
    let db = with_dead(9);
    db.execute(
        "ALTER TABLE outbox_event ALTER created_at DROP NOT NULL, ALTER next_run_at DROP NOT NULL;
         UPDATE outbox_event SET created_at = NULL, next_run_at = NULL WHERE id IN (3, 5, 8);
         UPDATE outbox_event SET created_at = 'infinity' WHERE id = 6;
         UPDATE outbox_event SET created_at = '-infinity' WHERE id = 1;
         UPDATE outbox_event SET created_at = (SELECT created_at FROM outbox_event WHERE id = 2) WHERE id IN (4, 7)",
    );
    let mut session = session(&db);
    let expected = [8, 5, 3, 6, 7, 4, 2, 9, 1];
    assert_eq!(listed(&mut session, &all()), expected);

    for limit in 1..=10 {
        let mut cursor = DeadCursor::default();
        let mut met = Vec::new();
        loop {
            let found = session.matching_dead(&all(), &mut cursor, limit).unwrap();
            if found.is_empty() {
                break;
            }
            assert!(found.len() <= limit as usize);
            met.extend(found);
        }
        assert_eq!(met, expected, "in batches of {limit}");
    }
    let undated = session.dead_event(3).unwrap().unwrap();
    assert_eq!((undated.created_at, undated.next_run_at), (None, None));
    assert_eq!(session.discard(&[3]).unwrap().ids, [3]);
}

#[test]
fn a_page_of_large_payloads_is_cut_by_their_size() {
    let db = with_dead(4);
    // Random text, so that no compression makes it small.
    db.execute(
        "UPDATE outbox_event SET payload = (SELECT to_jsonb(string_agg(md5(random()::text || i), '')) FROM generate_series(1, 1000) i)
          WHERE id <= 3; UPDATE outbox_event SET status = 'done' WHERE id = 4",
    );
    let mut session = session(&db);
    let mut of = |bytes_max| -> Vec<i64> {
        let events = session.dead_events_of(&[4, 3, 1, 2], bytes_max).unwrap();
        events.iter().map(|event| event.id).collect()
    };

    assert_eq!(of(1), [3]);
    assert_eq!(of(40_000), [3, 1]);
    assert_eq!(of(u64::MAX), [3, 1, 2]);
}

#[test]
fn a_requeued_event_is_due_at_once_with_all_its_attempts() {
    let db = with_dead(3);
    db.execute("UPDATE outbox_event SET next_run_at = now() + interval '1 hour'; UPDATE outbox_event SET status = 'done' WHERE id = 2");
    let mut session = session(&db);

    let requeued = session.requeue(&[1, 2, 3, 3, 99]).unwrap().ids;

    assert_eq!(sorted(requeued), [1, 3]);
    // Why it failed stays to be read until it fails otherwise.
    assert_eq!(
        table(&db),
        [
            "1 pending 0 failed receiver said 503",
            "2 done 5 finished failed receiver said 503",
            "3 pending 0 failed receiver said 503"
        ]
    );
    assert_eq!(ids(&claim(&mut session, "a", 10)), [1, 3]);
    assert_eq!(session.requeue(&[1, 2, 3]).unwrap().ids, [0; 0]);
    assert_eq!(session.requeue(&[]).unwrap().ids, [0; 0]);
}

/// Goal: an event that something of the application refuses stops no other, and is named with the
/// reason.
#[test]
fn what_refuses_its_requeue_stays_dead_alone() {
    let db = with_dead(1000);
    let refusals = db.refuse_requeues();
    let all_ids: Vec<i64> = (1..=1000).collect();
    let refused: Vec<i64> = refusals.iter().map(|(id, _)| *id).collect();

    let changed = session(&db).requeue(&all_ids).unwrap();

    assert_eq!(changed.left, left(&refusals));
    assert_eq!(changed.ids.len(), 994);
    assert!(changed.ids.iter().all(|id| !refused.contains(id)));
    let dead =
        "SELECT id FROM outbox_event WHERE status = 'dead' AND attempts = 5 OR id = 13 ORDER BY id";
    assert_eq!(numbers(&db, dead, &[]), refused);
    assert_eq!((db.count("pending"), db.count("dead")), (994, 6));
    let by_hand = "SELECT outbox_requeue_1('{3,5,7,9,11,13}')";
    assert_eq!(numbers(&db, by_hand, &[]), [0; 0]);
}

/// Goal: triggers may set the search_path of their transaction. Method: they do so with each event,
/// and one event takes the batch apart.
#[test]
fn triggers_that_change_the_search_path_keep_no_event() {
    let db = with_dead(8);
    db.execute(
        "CREATE FUNCTION elsewhere() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', true); RETURN NULL; END $$;
         CREATE TRIGGER elsewhere AFTER UPDATE OR DELETE ON outbox_event FOR EACH ROW EXECUTE FUNCTION elsewhere();
         CREATE TRIGGER elsewhere_at_once BEFORE UPDATE OR DELETE ON outbox_event FOR EACH STATEMENT EXECUTE FUNCTION elsewhere();
         CREATE TRIGGER elsewhere AFTER INSERT ON outbox_event_archive FOR EACH ROW EXECUTE FUNCTION elsewhere();
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'legal hold'; END $$;
         CREATE TRIGGER hold BEFORE UPDATE OR DELETE ON outbox_event FOR EACH ROW WHEN (old.id = 3) EXECUTE FUNCTION hold()",
    );
    let mut session = session(&db);

    let requeued = session.requeue(&[1, 2, 3, 4]).unwrap();
    let discarded = session.discard(&[3, 5, 6, 7, 8]).unwrap();

    let held = left(&[(3, "legal hold")]);
    assert_eq!(
        (sorted(requeued.ids), requeued.left),
        (vec![1, 2, 4], held.clone())
    );
    assert_eq!(
        (sorted(discarded.ids), discarded.left),
        (vec![5, 6, 7, 8], held)
    );
}

#[test]
fn a_discarded_event_stands_in_the_archive_with_its_error() {
    let db = with_dead(3);
    db.execute("UPDATE outbox_event SET headers = '{\"a\": 1}', last_error_at = '2025-01-02', finished_at = '2025-01-03'");
    let row = "SELECT concat_ws('|', id, aggregate_type, aggregate_id, event_type, payload, status, attempts, next_run_at, created_at, \
                 last_error, last_error_at, finished_at, headers) FROM";
    let text = |from: &str| -> String {
        let sql = format!("{row} {from} WHERE id = 2");
        db.client().query_one(&sql, &[]).unwrap().get(0)
    };
    let before = text("outbox_event");
    let mut session = session(&db);

    let discarded = session.discard(&[2, 2, 99]).unwrap().ids;

    assert_eq!(discarded, [2]);
    assert_eq!(text("outbox_event_archive"), before);
    assert_eq!(
        numbers(&db, "SELECT id FROM outbox_event ORDER BY id", &[]),
        [1, 3]
    );
    let now =
        "SELECT count(*) FROM outbox_event_archive WHERE archived_at > now() - interval '1 minute'";
    assert_eq!(db.number(now, &[]), 1);
    assert_eq!(session.discard(&[2]).unwrap().ids, [0; 0]);
}

/// After TRUNCATE … RESTART IDENTITY ids come again.
#[test]
fn nothing_in_the_archive_is_overwritten_by_a_discard() {
    let db = with_dead(2);
    db.execute(
        "INSERT INTO outbox_event_archive SELECT id, 'older', '1', 'older', '{}', 'done', 1, now(), now() FROM outbox_event WHERE id = 1",
    );

    let discarded = session(&db).discard(&[1, 2]).unwrap().ids;

    assert_eq!(discarded, [2]);
    assert_eq!(db.count("dead"), 1);
    assert_eq!(
        numbers(
            &db,
            "SELECT id FROM outbox_event_archive WHERE aggregate_type = 'older'",
            &[]
        ),
        [1]
    );
}

/// Goal: a person's word stays. Method: a worker holds the event, a person's UPDATE made it dead;
/// then it is swept, requeued, and the worker comes back.
#[test]
fn what_a_lease_still_names_is_neither_requeued_nor_discarded() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 2).token;
    db.execute("UPDATE outbox_event SET status = 'dead', attempts = 5");

    let leased = "a lease still names it";
    let requeued = session.requeue(&[1, 2]).unwrap();
    assert_eq!(requeued.ids, [0; 0]);
    assert_eq!(requeued.left, left(&[(1, leased), (2, leased)]));
    assert_eq!(session.discard(&[1, 2]).unwrap().ids, [0; 0]);
    // Expired or not: until it is swept its worker may still settle.
    db.expire_leases();
    assert_eq!(session.requeue(&[1]).unwrap().ids, [0; 0]);

    db.execute("DELETE FROM outbox_lease");
    assert_eq!(session.requeue(&[1]).unwrap().ids, [1]);
    assert_eq!(session.discard(&[2]).unwrap().ids, [2]);
    assert_eq!(
        settle(&mut session, "a", token, &[1, 2], &Outcome::Done),
        []
    );
    assert_eq!(table(&db), ["1 pending 0"]);
}

#[test]
fn a_stale_worker_changes_nothing_of_a_requeued_or_discarded_event() {
    let db = TestDb::with_events(3);
    let (mut stale, mut other) = (session(&db), session(&db));
    let token = claim(&mut stale, "a", 3).token;
    // The lease goes on for event 3 alone: the two others died under it.
    settle(&mut stale, "a", token, &[1, 2], &dead());
    assert_eq!(other.requeue(&[1]).unwrap().ids, [1]);
    assert_eq!(other.discard(&[2]).unwrap().ids, [2]);
    let before = table(&db);

    // The same batch again, as after an answer that never came, and another word about the same
    // events.
    for outcome in [dead(), Outcome::Done] {
        assert_eq!(settle(&mut stale, "a", token, &[1, 2], &outcome), []);
    }

    assert_eq!(table(&db), before);
    assert_eq!(
        db.number("SELECT count(*) FROM outbox_event_archive", &[]),
        1
    );
    settle_and_end(&mut stale, "a", token, &[3], &Outcome::Done, &[token]);
    assert_eq!(ids(&claim(&mut other, "b", 10)), [1]);
}

#[test]
fn an_event_that_somebody_has_locked_holds_up_no_other() {
    let db = with_dead(3);
    let mut client = db.client();
    let mut held = client.transaction().unwrap();
    held.execute("SELECT FROM outbox_event WHERE id = 2 FOR UPDATE", &[])
        .unwrap();
    let mut session = session(&db);

    let requeued = session.requeue(&[1, 2]).unwrap();
    assert_eq!(requeued.ids, [1]);
    assert_eq!(
        requeued.left,
        left(&[(2, "another transaction has locked it")])
    );
    assert_eq!(session.discard(&[2, 3]).unwrap().ids, [3]);

    held.rollback().unwrap();
    assert_eq!(session.requeue(&[2]).unwrap().ids, [2]);
}

/// Goal: each event is requeued, or discarded, by exactly one of many. Method: eight sessions ask
/// for all of them at the same moment, some for the one, some for the other.
#[test]
fn many_at_once_change_each_event_once() {
    const EVENTS: u32 = 400;
    let db = with_dead(EVENTS);
    let all_ids: Vec<i64> = (1..=i64::from(EVENTS)).collect();
    let barrier = std::sync::Barrier::new(8);

    let changed: Vec<(bool, Vec<i64>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (db, barrier, all_ids) = (&db, &barrier, &all_ids);
                scope.spawn(move || {
                    let mut session = session(db);
                    let is_requeue = n % 2 == 0;
                    barrier.wait();
                    let mut changed = Vec::new();
                    for ids in all_ids.chunks(20) {
                        changed.extend(if is_requeue {
                            session.requeue(ids).unwrap().ids
                        } else {
                            session.discard(ids).unwrap().ids
                        });
                    }
                    (is_requeue, changed)
                })
            })
            .collect();
        threads.into_iter().map(|one| one.join().unwrap()).collect()
    });

    let by_all: Vec<i64> = changed.iter().flat_map(|(_, ids)| ids.clone()).collect();
    assert_eq!(sorted(by_all), all_ids);
    let requeued: Vec<i64> = changed
        .iter()
        .filter(|(is_requeue, _)| *is_requeue)
        .flat_map(|(_, ids)| ids.clone())
        .collect();
    assert_eq!(
        numbers(
            &db,
            "SELECT id FROM outbox_event WHERE status = 'pending' ORDER BY id",
            &[]
        ),
        sorted(requeued)
    );
    assert_eq!(db.count("dead"), 0);
}

/// Goal: leases are looked at after the rows are locked. Method: the requeue has to wait for the
/// events' table, while a lease that names its event is committed; leases read before that would
/// not show it.
#[test]
fn a_lease_that_is_committed_while_a_requeue_begins_is_seen() {
    let db = with_dead(1);
    let mut client = db.client();
    let mut held = client.transaction().unwrap();
    held.batch_execute(
        "LOCK TABLE outbox_event IN ACCESS EXCLUSIVE MODE;
         INSERT INTO outbox_lease VALUES (txid_current(), 'a', now() + interval '1 minute', '{1}')",
    )
    .unwrap();

    let requeued = std::thread::scope(|scope| {
        let requeue = scope.spawn(|| session(&db).requeue(&[1]).unwrap().ids);
        crate::support::wait_until("the requeue waits", || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox_event'::regclass";
            db.number(waiting, &[]) == 1
        });
        held.commit().unwrap();
        requeue.join().unwrap()
    });

    assert_eq!(requeued, [0; 0]);
}

#[test]
fn requeue_and_discard_refuse_an_isolation_in_which_leases_would_be_missed() {
    let db = with_dead(1);
    for call in ["outbox_requeue_2", "outbox_discard_2"] {
        let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT {call}('{{1}}')");
        let error = db.client().batch_execute(&sql).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25000", "{call}");
    }
    assert_eq!(db.count("dead"), 1);
}

#[test]
fn whoever_calls_from_another_search_path_gets_this_schemas_events() {
    let db = with_dead(2);
    db.execute(
        "CREATE SCHEMA other; CREATE TABLE other.outbox_event (LIKE outbox_event INCLUDING ALL);
         SET search_path = other, pg_catalog; SELECT public.outbox_requeue_2('{1}'); SELECT public.outbox_discard_2('{2}')",
    );

    assert_eq!(table(&db)[0].split(' ').nth(1), Some("pending"));
    assert_eq!(
        db.number("SELECT count(*) FROM outbox_event_archive", &[]),
        1
    );
}

/// Bounded by the API's 5 s a statement; on two idle cores it takes about 1 s.
#[test]
fn a_hundred_thousand_events_are_requeued_in_one_call() {
    let db = with_dead(100_000);
    let all_ids: Vec<i64> = (1..=100_000).collect();
    let mut session = session(&db);
    let since = Instant::now();

    let requeued = session.requeue(&all_ids).unwrap().ids;

    assert_eq!(requeued.len(), all_ids.len());
    eprintln!("requeued 100,000 events in {:?}", since.elapsed());
    assert_eq!(db.count("pending"), 100_000);
}

/// Goal: lists, walks and counts never read what is done. Method: a table where dead rows are few,
/// and the plans of the statements.
#[test]
fn dead_letters_are_found_by_their_index() {
    let db = TestDb::with_events(20_000);
    db.execute("UPDATE outbox_event SET status = 'done' WHERE id > 200; UPDATE outbox_event SET status = 'dead' WHERE id <= 200");
    let filters = "NULL, NULL, NULL, NULL, NULL";
    let range = "'infinity', 9223372036854775807";
    let statements = [
        (
            include_str!("../../sql/dead_list.sql"),
            "text, text, text, timestamptz, timestamptz, bigint, bigint, text",
            format!("{filters}, 100, 0, NULL"),
        ),
        (
            include_str!("../../sql/dead_ids.sql"),
            "text, text, text, timestamptz, timestamptz, bigint, timestamptz, bigint, bigint, text",
            format!("{filters}, 9223372036854775807, {range}, 100, NULL"),
        ),
        (
            include_str!("../../sql/dead_count.sql"),
            "text, text, text, timestamptz, timestamptz, text",
            format!("{filters}, NULL"),
        ),
        (
            include_str!("../../sql/dead_by_type.sql"),
            "text, text, text, timestamptz, timestamptz, bigint, text",
            format!("{filters}, 10, NULL"),
        ),
    ];
    for (sql, types, values) in statements {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let mut client = db.client();
            client
                .batch_execute(&format!(
                    "SET plan_cache_mode = {mode}; PREPARE statement ({types}) AS {sql}"
                ))
                .unwrap();
            let plan: Vec<String> = client
                .query(&format!("EXPLAIN EXECUTE statement ({values})"), &[])
                .unwrap()
                .iter()
                .map(|row| row.get(0))
                .collect();
            let plan = plan.join("\n");
            assert!(plan.contains("outbox_event_dead"), "{mode}\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{mode}\n{plan}");
        }
    }
}

#[test]
fn a_batch_by_a_filter_is_bounded() {
    let db = with_dead(DEAD_BATCH + 1);
    let mut session = session(&db);
    let mut cursor = DeadCursor::default();
    let mut sizes = Vec::new();
    loop {
        let found = session
            .matching_dead(&all(), &mut cursor, DEAD_BATCH)
            .unwrap();
        if found.is_empty() {
            break;
        }
        sizes.push(session.discard(&found).unwrap().ids.len());
    }
    assert_eq!(sizes, [DEAD_BATCH as usize, 1]);
    assert_eq!(session.claim(&query("a")).unwrap(), None);
}
