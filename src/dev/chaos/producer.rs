//! The producers: applications that write events all the time, some of them in transactions that
//! are rolled back, or stay open for long.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use fastrand::Rng;

use crate::dev::chaos::kind::Kind;
use crate::store::dsn::Dsn;
use crate::store::{self, Session, StoreError, Timeouts};
use crate::system::threads::{self, Thread};

/// Bounds of a producer's calls: it waits where the table is locked, and not for ever.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    query: Duration::from_secs(10),
};

/// Pause between two transactions.
const PACE: Duration = Duration::from_millis(80);

/// Events in a transaction, at most.
const EVENTS_MAX: usize = 20;

/// One transaction of so many is rolled back.
const ROLLED_BACK_OF: usize = 8;

/// Longest time that a slow producer's transaction stays open.
const OPEN_MS_MAX: u64 = 3000;

/// How often a slow event is written; each holds a runner for longer than a lease.
const SLOW_EVERY: Duration = Duration::from_secs(3);

/// How often a poison event is written; each costs three workers.
const POISON_EVERY: Duration = Duration::from_secs(12);

/// When the first poison event is written.
const POISON_FIRST: Duration = Duration::from_secs(1);

/// What a producer has written.
#[derive(Debug, Default)]
pub(super) struct Produced {
    /// Events whose commit was answered.
    pub(super) committed: Vec<i64>,
    /// Events that were written and rolled back.
    pub(super) rolled_back: Vec<i64>,
    /// Transactions that failed; their events may be in the table where the commit's answer was
    /// lost.
    pub(super) n_failed: usize,
}

/// A running producer.
pub(super) struct Producer {
    stop: Option<Sender<()>>,
    thread: Option<Thread<Produced>>,
}

impl Producer {
    /// Starts it. A slow one leaves its transactions open for a while, so that events are committed
    /// long after later ones.
    pub(super) fn start(dsn: Dsn, seed: u64, is_slow: bool) -> std::io::Result<Producer> {
        let (stop, stopped) = bounded(0);
        let name = if is_slow { "slow-producer" } else { "producer" };
        let thread = threads::start(name, move || {
            let mut work = Work {
                dsn,
                random: Rng::with_seed(seed),
                is_slow,
                stopped,
                session: None,
                produced: Produced::default(),
            };
            work.run();
            work.produced
        })?;
        Ok(Producer {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Lets it end its transaction, and returns what it has written.
    pub(super) fn stop(mut self) -> Produced {
        drop(self.stop.take());
        let thread = self.thread.take().expect("it is joined only here");
        thread.join().unwrap_or_default()
    }
}

struct Work {
    dsn: Dsn,
    random: Rng,
    is_slow: bool,
    stopped: Receiver<()>,
    session: Option<Session>,
    produced: Produced,
}

impl Work {
    fn run(&mut self) {
        let started = Instant::now();
        let (mut slow_at, mut poison_at) = (Duration::ZERO, POISON_FIRST);
        while self.stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
            let n = self.random.usize(1..=EVENTS_MAX);
            let mut kinds: Vec<Kind> = (0..n)
                .map(|_| Kind::drawn(self.random.u32(..100)))
                .collect();
            // These follow the clock and not the number of transactions, of which there are fewer
            // where the database is away.
            let now = started.elapsed();
            if !self.is_slow && now >= slow_at {
                kinds.push(Kind::Slow);
                slow_at = now + SLOW_EVERY;
            }
            if !self.is_slow && now >= poison_at {
                kinds.push(Kind::Poison);
                poison_at = now + POISON_EVERY;
            }
            let types: Vec<String> = kinds
                .into_iter()
                .map(|kind| kind.event_type().to_owned())
                .collect();
            if self.transaction(&types).is_err() {
                self.produced.n_failed += 1;
                // Closing it undoes whatever was not committed.
                self.session = None;
            }
        }
    }

    fn transaction(&mut self, types: &[String]) -> Result<(), StoreError> {
        let is_rolled_back = self.random.usize(..ROLLED_BACK_OF) == 0;
        let open = Duration::from_millis(self.random.u64(..OPEN_MS_MAX));
        let mut session = match self.session.take() {
            Some(session) => session,
            None => store::connect(&self.dsn, &TIMEOUTS, "chaos producer")?,
        };
        session.batch("begin a transaction", "begin")?;
        let sql = include_str!("../../../sql/chaos_produce.sql");
        let mut ids = session.query("write events", sql, &[&types], |row| row.try_get(0))?;
        if self.is_slow {
            // An end of the run ends the wait.
            let _ = self.stopped.recv_timeout(open);
        }
        if is_rolled_back {
            self.produced.rolled_back.append(&mut ids);
            session.batch("roll back a transaction", "rollback")?;
        } else {
            session.batch("commit a transaction", "commit")?;
            self.produced.committed.append(&mut ids);
        }
        self.session = Some(session);
        Ok(())
    }
}
