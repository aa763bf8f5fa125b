//! Sixteen sessions race on one table: no event is ever in two live leases, and attempts are exact.
//!
//! Each protection of the claim and the settle stands here with its mutant, the same function
//! without it, on which the race must find what the protection is there for. A race that cannot
//! fail proves nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::schema::SCHEMA;
use dispatchbox::store::{ClaimQuery, ClaimedEvents, Session, SettleBatch, Settlement};

use crate::support::TestDb;
use crate::support::session::{query, session};

const SESSIONS: u64 = 16;

/// Few enough that all sessions meet on the same rows.
const EVENTS: u32 = 600;

/// Claims of each session.
const TURNS: u32 = 60;

/// How long a mutant is given to show itself.
const MUTANT_MAX: Duration = Duration::from_secs(20);

#[test]
fn no_event_is_ever_in_two_live_leases() {
    let db = TestDb::with_events(EVENTS);

    let race = Race::run(&db, 1);

    assert!(!race.is_lost());
    race.assert_attempts_are_exact(&db);
}

#[test]
fn without_a_fresh_snapshot_after_the_locks_the_race_is_lost() {
    check_mutant(
        "    ids := array(select id from unnest(ids) id where id not in (select unnest(event_ids) from outbox_leases_1()));\n",
        "",
    );
}

#[test]
fn without_the_transactions_in_progress_the_race_is_lost() {
    check_mutant(" || array(select txid_snapshot_xip(snapshot))", "");
}

#[test]
fn without_its_own_transaction_in_mind_the_race_is_lost() {
    check_mutant(
        "    open := open || txid_current_if_assigned();\n",
        "    null;\n",
    );
}

#[test]
fn without_the_leases_remembered_as_open_the_race_is_lost() {
    check_mutant(
        "open := array(select token from unnest(standing)) ||",
        "open :=",
    );
}

/// Shows that the race finds double claims when a protection is taken out.
#[track_caller]
fn check_mutant(protection: &str, instead: &str) {
    let mutated = SCHEMA.replace(protection, instead);
    assert_ne!(
        mutated, SCHEMA,
        "the protection is not in the schema any more"
    );
    let db = TestDb::new();
    db.execute(&mutated);

    let since = Instant::now();
    for seed in 1.. {
        db.execute("TRUNCATE outbox_event RESTART IDENTITY");
        db.insert_events("order.created", EVENTS);
        if Race::run(&db, seed).is_lost() {
            return;
        }
        assert!(since.elapsed() < MUTANT_MAX, "the mutant was not found out");
    }
}

/// What the racing sessions hold, as they themselves believe.
struct Race {
    holders: Mutex<HashMap<i64, i64>>,
    /// Runs that were settled as such, per event.
    attempts: Mutex<HashMap<i64, u32>>,
    double_claims: AtomicU64,
}

impl Race {
    fn run(db: &TestDb, seed: u64) -> Race {
        let race = Race {
            holders: Mutex::default(),
            attempts: Mutex::default(),
            double_claims: AtomicU64::new(0),
        };
        let start = Barrier::new(usize::try_from(SESSIONS).unwrap());
        // Before any thread waits at the barrier: one that cannot connect would leave the others
        // there for ever.
        let sessions: Vec<Session> = (0..SESSIONS).map(|_| session(db)).collect();
        std::thread::scope(|scope| {
            for (n, session) in (0..).zip(sessions) {
                let (race, start) = (&race, &start);
                scope.spawn(move || {
                    let mut racer = Racer {
                        race,
                        session,
                        worker: format!("worker {n}"),
                        held: Vec::new(),
                        random: Random(seed * 1000 + n),
                    };
                    start.wait();
                    for _ in 0..TURNS {
                        if !race.is_lost() {
                            racer.turn(db);
                        }
                    }
                });
            }
        });
        race
    }

    fn is_lost(&self) -> bool {
        self.double_claims.load(Ordering::Relaxed) > 0
    }

    fn take(&self, claimed: &ClaimedEvents) {
        let mut holders = self.holders.lock().unwrap();
        for event in &claimed.events {
            if holders.insert(event.id, claimed.token).is_some() {
                self.double_claims.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Forgets who holds events, before the call that gives them up: from its commit on they may be
    /// somebody else's.
    fn give_up(&self, outcomes: &[Settlement]) {
        let mut holders = self.holders.lock().unwrap();
        for one in outcomes {
            if holders.get(&one.event_id) == Some(&one.token) {
                holders.remove(&one.event_id);
            }
        }
    }

    fn count_attempts(&self, outcomes: &[Settlement]) {
        let mut attempts = self.attempts.lock().unwrap();
        for one in outcomes {
            if one.outcome != Outcome::Released {
                *attempts.entry(one.event_id).or_default() += 1;
            }
        }
    }

    fn assert_attempts_are_exact(&self, db: &TestDb) {
        let rows = db
            .client()
            .query("SELECT id, attempts FROM outbox_event", &[])
            .unwrap();
        let attempts = self.attempts.lock().unwrap();
        assert!(
            attempts.len() > 100,
            "only {} events settled",
            attempts.len()
        );
        for row in rows {
            let id: i64 = row.get(0);
            let expected = attempts.get(&id).copied().unwrap_or_default();
            assert_eq!(
                u32::try_from(row.get::<_, i32>(1)).unwrap(),
                expected,
                "event {id}"
            );
        }
    }
}

/// One session, and the leases that it holds.
struct Racer<'a> {
    race: &'a Race,
    session: Session,
    worker: String,
    held: Vec<ClaimedEvents>,
    random: Random,
}

impl Racer<'_> {
    /// Claims, then does one of the things that workers do with their leases.
    fn turn(&mut self, db: &TestDb) {
        let claim = ClaimQuery {
            limit: u16::try_from(1 + self.random.below(60)).unwrap(),
            ..query(&self.worker)
        };
        if let Some(claimed) = self.session.claim(&claim).unwrap() {
            self.race.take(&claimed);
            self.held.push(claimed);
        }
        match self.random.below(10) {
            // Goes on claiming with what it has.
            0..3 => {}
            3..6 => self.settle_all(),
            6..8 => self.settle_some(),
            // Another session: it knows nothing of what this one has seen.
            8 => self.session = session(db),
            _ => self.renew(),
        }
        if self.held.len() > 3 {
            self.settle_all();
        }
    }

    fn settle_all(&mut self) {
        let held = std::mem::take(&mut self.held);
        let tokens: Vec<i64> = held.iter().map(|claimed| claimed.token).collect();
        let outcomes = held
            .iter()
            .flat_map(|claimed| claimed.events.iter().map(|event| (claimed.token, event.id)))
            .map(|(token, event_id)| self.outcome(token, event_id))
            .collect();
        self.settle(outcomes, &tokens);
    }

    /// Settles the first half of a lease; the other half stays named.
    fn settle_some(&mut self) {
        let Some(mut claimed) = self.held.pop() else {
            return;
        };
        let rest = claimed.events.split_off(claimed.events.len() / 2);
        let outcomes = claimed
            .events
            .iter()
            .map(|event| self.outcome(claimed.token, event.id))
            .collect();
        self.settle(outcomes, &[]);
        claimed.events = rest;
        self.held.push(claimed);
    }

    fn settle(&mut self, outcomes: Vec<Settlement>, ended: &[i64]) {
        self.race.give_up(&outcomes);
        let batch = SettleBatch {
            worker: &self.worker,
            outcomes: &outcomes,
            ended,
            expired: false,
        };
        match self.session.settle(&batch) {
            Ok(_) => self.race.count_attempts(&outcomes),
            // Two holders of one event lock it in different orders; that nothing else leads to a
            // deadlock is part of the law.
            Err(err) => assert!(self.race.is_lost(), "{err}"),
        }
    }

    fn renew(&mut self) {
        let tokens: Vec<i64> = self.held.iter().map(|claimed| claimed.token).collect();
        let lease = Duration::from_mins(1);
        let renewed = self.session.renew(&self.worker, &tokens, lease).unwrap();
        assert!(renewed.len() == tokens.len() || self.race.is_lost());
    }

    /// Mostly such that the event comes again: then it can be claimed twice.
    fn outcome(&mut self, token: i64, event_id: i64) -> Settlement {
        let outcome = match self.random.below(20) {
            0 => Outcome::Done,
            1..8 => Outcome::Retry {
                delay: Duration::ZERO,
                reason: "again".to_owned(),
            },
            _ => Outcome::Released,
        };
        Settlement {
            token,
            event_id,
            outcome,
        }
    }
}

/// A small generator (splitmix64), so that a race can be told apart by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
