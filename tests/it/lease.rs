//! Leases: renewing, listing, releasing orphaned leases, and that ids counted anew meet no old
//! lease.

use std::time::Duration;

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::EventBrief;
use dispatchbox::store::schema::SCHEMA;

use crate::support::session::{claim, claim_all, ids, session, settle, settle_and_end};
use crate::support::{TestDb, wait_until};

#[test]
fn a_renewed_lease_is_no_longer_over() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    let mine = claim(&mut session, "a", 1).token;
    let others = claim(&mut session, "b", 1).token;
    db.expire_leases();
    assert_eq!(session.expired_leases(10).unwrap().len(), 2);

    let renewed = session
        .renew("a", &[mine, others, 1], Duration::from_mins(1))
        .unwrap();

    assert_eq!(renewed, [mine]);
    let over = session.expired_leases(10).unwrap();
    let over: Vec<_> = over
        .iter()
        .map(|lease| (lease.token, lease.worker.as_str()))
        .collect();
    assert_eq!(over, [(others, "b")]);
}

#[test]
fn renewal_does_not_wait_for_a_lease_that_is_being_settled() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    let tokens = [
        claim(&mut session, "a", 1).token,
        claim(&mut session, "a", 1).token,
    ];
    let mut client = db.client();
    let mut settler = client.transaction().unwrap();
    settler
        .execute(
            "SELECT 1 FROM outbox_lease WHERE token = $1 FOR UPDATE",
            &[&tokens[0]],
        )
        .unwrap();

    let meanwhile = session.renew("a", &tokens, Duration::from_mins(1)).unwrap();
    settler.rollback().unwrap();
    let afterwards = session.renew("a", &tokens, Duration::from_mins(1)).unwrap();

    assert_eq!((meanwhile, afterwards.len()), (vec![tokens[1]], 2));
}

#[test]
fn a_lease_is_listed_with_what_it_still_names() {
    let db = TestDb::with_events(4);
    let (mut one, mut two) = (session(&db), session(&db));
    let token = claim(&mut one, "a", 3).token;
    claim(&mut one, "b", 1);
    settle(&mut one, "a", token, &[2], &Outcome::Released);
    settle(&mut one, "a", token, &[1], &Outcome::Done);

    let leases = two.leases_of("a").unwrap();

    assert_eq!(leases.len(), 1);
    let mut named = leases[0].event_ids.clone();
    named.sort_unstable();
    // A done event stays named: its status fences it.
    assert_eq!((leases[0].token, named), (token, vec![1, 3]));
    assert!(leases[0].expires_at_micros.is_some());
    db.expire_leases();
    assert_eq!(two.leases_of("a").unwrap()[0].expires_at_micros, None);
}

#[test]
fn expired_leases_come_oldest_first_and_limited() {
    let db = TestDb::with_events(3);
    let mut session = session(&db);
    let tokens = [0; 3].map(|_| claim(&mut session, "a", 1).token);
    db.execute(&format!(
        "UPDATE outbox_lease SET expires_at = now() - token % 2 * interval '1 hour' - interval '1 s' WHERE token <> {}",
        tokens[2]
    ));

    let all: Vec<i64> = session
        .expired_leases(10)
        .unwrap()
        .iter()
        .map(|l| l.token)
        .collect();
    let first = session.expired_leases(1).unwrap();

    let mut expected = tokens[..2].to_vec();
    expected.sort_by_key(|token| (-(token % 2), *token));
    assert_eq!(all, expected);
    assert_eq!(first[0].token, all[0]);
}

#[test]
fn orphaned_leases_are_those_of_this_worker_that_are_not_in_hand() {
    let db = TestDb::with_events(4);
    let (mut one, mut two) = (session(&db), session(&db));
    let in_hand = claim(&mut one, "a", 1).token;
    claim(&mut one, "a", 1);
    claim(&mut one, "a", 1);
    claim(&mut one, "b", 1);
    assert_eq!(claim_all(&mut two, "c"), [0i64; 0]);

    let released = one.release_orphans("a", &[in_hand]).unwrap();
    let again = one.release_orphans("a", &[in_hand]).unwrap();

    assert_eq!((released, again), (2, 0));
    let claimed = claim(&mut two, "c", 10);
    let attempts: Vec<u32> = claimed.events.iter().map(|event| event.attempt).collect();
    assert_eq!((ids(&claimed), attempts), (vec![2, 3], vec![1, 1]));
}

/// Goal: a claim that commits after the worker has given it up is found all the same. Method: the
/// claim runs in a transaction of another connection, begun before and committed after the worker's
/// session has looked at the leases.
#[test]
fn a_claim_that_commits_late_is_found_as_an_orphan() {
    let db = TestDb::with_events(1);
    let mut session = session(&db);
    let mut client = db.client();
    let mut late = client.transaction().unwrap();
    late.execute(
        "SELECT outbox_claim_2('a', 1, 1000, '1 minute', '-infinity', 0, null, null, null, null)",
        &[],
    )
    .unwrap();
    assert_eq!(session.release_orphans("a", &[]).unwrap(), 0);
    // Others go on meanwhile, so that the late token is far below the newest one.
    for n in 0..3 {
        db.insert_events("order.created", 1);
        claim(&mut session, &format!("other {n}"), 1);
    }
    assert_eq!(session.release_orphans("a", &[]).unwrap(), 0);

    late.commit().unwrap();

    assert_eq!(session.release_orphans("a", &[]).unwrap(), 1);
    assert_eq!(claim_all(&mut session, "a"), [1]);
}

#[test]
fn a_sweep_learns_what_it_has_to_know() {
    let db = TestDb::with_events(2);
    db.execute("UPDATE outbox_event SET attempts = -3 WHERE id = 1");

    let briefs = session(&db).events_brief(&[1, 2, 3]).unwrap();

    let brief = |event_id| EventBrief {
        event_id,
        event_type: "order.created".to_owned(),
        attempts: 0,
        status: "pending".to_owned(),
    };
    assert_eq!(briefs, [brief(1), brief(2)]);
}

/// Goal: a new event never meets the lease of an old one with the same id. Method: the table is
/// truncated under a lease, from a session whose search_path knows nothing of it.
#[test]
fn ids_counted_anew_meet_no_old_lease() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    let old = claim(&mut session, "a", 10).token;

    db.execute("SET search_path = pg_catalog; TRUNCATE public.outbox_event RESTART IDENTITY");
    db.insert_events("order.created", 1);

    assert_eq!(db.leases(), 0);
    let late = settle_and_end(&mut session, "a", old, &[1], &Outcome::Done, &[old]);
    assert_eq!((late, db.count("pending")), (vec![], 1));
    assert_eq!(claim_all(&mut session, "b"), [1]);
}

#[test]
fn a_session_tells_two_schemas_apart() {
    let db = TestDb::with_events(1);
    let mut client = db.client();

    client
        .batch_execute(&format!(
            "CREATE SCHEMA other; SET search_path = other; {SCHEMA}"
        ))
        .unwrap();
    let insert = "INSERT INTO other.outbox_event (aggregate_type, aggregate_id, event_type, payload) VALUES ('b', '1', 'b', '{}')";
    client.batch_execute(insert).unwrap();
    let mut claim_in = |schema: &str| {
        let sql = format!(
            "SELECT count(token), min(aggregate_type) FROM {schema}.outbox_claim_2('a', 10, 1000, '1 minute', '-infinity', 0, null, null, null, null)"
        );
        let row = client.query_one(&sql, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, Option<String>>(1))
    };

    let first = ["public", "other"].map(&mut claim_in);
    let again = ["other", "public", "other"].map(&mut claim_in);

    let found = |name: &str| (1, Some(name.to_owned()));
    assert_eq!(first, [found("order"), found("b")]);
    assert_eq!(again, [(0, None), (0, None), (0, None)]);
}

/// Goal: a long transaction somewhere, which keeps vacuum from every dead lease row, does not make
/// claims read more and more of them. Method: such a transaction, then claims and settles in one
/// session, and the server's own count of the index entries that it read.
#[test]
fn leases_that_are_gone_are_not_read_again_while_vacuum_is_held_back() {
    let turns = 150;
    let read = |schema: &str| {
        let db = TestDb::with_events(turns);
        db.execute(schema);
        let mut client = db.client();
        let mut long = client
            .build_transaction()
            .isolation_level(postgres::IsolationLevel::RepeatableRead)
            .start()
            .unwrap();
        long.execute("SELECT 1 FROM outbox_event", &[]).unwrap();
        let mut session = session(&db);
        for _ in 0..turns {
            let claimed = claim(&mut session, "a", 1);
            settle_and_end(
                &mut session,
                "a",
                claimed.token,
                &ids(&claimed),
                &Outcome::Done,
                &[claimed.token],
            );
        }
        drop(session);
        let sql = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_lease_pkey'";
        wait_until("the reads are counted", || {
            db.number(sql, &[]) >= i64::from(turns)
        });
        db.number(sql, &[])
    };
    let forgetful = SCHEMA.replace("upto := memory[2];", "null;");
    assert_ne!(forgetful, SCHEMA);

    let (with_memory, without) = (read(SCHEMA), read(&forgetful));

    let turns = i64::from(turns);
    assert!(with_memory < 10 * turns, "{with_memory}");
    assert!(without > turns * turns / 2, "{without}");
}
