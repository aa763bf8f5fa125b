//! Fencing: only the holder of a lease writes, and writes once.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::schema::SCHEMA;
use dispatchbox::store::{EventState, Session, SettleBatch, Written};

use crate::support::TestDb;
use crate::support::session::{
    claim, claim_all, dead, ids, named_only, retry, session, settle, settlements, table, written,
};

#[test]
fn a_lost_lease_never_overwrites_the_other_workers_result() {
    let db = TestDb::with_events(2);
    let (mut zombie, mut other) = (session(&db), session(&db));
    let lost = claim(&mut zombie, "a", 10);
    // The sweep of the expired lease charges event 1, which another worker then claims and
    // finishes.
    db.expire_leases();
    let outcomes = settlements(lost.token, &[1, 2], &retry(Duration::ZERO));
    let sweep = SettleBatch {
        worker: "a",
        outcomes: &outcomes,
        ended: &[lost.token],
        expired: true,
    };
    assert_eq!(other.settle(&sweep).unwrap().len(), 2);
    let taken = claim(&mut other, "b", 1);
    settle(&mut other, "b", taken.token, &ids(&taken), &Outcome::Done);
    let before = table(&db);

    for token in [lost.token, taken.token] {
        let late = settle(&mut zombie, "a", token, &[1, 2], &dead());
        assert_eq!(late, [], "token {token}");
    }

    assert_eq!(table(&db), before);
    assert_eq!(db.leases(), 1);
}

#[test]
fn only_events_that_the_lease_names_are_written() {
    let db = TestDb::with_events(2);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 1).token;

    let settled = settle(&mut session, "a", token, &[1, 2], &Outcome::Done);

    assert_eq!(settled, written(&[1]));
    assert_eq!(table(&db), ["1 done 1 finished", "2 pending 0"]);
}

#[test]
fn an_expired_lease_still_settles_as_long_as_nobody_has_swept_it() {
    let db = TestDb::with_events(1);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 1).token;
    db.expire_leases();

    let settled = settle(&mut session, "a", token, &[1], &Outcome::Done);

    assert_eq!(settled, written(&[1]));
    assert_eq!(db.count("done"), 1);
}

#[test]
fn a_batch_sent_twice_is_written_once() {
    let db = TestDb::with_events(4);
    let mut session = session(&db);
    let token = claim(&mut session, "a", 10).token;
    // Event 4 is still being handled, so the lease stays.
    let mut outcomes = settlements(token, &[1], &Outcome::Done);
    outcomes.extend(settlements(token, &[2], &retry(Duration::ZERO)));
    outcomes.extend(settlements(token, &[3], &Outcome::Released));
    let batch = SettleBatch {
        worker: "a",
        outcomes: &outcomes,
        ended: &[],
        expired: false,
    };

    assert_eq!(session.settle(&batch).unwrap().len(), 3);
    let first = table(&db);
    let again = session.settle(&batch).unwrap();
    let states = session.read_back(&[1, 2, 3, 99]).unwrap();

    assert_eq!(again, named_only(&[1]));
    assert_eq!(table(&db), first);
    let state = |event_id, status: &str, attempts| EventState {
        event_id,
        status: status.to_owned(),
        attempts,
    };
    assert_eq!(
        states,
        [
            state(1, "done", 1),
            state(2, "retry", 1),
            state(3, "pending", 0)
        ]
    );
}

/// Goal: an answer that never came is no reason to touch what somebody else has since. Method: the
/// lease still names event 3, so it stands when the batch comes again, after another worker has
/// claimed the events that the first time gave back.
#[test]
fn a_batch_sent_twice_leaves_alone_what_another_worker_has_claimed_since() {
    let db = TestDb::with_events(3);
    let (mut one, mut two) = (session(&db), session(&db));
    let token = claim(&mut one, "a", 10).token;
    let mut outcomes = settlements(token, &[1], &retry(Duration::ZERO));
    outcomes.extend(settlements(token, &[2], &Outcome::Released));
    let batch = SettleBatch {
        worker: "a",
        outcomes: &outcomes,
        ended: &[],
        expired: false,
    };
    one.settle(&batch).unwrap();
    assert_eq!(claim_all(&mut two, "b"), [2, 1]);
    let before = table(&db);

    let again = one.settle(&batch).unwrap();

    assert_eq!(again, []);
    assert_eq!(table(&db), before);
    assert_eq!(claim_all(&mut two, "c"), [0i64; 0]);
}

#[test]
fn a_sweep_ends_only_what_is_over() {
    let db = TestDb::with_events(1);
    let (mut worker, mut sweeper) = (session(&db), session(&db));
    let token = claim(&mut worker, "a", 1).token;
    let outcomes = settlements(token, &[1], &retry(Duration::from_hours(1)));
    let sweep = SettleBatch {
        worker: "a",
        outcomes: &outcomes,
        ended: &[token],
        expired: true,
    };

    let early = sweeper.settle(&sweep).unwrap();
    assert_eq!((early, db.leases()), (vec![], 1));
    db.expire_leases();
    let late = sweeper.settle(&sweep).unwrap();

    assert_eq!((late, db.leases()), (written(&[1]), 0));
    let after = settle(&mut worker, "a", token, &[1], &Outcome::Done);
    assert_eq!(after, []);
    assert!(table(&db)[0].starts_with("1 retry 1 "));
}

/// Goal: the laws above can fail. Method: each is broken by the function without the protection
/// that it is about.
/// Goal: of a sweep and a late outcome that come at the same moment one is written, and the attempt
/// is charged once. Method: both wait at a barrier, for one event after the other.
#[test]
fn of_a_sweep_and_a_late_outcome_at_the_same_moment_one_is_written() {
    let db = TestDb::new();
    let (mut worker, mut sweeper) = (session(&db), session(&db));
    let mut n_swept = 0;
    for _ in 0..40 {
        let id = db.insert_events("order.created", 1)[0];
        let token = claim(&mut worker, "a", 1).token;
        db.expire_leases();
        let outcomes = settlements(token, &[id], &retry(Duration::from_hours(1)));
        let sweep = SettleBatch {
            worker: "a",
            outcomes: &outcomes,
            ended: &[token],
            expired: true,
        };

        let barrier = Barrier::new(2);
        let (late, swept) = thread::scope(|scope| {
            let sweeping = scope.spawn(|| {
                barrier.wait();
                sweeper.settle(&sweep).unwrap()
            });
            barrier.wait();
            let late = settle(&mut worker, "a", token, &[id], &Outcome::Done);
            (late, sweeping.join().unwrap())
        });

        let n_written = |all: &[Written]| all.iter().filter(|one| one.written).count();
        assert_eq!(n_written(&late) + n_written(&swept), 1, "event {id}");
        n_swept += i64::try_from(n_written(&swept)).unwrap();
        assert_eq!(db.leases(), 0, "event {id}");
    }

    assert_eq!(db.count_where("attempts <> 1"), 0);
    assert_eq!(
        (db.count("retry"), db.count("done")),
        (n_swept, 40 - n_swept)
    );
}

#[test]
fn each_protection_of_the_settle_function_matters() {
    let done_twice = |session: &mut Session, token| {
        settle(session, "a", token, &[1], &Outcome::Done);
        settle(session, "a", token, &[1], &Outcome::Done);
    };
    check_mutant(
        "join named n on n.token = u.token and n.id = u.id",
        "join held_leases n on n.token = u.token",
        |session, token| drop(settle(session, "a", token, &[2], &Outcome::Done)),
    );
    check_mutant(
        "token = any (tokens || ended) and worker = outbox_settle_1.worker",
        "token = any (tokens || ended)",
        |session, token| drop(settle(session, "b", token, &[1], &Outcome::Done)),
    );
    check_mutant(
        " and e.status || '' in ('pending', 'retry')\n    returning",
        "\n    returning",
        done_twice,
    );
    check_mutant(
        "  if cut <> '{}' then",
        "  if false then",
        |session, token| {
            settle(session, "a", token, &[1], &retry(Duration::ZERO));
            settle(session, "a", token, &[1], &retry(Duration::ZERO));
        },
    );
    check_mutant(
        " and (not expired or expires_at < clock_timestamp())",
        "",
        |session, token| {
            let outcomes = settlements(token, &[1], &Outcome::Done);
            let batch = SettleBatch {
                worker: "a",
                outcomes: &outcomes,
                ended: &[],
                expired: true,
            };
            session.settle(&batch).unwrap();
        },
    );
}

/// Does the same to two databases, one with the function as it is and one without the protection,
/// where event 1 is claimed by `a` and event 2 by nobody; they must end differently.
#[track_caller]
fn check_mutant(protection: &str, instead: &str, act: impl Fn(&mut Session, i64)) {
    let mutated = SCHEMA.replace(protection, instead);
    assert_ne!(
        mutated, SCHEMA,
        "`{protection}` is not in the schema any more"
    );
    let ends = [SCHEMA, &mutated].map(|schema| {
        let db = TestDb::with_events(2);
        db.execute(schema);
        let mut session = session(&db);
        let token = claim(&mut session, "a", 1).token;
        act(&mut session, token);
        table(&db)
    });
    assert_ne!(
        ends[0], ends[1],
        "`{protection}` protects from nothing here"
    );
}
