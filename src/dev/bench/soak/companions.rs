//! What goes on beside the daemon during a soak: producers, a reader that holds its snapshot, and
//! the retention. Each is a thread with a connection of its own, until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::dev::bench::BenchError;
use crate::dev::bench::environment::Environment;
use crate::dev::bench::soak::handler::{ORDER, POISON};
use crate::store::{Session, StoreError};
use crate::system::threads::{self, Thread};

/// Producers that insert at the same time: so many that a commit may take 30 ms at 5,000 events a
/// second, on a slow disk or a busy machine.
const PRODUCERS: u16 = 16;

/// Events that a producer inserts in one transaction: those of one step of an application.
const EVENTS_PER_TRANSACTION: u32 = 10;

/// Pause between two poison events.
const POISON_EVERY: Duration = Duration::from_secs(1);

/// Threads that do the same thing until they are stopped.
pub(super) struct Companions<T> {
    /// Nothing is sent: its end tells the threads to stop.
    running: Sender<()>,
    threads: Vec<Thread<Result<T, StoreError>>>,
}

impl<T: Send + 'static> Companions<T> {
    fn start(
        environment: &Environment,
        names: &[String],
        work: impl Fn(u16, Session, &Receiver<()>) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<Companions<T>, BenchError> {
        let (running, stopped) = bounded(0);
        let mut threads = Vec::new();
        for (n, name) in (0..).zip(names) {
            let session = environment.connect()?;
            let (work, stopped) = (work.clone(), stopped.clone());
            let thread = threads::start(name, move || work(n, session, &stopped));
            threads.push(thread.map_err(|source| BenchError::Start {
                what: "a thread",
                source,
            })?);
        }
        Ok(Companions { running, threads })
    }

    /// Says whether one of the threads has ended by itself, which only a failure makes it do.
    pub(super) fn have_failed(&self) -> bool {
        self.threads.iter().any(Thread::has_ended)
    }

    /// Stops the threads and waits for them.
    pub(super) fn stop(self) -> Result<Vec<T>, BenchError> {
        drop(self.running);
        self.threads
            .into_iter()
            .map(|thread| {
                let result = thread
                    .join()
                    .map_err(|_| BenchError::Ended("a thread panicked".to_owned()))?;
                Ok(result?)
            })
            .collect()
    }
}

/// Waits, and says whether the thread is to go on.
fn goes_on(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
}

/// Starts producers that commit `rate` events a second together, and beside these a poison event
/// each second. `committed` counts all of them.
///
/// A producer that is behind, because a commit took long, makes up for it.
pub(super) fn start_producers(
    environment: &Environment,
    rate: u32,
    committed: &Arc<AtomicU64>,
) -> Result<Companions<()>, BenchError> {
    let names: Vec<String> = (0..PRODUCERS).map(|n| format!("producer-{n}")).collect();
    let committed = Arc::clone(committed);
    Companions::start(environment, &names, move |n, session, stopped| {
        Producer {
            session,
            rate: f64::from(rate) / f64::from(PRODUCERS),
            committed: Arc::clone(&committed),
            poisons: n == 0,
        }
        .run(stopped)
    })
}

struct Producer {
    session: Session,
    /// Events a second.
    rate: f64,
    committed: Arc<AtomicU64>,
    /// Whether it inserts the poison events.
    poisons: bool,
}

impl Producer {
    fn run(mut self, stopped: &Receiver<()>) -> Result<(), StoreError> {
        let since = Instant::now();
        let pause = Duration::from_secs_f64(f64::from(EVENTS_PER_TRANSACTION) / self.rate);
        let (mut due, mut poison_due) = (Duration::ZERO, Duration::ZERO);
        while goes_on(stopped, due.saturating_sub(since.elapsed())) {
            self.insert(EVENTS_PER_TRANSACTION, ORDER)?;
            if self.poisons && poison_due <= since.elapsed() {
                self.insert(1, POISON)?;
                poison_due += POISON_EVERY;
            }
            due += pause;
        }
        Ok(())
    }

    fn insert(&mut self, n: u32, event_type: &str) -> Result<(), StoreError> {
        let sql = include_str!("../../../../sql/soak_insert.sql");
        let n_events = i64::from(n);
        self.session
            .query("insert events", sql, &[&n_events, &event_type], |_| Ok(()))?;
        self.committed.fetch_add(u64::from(n), Ordering::Relaxed);
        Ok(())
    }
}

/// Starts a reader that holds a snapshot of the table, and takes a new one after each `period`.
pub(super) fn start_reader(
    environment: &Environment,
    period: Duration,
) -> Result<Companions<()>, BenchError> {
    let names = ["soak-reader".to_owned()];
    Companions::start(environment, &names, move |_, mut session, stopped| {
        loop {
            session.batch(
                "take a snapshot",
                "begin isolation level repeatable read; select from outbox_event limit 1",
            )?;
            let goes_on = goes_on(stopped, period);
            session.batch("end a snapshot", "commit")?;
            if !goes_on {
                return Ok(());
            }
        }
    })
}

/// What the retention has moved to the archive.
#[derive(Debug, Default, Clone)]
pub(super) struct Archived {
    /// Events.
    pub(super) n_events: u64,
    /// Events that were not done after the planned number of attempts.
    pub(super) n_wrong: u64,
    /// Of some of them: when they were done by the database's clock, and how long that took since
    /// their commit, both in seconds.
    pub(super) latencies: Vec<(f64, f64)>,
    /// The longest run of the procedure.
    pub(super) longest: Duration,
}

/// Starts the retention: after each `period` all events that are done are moved to the archive, as
/// the README tells, and the archive is emptied once it was looked at.
pub(super) fn start_retention(
    environment: &Environment,
    period: Duration,
) -> Result<Companions<Archived>, BenchError> {
    let names = ["soak-retention".to_owned()];
    Companions::start(environment, &names, move |_, mut session, stopped| {
        let mut archived = Archived::default();
        while goes_on(stopped, period) {
            archive(&mut session, &mut archived)?;
        }
        Ok(archived)
    })
}

/// Runs the retention once, looks at the archive and empties it.
pub(super) fn archive(session: &mut Session, archived: &mut Archived) -> Result<(), StoreError> {
    let since = Instant::now();
    session.batch("archive the done events", "call outbox_archive_1(0)")?;
    archived.longest = archived.longest.max(since.elapsed());
    let counts = session.query(
        "look at the archive",
        include_str!("../../../../sql/soak_archived.sql"),
        &[],
        |row| Ok([row.try_get::<_, i64>(0)?, row.try_get(1)?]),
    )?;
    for [n_events, n_wrong] in counts {
        archived.n_events += n_events.unsigned_abs();
        archived.n_wrong += n_wrong.unsigned_abs();
    }
    archived.latencies.extend(session.query(
        "look at the archive",
        include_str!("../../../../sql/soak_latencies.sql"),
        &[],
        |row| Ok((row.try_get(0)?, row.try_get(1)?)),
    )?);
    // A vacuum of the archive gives way after a second.
    session.batch(
        "empty the archive",
        "begin; set local lock_timeout = '1min'; truncate outbox_event_archive; commit",
    )
}
