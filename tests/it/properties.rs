//! Random histories on two sessions against a model of what the table should be.
//!
//! A failure prints its smallest history; `DISPATCHBOX_TEST_SEED` chooses others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::{ClaimQuery, Session, SettleBatch, Settlement};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::TestDb;
use crate::support::session::{dead, ids, query, retry, session};

/// Histories in one run: each is some dozen statements.
const CASES: u32 = 60;

/// Something that happens. Indexes are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Insert {
        n: u32,
    },
    Claim {
        session: usize,
        limit: u16,
    },
    /// Settles some events of a lease, the last of them perhaps with its end.
    Settle {
        session: usize,
        lease: usize,
        outcomes: Vec<Kind>,
        twice: bool,
    },
    /// The lease runs out and is swept: all its events are charged.
    Sweep {
        lease: usize,
    },
    /// A person makes what is dead pending again.
    Requeue,
    ReleaseOrphans {
        session: usize,
        keep: usize,
    },
    Reconnect {
        session: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Done,
    RetryNow,
    RetryLater,
    Dead,
    Released,
    /// Still being handled: not in the batch.
    Unsettled,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        Just(Kind::Done),
        Just(Kind::RetryNow),
        Just(Kind::RetryLater),
        Just(Kind::Dead),
        Just(Kind::Released),
        Just(Kind::Unsettled),
    ];
    let session = 0..2usize;
    prop_oneof![
        2 => (1..6u32).prop_map(|n| Step::Insert { n }),
        4 => (session.clone(), 1..5u16).prop_map(|(session, limit)| Step::Claim { session, limit }),
        4 => (session.clone(), 0..8usize, prop::collection::vec(kind, 1..5), any::<bool>())
            .prop_map(|(session, lease, outcomes, twice)| Step::Settle { session, lease, outcomes, twice }),
        1 => (0..8usize).prop_map(|lease| Step::Sweep { lease }),
        1 => Just(Step::Requeue),
        1 => (session.clone(), 0..8usize).prop_map(|(session, keep)| Step::ReleaseOrphans { session, keep }),
        1 => session.prop_map(|session| Step::Reconnect { session }),
    ]
}

#[test]
fn the_table_is_what_the_model_says_after_every_step() {
    let db = TestDb::new();
    let seed: u64 = std::env::var("DISPATCHBOX_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);

    let result = TestRunner::new_with_rng(config, rng).run(
        &prop::collection::vec(step(), 1..30),
        |history| {
            let mut world = World::new(&db);
            for step in &history {
                world.take(step)?;
                prop_assert_eq!(world.table(), world.model.table(), "after {:?}", step);
                prop_assert_eq!(world.leases(), world.model.leases(), "after {:?}", step);
            }
            Ok(())
        },
    );

    result.unwrap_or_else(|err| panic!("seed {seed}: {err}"));
}

/// The database, and beside it what it should be.
struct World<'a> {
    db: &'a TestDb,
    client: postgres::Client,
    sessions: [Session; 2],
    /// Everything that was ever claimed: worker, token, ids. Lost leases stay, so that they are
    /// settled, too.
    claimed: Vec<(usize, i64, Vec<i64>)>,
    model: Model,
}

impl World<'_> {
    fn new(db: &TestDb) -> World<'_> {
        db.execute("TRUNCATE outbox_event RESTART IDENTITY");
        World {
            db,
            client: db.client(),
            sessions: [session(db), session(db)],
            claimed: Vec::new(),
            model: Model::default(),
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.model.clock += 1;
        match step {
            Step::Insert { n } => {
                self.db.insert_events("order.created", *n);
                self.model.insert(*n);
            }
            Step::Claim { session, limit } => self.claim(*session, *limit)?,
            Step::Settle {
                session,
                lease,
                outcomes,
                twice,
            } => {
                for _ in 0..=u32::from(*twice) {
                    self.settle(*session, *lease, outcomes)?;
                }
            }
            Step::Sweep { lease } => self.sweep(*lease)?,
            Step::Requeue => {
                let requeue = "UPDATE outbox_event SET status = 'pending', attempts = 0, next_run_at = now() WHERE status = 'dead'";
                self.client.batch_execute(requeue).unwrap();
                self.model.requeue();
            }
            Step::ReleaseOrphans { session, keep } => {
                let mine = self.model.tokens_of(*session);
                let in_hand: Vec<i64> = mine.get(*keep).copied().into_iter().collect();
                let released = self.sessions[*session]
                    .release_orphans(WORKERS[*session], &in_hand)
                    .unwrap();
                prop_assert_eq!(released, (mine.len() - in_hand.len()) as u64);
                self.model
                    .leases
                    .retain(|token, lease| lease.worker != *session || in_hand.contains(token));
            }
            Step::Reconnect { session } => self.sessions[*session] = self::session(self.db),
        }
        Ok(())
    }

    fn claim(&mut self, worker: usize, limit: u16) -> Result<(), TestCaseError> {
        let claim_query = ClaimQuery {
            limit,
            ..query(WORKERS[worker])
        };
        let claimed = self.sessions[worker].claim(&claim_query).unwrap();
        let got = claimed.as_ref().map(ids).unwrap_or_default();
        prop_assert_eq!(&got, &self.model.due(limit));
        if let Some(claimed) = claimed {
            for event in &claimed.events {
                prop_assert_eq!(event.attempt, self.model.events[&event.id].attempts + 1);
            }
            let lease = ModelLease {
                worker,
                named: got.iter().copied().collect(),
            };
            self.model.leases.insert(claimed.token, lease);
            self.claimed.push((worker, claimed.token, got));
        }
        Ok(())
    }

    fn settle(
        &mut self,
        session: usize,
        lease: usize,
        kinds: &[Kind],
    ) -> Result<(), TestCaseError> {
        let Some((worker, token, ids)) = self.claimed.get(lease % self.claimed.len().max(1)) else {
            return Ok(());
        };
        let (worker, token) = (*worker, *token);
        let batch: Vec<(i64, Kind)> = ids
            .iter()
            .copied()
            .zip(kinds.iter().copied().cycle())
            .collect();
        let is_end = batch.iter().all(|(_, kind)| *kind != Kind::Unsettled);
        let outcomes: Vec<Settlement> = batch
            .iter()
            .filter_map(|&(event_id, kind)| {
                Some(Settlement {
                    token,
                    event_id,
                    outcome: kind.outcome()?,
                })
            })
            .collect();
        let ended = if is_end { vec![token] } else { vec![] };
        self.send(session, worker, &outcomes, &ended, false)?;
        Ok(())
    }

    fn sweep(&mut self, lease: usize) -> Result<(), TestCaseError> {
        let tokens: Vec<i64> = self.model.leases.keys().copied().collect();
        let Some(&token) = tokens.get(lease % tokens.len().max(1)) else {
            return Ok(());
        };
        let expire = "UPDATE outbox_lease SET expires_at = '-infinity' WHERE token = $1";
        self.client.execute(expire, &[&token]).unwrap();
        let over = self.sessions[0].expired_leases(10).unwrap();
        prop_assert_eq!(over.len(), 1);
        let outcomes: Vec<Settlement> = over[0]
            .event_ids
            .iter()
            .map(|&event_id| Settlement {
                token,
                event_id,
                outcome: retry(Duration::ZERO),
            })
            .collect();
        let worker = self.model.leases[&token].worker;
        self.send(0, worker, &outcomes, &[token], true)
    }

    fn send(
        &mut self,
        session: usize,
        worker: usize,
        outcomes: &[Settlement],
        ended: &[i64],
        expired: bool,
    ) -> Result<(), TestCaseError> {
        let batch = SettleBatch {
            worker: WORKERS[worker],
            outcomes,
            ended,
            expired,
        };
        let written: BTreeMap<i64, bool> = self.sessions[session]
            .settle(&batch)
            .unwrap()
            .iter()
            .map(|one| (one.event_id, one.written))
            .collect();
        prop_assert_eq!(written, self.model.settle(outcomes, ended));
        Ok(())
    }

    fn table(&mut self) -> Vec<(i64, String, u32)> {
        let sql = "SELECT id, status, attempts FROM outbox_event ORDER BY id";
        let rows = self.client.query(sql, &[]).unwrap();
        rows.iter()
            .map(|row| {
                (
                    row.get(0),
                    row.get(1),
                    row.get::<_, i32>(2).try_into().unwrap(),
                )
            })
            .collect()
    }

    fn leases(&mut self) -> BTreeMap<i64, BTreeSet<i64>> {
        let rows = self
            .client
            .query("SELECT token, event_ids FROM outbox_lease", &[])
            .unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get::<_, Vec<i64>>(1).into_iter().collect()))
            .collect()
    }
}

/// One worker a session claims for; either session may settle for either.
const WORKERS: [&str; 2] = ["a", "b"];

impl Kind {
    fn outcome(self) -> Option<Outcome> {
        match self {
            Kind::Done => Some(Outcome::Done),
            Kind::RetryNow => Some(retry(Duration::ZERO)),
            Kind::RetryLater => Some(retry(Duration::from_hours(1))),
            Kind::Dead => Some(dead()),
            Kind::Released => Some(Outcome::Released),
            Kind::Unsettled => None,
        }
    }
}

/// What the table should be. Time is the number of the step.
#[derive(Default)]
struct Model {
    clock: u64,
    events: BTreeMap<i64, ModelEvent>,
    leases: BTreeMap<i64, ModelLease>,
}

struct ModelEvent {
    status: &'static str,
    attempts: u32,
    /// `None`: not within the history.
    due_at: Option<u64>,
}

struct ModelLease {
    worker: usize,
    named: BTreeSet<i64>,
}

impl Model {
    fn insert(&mut self, n: u32) {
        for _ in 0..n {
            let id = i64::try_from(self.events.len()).unwrap() + 1;
            let event = ModelEvent {
                status: "pending",
                attempts: 0,
                due_at: Some(self.clock),
            };
            self.events.insert(id, event);
        }
    }

    fn due(&self, limit: u16) -> Vec<i64> {
        let mut due: Vec<(u64, i64)> = self
            .events
            .iter()
            .filter(|(_, event)| event.is_open())
            .filter(|(id, _)| !self.leases.values().any(|lease| lease.named.contains(id)))
            .filter_map(|(&id, event)| Some((event.due_at?, id)))
            .collect();
        due.sort_unstable();
        due.into_iter()
            .map(|(_, id)| id)
            .take(usize::from(limit))
            .collect()
    }

    fn settle(&mut self, outcomes: &[Settlement], ended: &[i64]) -> BTreeMap<i64, bool> {
        let mut answer = BTreeMap::new();
        for one in outcomes {
            let Some(lease) = self.leases.get_mut(&one.token) else {
                continue;
            };
            if !lease.named.contains(&one.event_id) {
                continue;
            }
            if one.outcome != Outcome::Done {
                lease.named.remove(&one.event_id);
            }
            let event = self.events.get_mut(&one.event_id).unwrap();
            let is_written = one.outcome == Outcome::Released || event.is_open();
            if event.is_open() {
                event.settle(&one.outcome, self.clock);
            }
            answer.insert(one.event_id, is_written);
        }
        self.leases.retain(|token, _| !ended.contains(token));
        answer
    }

    fn requeue(&mut self) {
        for event in self
            .events
            .values_mut()
            .filter(|event| event.status == "dead")
        {
            *event = ModelEvent {
                status: "pending",
                attempts: 0,
                due_at: Some(self.clock),
            };
        }
    }

    fn tokens_of(&self, worker: usize) -> Vec<i64> {
        let mine = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.worker == worker);
        mine.map(|(&token, _)| token).collect()
    }

    fn table(&self) -> Vec<(i64, String, u32)> {
        let rows = self.events.iter();
        rows.map(|(&id, event)| (id, event.status.to_owned(), event.attempts))
            .collect()
    }

    fn leases(&self) -> BTreeMap<i64, BTreeSet<i64>> {
        let leases = self.leases.iter();
        leases
            .map(|(&token, lease)| (token, lease.named.clone()))
            .collect()
    }
}

impl ModelEvent {
    fn is_open(&self) -> bool {
        matches!(self.status, "pending" | "retry")
    }

    fn settle(&mut self, outcome: &Outcome, clock: u64) {
        if *outcome != Outcome::Released {
            self.status = outcome.name();
            self.attempts += 1;
        }
        if let Outcome::Retry { delay, .. } = outcome {
            self.due_at = delay.is_zero().then_some(clock);
        }
    }
}
