//! Claiming: which events a claim takes, in which order, and that nobody else gets them.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use dispatchbox::domain::config::Config;
use dispatchbox::domain::event::Event;
use dispatchbox::handlers::{Handlers, Routes, Segments};
use dispatchbox::store::{ClaimQuery, Looked, Position, Selection, Session, StoreErrorKind};

use crate::support::session::{claim, claim_all, ids, query, session};
use crate::support::{TestDb, wait_until};

/// Leaves out the check that keeps unknown words out of a new table; an old one does not have it.
const ANY_STATUS: &str = "ALTER TABLE outbox_event DROP CONSTRAINT outbox_event_status_known";

#[test]
fn due_events_come_in_the_order_of_their_time_and_id() {
    let db = TestDb::with_events(5);
    db.execute(
        "UPDATE outbox_event SET next_run_at = '2020-01-01' WHERE id = 4;
         UPDATE outbox_event SET next_run_at = '-infinity', status = 'retry' WHERE id = 5",
    );

    let claimed = claim(&mut session(&db), "a", 100);

    assert_eq!(ids(&claimed), [5, 4, 1, 2, 3]);
}

#[test]
fn a_claim_takes_no_more_than_its_limit() {
    let db = TestDb::with_events(1000);
    let mut session = session(&db);
    let mut claim_of = |limit| {
        let query = ClaimQuery {
            limit,
            ..query("a")
        };
        session.claim(&query).unwrap().map_or(0, |c| c.events.len())
    };

    let counts = [0, 1, 7, u16::MAX, 900].map(&mut claim_of);

    // A lease row holds at most 900 ids.
    assert_eq!(counts, [0, 1, 7, 900, 92]);
}

#[test]
fn what_is_not_due_is_not_claimed() {
    let db = TestDb::with_events(8);
    db.execute(&format!(
        "{ANY_STATUS};
         ALTER TABLE outbox_event ALTER next_run_at DROP NOT NULL, ALTER status DROP NOT NULL;
         UPDATE outbox_event SET next_run_at = now() + interval '1 hour' WHERE id = 1;
         UPDATE outbox_event SET next_run_at = 'infinity' WHERE id = 2;
         UPDATE outbox_event SET next_run_at = NULL WHERE id = 3;
         UPDATE outbox_event SET status = (ARRAY['done', 'dead', 'foo', NULL])[id - 3] WHERE id BETWEEN 4 AND 7"
    ));

    assert_eq!(claim_all(&mut session(&db), "a"), [8]);
}

#[test]
fn a_leased_event_is_nobody_elses_even_after_the_lease_is_over() {
    let db = TestDb::with_events(2);
    let (mut one, mut two) = (session(&db), session(&db));
    claim(&mut one, "a", 1);
    let rest = claim_all(&mut two, "b");
    assert_eq!(rest, [2]);

    db.expire_leases();
    let over = claim_all(&mut two, "b");
    db.execute("DELETE FROM outbox_lease");
    let ended = claim_all(&mut two, "b");

    assert_eq!((over, ended), (vec![], vec![1, 2]));
}

#[test]
fn an_event_whose_row_is_locked_is_skipped_and_not_waited_for() {
    let db = TestDb::with_events(3);
    let mut client = db.client();
    let mut holder = client.transaction().unwrap();
    holder
        .execute("SELECT 1 FROM outbox_event WHERE id = 2 FOR UPDATE", &[])
        .unwrap();
    let mut session = session(&db);

    let around = claim_all(&mut session, "a");
    holder.rollback().unwrap();
    let after = claim_all(&mut session, "a");

    assert_eq!((around, after), (vec![1, 3], vec![2]));
}

#[test]
fn a_claim_starts_behind_its_position() {
    let db = TestDb::with_events(6);
    let mut session = session(&db);
    let first = claim(&mut session, "a", 3);
    db.execute("DELETE FROM outbox_lease");

    let mut query = query("a");
    query.after = &first.last;
    let second = session.claim(&query).unwrap().unwrap();
    query.after = &second.last;
    let third = session.claim(&query).unwrap();

    assert_eq!((ids(&first), ids(&second)), (vec![1, 2, 3], vec![4, 5, 6]));
    assert_eq!(third, None);
    assert_eq!(claim_all(&mut session, "a"), [1, 2, 3]);
}

/// Selects by the segments below `b`, from `b` to `c`, and from `c` on.
fn select<'a>(groups: &'a [i32], takes: Option<&'a [Option<i32>]>) -> Selection<'a> {
    static BOUNDS: LazyLock<Vec<String>> = LazyLock::new(|| vec!["b".to_owned(), "c".to_owned()]);
    Selection {
        bounds: &BOUNDS,
        groups,
        takes,
    }
}

/// Commits one event of each of these types, in this order.
fn insert_types(db: &TestDb, types: &str) {
    for event_type in types.split_whitespace() {
        db.insert_events(event_type, 1);
    }
}

/// What a look for these events found and how far it came, and ends its lease.
fn look(db: &TestDb, session: &mut Session, query: &ClaimQuery<'_>) -> (Vec<i64>, Looked) {
    let looked = session.look(query).unwrap();
    db.execute("DELETE FROM outbox_lease");
    (looked.claimed.as_ref().map(ids).unwrap_or_default(), looked)
}

#[test]
fn segments_of_event_types_can_be_left_out() {
    let db = TestDb::new();
    insert_types(&db, "a b c a b c");
    let mut session = session(&db);
    let mut claimed = |groups: &[i32], takes: Option<&[Option<i32>]>| {
        let query = ClaimQuery {
            selection: Some(select(groups, takes)),
            stretch: Some(100),
            ..query("a")
        };
        look(&db, &mut session, &query).0
    };

    for takes in [None, Some(&[None, None, None][..])] {
        assert_eq!(claimed(&[1, 1, 1], takes), [1, 2, 3, 4, 5, 6]);
        assert_eq!(claimed(&[1, 0, 2], takes), [1, 3, 4, 6]);
        assert_eq!(claimed(&[0, 3, 0], takes), [2, 5]);
        assert_eq!(claimed(&[0, 0, 0], takes), [0; 0]);
    }
}

#[test]
fn a_group_takes_no_more_than_it_may_and_says_where_it_stopped() {
    let db = TestDb::new();
    insert_types(&db, "a b a b b c");
    let mut session = session(&db);
    let query = ClaimQuery {
        selection: Some(select(&[1, 2, 3], Some(&[None, Some(1), Some(7)]))),
        stretch: Some(100),
        ..query("a")
    };

    let (first, looked) = look(&db, &mut session, &query);
    let (group, position) = looked.full[0];
    let behind = ClaimQuery {
        after: &position,
        ..query
    };
    let (second, _) = look(&db, &mut session, &behind);

    assert_eq!(first, [1, 2, 3, 6]);
    assert_eq!((looked.reached, looked.full.len(), group), (None, 1, 2));
    assert_eq!(
        second,
        [3, 4, 6],
        "the group goes on behind the event that it took"
    );
}

/// Goal: a look reads no more entries than its stretch, and comes forward even where it may take
/// none of them.
#[test]
fn a_look_that_finds_nothing_says_how_far_it_came() {
    let db = TestDb::new();
    insert_types(&db, "b b b b b a b");
    let mut session = session(&db);
    for takes in [None, Some(&[None, None][..])] {
        let mut found = Vec::new();
        let mut after = Position::FRONT;
        let mut n_looks = 0;
        while n_looks < 20 {
            let query = ClaimQuery {
                after: &after,
                stretch: Some(2),
                selection: Some(select(&[1, 0, 2], takes)),
                ..query("a")
            };
            let (ids, looked) = look(&db, &mut session, &query);
            found.extend(ids);
            n_looks += 1;
            match looked.reached {
                Some(reached) => after = reached,
                None => break,
            }
        }

        assert_eq!((found, n_looks), (vec![6], 4));
    }
}

#[test]
fn a_look_that_is_full_goes_on_behind_the_last_event_that_it_took() {
    let db = TestDb::new();
    insert_types(&db, "a b a c a");
    let mut session = session(&db);
    for (takes, stretch) in [(None, 5), (None, 4), (Some(&[None, Some(1)][..]), 4)] {
        let query = ClaimQuery {
            limit: 2,
            stretch: Some(stretch),
            selection: Some(select(&[1, 0, 2], takes)),
            ..query("a")
        };
        let (first, looked) = look(&db, &mut session, &query);
        let reached = looked.reached.unwrap();
        let behind = ClaimQuery {
            after: &reached,
            ..query
        };
        let (second, _) = look(&db, &mut session, &behind);

        assert_eq!((first, second), (vec![1, 3], vec![4, 5]));
    }
}

/// Goal: events that are locked or leased count as seen: a group is not kept waiting at rows that
/// are not to be had.
#[test]
fn a_group_passes_over_rows_that_it_cannot_have() {
    let db = TestDb::new();
    insert_types(&db, "b b b b");
    let mut client = db.client();
    let mut holder = client.transaction().unwrap();
    holder
        .execute("SELECT 1 FROM outbox_event WHERE id = 2 FOR UPDATE", &[])
        .unwrap();
    let mut one = session(&db);
    claim(&mut one, "other", 1);
    let mut two = session(&db);
    let mut after = Position::FRONT;
    let mut found = Vec::new();
    for _ in 0..3 {
        let looked = two
            .look(&ClaimQuery {
                after: &after,
                stretch: Some(100),
                selection: Some(select(&[1, 2, 1], Some(&[None, Some(1)]))),
                ..query("a")
            })
            .unwrap();
        found.extend(looked.claimed.iter().flat_map(ids));
        after = looked.full.first().map_or(after, |&(_, position)| position);
    }

    assert_eq!(found, [3, 4]);
}

#[test]
fn a_missing_event_type_belongs_to_the_first_segment() {
    let db = TestDb::with_events(1);
    db.execute(
        "ALTER TABLE outbox_event ALTER event_type DROP NOT NULL; UPDATE outbox_event SET event_type = NULL",
    );
    let mut session = session(&db);
    let mut claimed = |groups: &[i32]| {
        let query = ClaimQuery {
            stretch: Some(100),
            selection: Some(select(groups, None)),
            ..query("a")
        };
        look(&db, &mut session, &query).0
    };

    assert_eq!(
        (claimed(&[0, 1, 1]), claimed(&[1, 0, 0])),
        (vec![], vec![1])
    );
}

/// Goal: the database finds the route of an event type exactly as `Routes::find` does, byte by
/// byte, whatever the patterns and types hold. Method: random lists of patterns over a small
/// alphabet, so that they contain and exclude each other, and types beside their edges; each route
/// is claimed for alone, in databases whose encodings sort characters otherwise or lack them.
#[test]
fn the_database_and_the_routes_match_event_types_alike() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for (encoding, letters) in [
        ("UTF8", ["a", "B", "_", "%", "é", "界", "/", "\u{1}", "-"]),
        ("KOI8R", ["a", "B", "_", "%", "я", "ю", "/", "\u{1}", "б"]),
        ("LATIN1", ["a", "B", "_", "%", "é", "ü", "/", "\u{1}", "ÿ"]),
    ] {
        let db = TestDb::in_encoding(encoding);
        let mut session = session(&db);
        let word = |random: &mut fastrand::Rng| -> String {
            let n = random.usize(1..4);
            let parts = (0..n).map(|_| {
                let n = random.usize(1..3);
                let letters = (0..n).map(|_| letters[random.usize(..letters.len())]);
                letters.collect::<String>()
            });
            parts.collect::<Vec<_>>().join(".")
        };
        let types: BTreeSet<String> = (0..120).map(|_| word(&mut random)).collect();
        for (place, event_type) in types.iter().enumerate() {
            let sql = "WITH added AS (INSERT INTO outbox_event (id, aggregate_type, aggregate_id, event_type, payload) \
                       VALUES ($1, 'a', '1', $2, '{}') RETURNING 1) SELECT count(*) FROM added";
            db.number(sql, &[&i64::try_from(place).unwrap(), event_type]);
        }
        for _ in 0..25 {
            let mut patterns: Vec<String> = (0..random.usize(1..8))
                .map(|_| {
                    let word = word(&mut random).replace('\u{1}', "");
                    let stem = word.trim_matches('.');
                    match random.u8(..3) {
                        _ if stem.is_empty() => "*".to_owned(),
                        0 => stem.to_owned(),
                        _ => format!("{stem}.*"),
                    }
                })
                // A character that the narrow encodings lack: nothing in them can match it.
                .chain(["a.界.*".to_owned(), "*".to_owned()])
                .collect();
            random.shuffle(&mut patterns);
            let routes = routes(&patterns);
            let segments = Segments::new(&routes);
            let bounds = session.sort_bounds(segments.bounds()).unwrap();
            let segments = Segments::sorted(bounds, &routes);
            for route in 0..routes.len() {
                let groups: Vec<i32> = segments
                    .routes()
                    .iter()
                    .map(|&of| i32::from(of == Some(route)))
                    .collect();
                let selection = Selection {
                    bounds: segments.bounds(),
                    groups: &groups,
                    takes: None,
                };
                let query = ClaimQuery {
                    limit: 900,
                    stretch: Some(1000),
                    selection: Some(selection),
                    ..query("a")
                };
                let (mut found, _) = look(&db, &mut session, &query);
                found.sort_unstable();

                let expected: Vec<i64> = (0..)
                    .zip(&types)
                    .filter(|(_, event_type)| routes.find(event_type) == Some(route))
                    .map(|(id, _)| id)
                    .collect();
                assert_eq!(
                    found, expected,
                    "{encoding}, seed {seed}, {patterns:?}, route {route}"
                );
            }
        }
    }
}

/// Routes with these patterns, all to the log.
fn routes(patterns: &[String]) -> Routes {
    let handlers = patterns
        .iter()
        .fold(Handlers::default(), |handlers, pattern| {
            handlers.on(pattern, |_: &Event| Ok(()))
        });
    Routes::new(&Config::default(), &handlers).unwrap()
}

#[test]
fn a_claim_brings_no_more_bytes_than_asked_for_but_always_one_event() {
    let db = TestDb::new();
    // Ten events of 100 KB of text, five of them stored in 1 KB, then twenty of 1 KB.
    db.execute(
        "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload)
         SELECT 'a', '1', 'a', to_jsonb(repeat('x', 100000)) FROM generate_series(1, 5);
         INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload)
         SELECT 'a', '1', 'a', to_jsonb((SELECT string_agg(md5((i * n)::text), '') FROM generate_series(1, 3125) n)) FROM generate_series(1, 5) i;
         INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload)
         SELECT 'a', '1', 'a', to_jsonb(repeat('x', 990)) FROM generate_series(1, 20)",
    );
    let mut session = session(&db);
    let mut claim_of = |bytes_max| {
        let query = ClaimQuery {
            bytes_max,
            ..query("a")
        };
        let events = session.claim(&query).unwrap().unwrap().events;
        let bytes: usize = events.iter().map(|event| event.payload.len()).sum();
        assert!(events.len() == 1 || u64::try_from(bytes).unwrap() <= bytes_max);
        events.len()
    };

    let counts = [0, 350_000, 150_000, 510_000, 5_000, u64::MAX].map(&mut claim_of);

    // Small payloads count as they are stored, a few bytes more.
    assert_eq!(counts, [1, 3, 1, 14, 4, 7]);
}

#[test]
fn numbers_and_headers_arrive_as_postgresql_prints_them() {
    let db = TestDb::new();
    db.execute(
        r#"INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, headers) VALUES
           ('a', '1', 'a', '{"n": 1e400, "d": 123456789012345678901234567890.120}', '{"trace": "x", "n": 1.50}'),
           ('a', '1', 'a', '"text"', NULL)"#,
    );

    let events = claim(&mut session(&db), "a", 10).events;

    let digits = "0".repeat(400);
    assert_eq!(
        events[0].payload,
        format!(r#"{{"d": 123456789012345678901234567890.120, "n": 1{digits}}}"#)
    );
    assert_eq!(
        events[0].headers.as_deref(),
        Some(r#"{"n": 1.50, "trace": "x"}"#)
    );
    assert_eq!(
        (events[1].payload.as_str(), &events[1].headers),
        (r#""text""#, &None)
    );
}

#[test]
fn odd_values_in_a_row_stop_nothing() {
    let db = TestDb::with_events(6);
    db.execute(
        "ALTER TABLE outbox_event ALTER attempts DROP NOT NULL, ALTER created_at DROP NOT NULL;
         ALTER TABLE outbox_event ALTER payload DROP NOT NULL, ALTER event_type DROP NOT NULL;
         UPDATE outbox_event SET attempts = -5, created_at = '-infinity' WHERE id = 1;
         UPDATE outbox_event SET attempts = 2147483647, created_at = 'infinity' WHERE id = 2;
         UPDATE outbox_event SET attempts = NULL, created_at = NULL, payload = NULL, event_type = NULL WHERE id = 3;
         UPDATE outbox_event SET created_at = '1969-12-31 23:59:59.999999+00' WHERE id = 4;
         UPDATE outbox_event SET created_at = '294276-01-01 00:00:00+00' WHERE id = 5;
         UPDATE outbox_event SET attempts = 3 WHERE id = 6",
    );

    let events = claim(&mut session(&db), "a", 10).events;

    let attempts: Vec<u32> = events.iter().map(|event| event.attempt).collect();
    assert_eq!(attempts, [1, 2_147_483_648, 1, 1, 1, 4]);
    let created = |i: usize| events[i].created_at_micros;
    assert_eq!((created(0), created(1), created(2)), (None, None, None));
    assert_eq!(created(3), Some(-1));
    // The last years that PostgreSQL knows do not fit when counted from 1970.
    assert_eq!(created(4), None);
    assert_eq!(
        (events[2].payload.as_str(), events[2].event_type.as_str()),
        ("null", "")
    );
}

#[test]
fn a_claim_needs_read_committed_and_our_sessions_see_to_it() {
    let db = TestDb::with_events(1);
    db.execute(&format!(
        "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'",
        db.name()
    ));
    let by_hand = db.client().query(
        "SELECT * FROM outbox_claim_2('a', 1, 1000, '1 minute', '-infinity', 0, null, null, null, null)",
        &[],
    );

    let claimed = claim_all(&mut session(&db), "a");

    let message = by_hand
        .unwrap_err()
        .as_db_error()
        .unwrap()
        .message()
        .to_owned();
    assert!(
        message.contains("read committed, not repeatable read"),
        "{message}"
    );
    assert_eq!(claimed, [1]);
}

#[test]
fn a_claim_on_a_database_without_the_schema_says_so() {
    let db = TestDb::new();
    db.execute("DROP FUNCTION outbox_claim_2");

    let error = session(&db).claim(&query("a")).unwrap_err();

    assert!(error.is_schema() && !error.is_transient());
    assert_eq!(error.kind(), &StoreErrorKind::Rejected("42883".to_owned()));
    let text = error.to_string();
    assert!(
        text.starts_with("could not claim events: function outbox_claim_2("),
        "{text}"
    );
}

#[test]
fn the_claim_functions_limits_hold_for_every_caller() {
    let db = TestDb::with_events(1);
    for n in ["0", "901", "NULL"] {
        let sql = format!(
            "SELECT * FROM outbox_claim_2('a', {n}, 1000, '1 minute', '-infinity', 0, null, null, null, null)"
        );
        let error = db.client().query(&sql, &[]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023", "{n}");
    }
}

/// Goal: the claim walks our index from its position on and reads no more than it takes, whatever
/// other indexes and statistics there are. Method: the predecessor's index beside ours, statistics
/// from the time when the table was empty, then the server's own count of the entries that it read.
#[test]
fn a_claim_reads_only_what_it_takes() {
    let db = TestDb::new();
    db.execute("CREATE INDEX idx_outbox_due ON outbox_event (next_run_at) WHERE status IN ('pending', 'retry'); ANALYZE outbox_event");
    db.insert_events("order.created", 5000);
    let read = |index: &str| {
        let sql = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = $1";
        db.number(sql, &[&index])
    };
    assert_eq!(read("outbox_event_due"), 0);

    for turn in 0..10 {
        // Five custom plans first, then a generic one: both have to be right.
        claim(&mut session(&db), &format!("worker {turn}"), 10);
    }
    let mut one = session(&db);
    for _ in 0..10 {
        claim(&mut one, "worker", 10);
    }
    drop(one);

    // The server counts when a session ends.
    wait_until("the reads are counted", || read("outbox_event_due") > 0);
    let most = 2 * (10 + 20 + 30 + 40 + 50 + 60 + 70 + 80 + 90 + 100) + 100 * 10 + 200;
    wait_until("all sessions are gone", || {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'test'";
        db.number(others, &[]) == 0
    });
    assert!(
        read("outbox_event_due") <= most,
        "{} > {most}",
        read("outbox_event_due")
    );
    assert_eq!(read("idx_outbox_due"), 0);
}

#[test]
fn a_lease_lasts_as_long_as_it_was_claimed_for() {
    let db = TestDb::with_events(1);
    let claim_query = ClaimQuery {
        lease: Duration::from_millis(90_500),
        ..query("a")
    };

    session(&db).claim(&claim_query).unwrap().unwrap();

    let between = "SELECT count(*) FROM outbox_lease WHERE worker = 'a' AND event_ids = '{1}' \
                   AND expires_at - clock_timestamp() BETWEEN interval '60 s' AND interval '90.5 s'";
    assert_eq!(db.number(between, &[]), 1);
}
