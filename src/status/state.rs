//! The state that the supervisor publishes about itself and its workers: one state for /ready,
//! /api/status and the page, which `http` reads.
//!
//! The supervisor writes its own phase and what its workers report. The readiness probe writes what
//! it found at the database. [`crate::status::readiness`] holds the conclusion from both together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::failure::FailureKind;
use crate::domain::protocol::Access;
use crate::status::history::History;
use crate::status::metrics::Fleet;

/// Everything that the supervisor publishes.
#[derive(Clone)]
pub struct Published {
    /// The state of the daemon.
    pub health: Health,
    fleet: Arc<Mutex<Fleet>>,
    /// `None` before the first.
    statistics: Arc<Mutex<Option<TableStatistics>>>,
    history: Arc<Mutex<History>>,
}

impl Published {
    /// The state of a daemon with this many workers, none of which runs yet.
    pub fn new(processes: u16) -> Published {
        Published {
            health: Health::new(processes),
            fleet: Arc::new(Mutex::new(Fleet::new(processes))),
            statistics: Arc::default(),
            history: Arc::new(Mutex::new(History::new(Instant::now()))),
        }
    }

    /// The sum of all workers' metrics.
    pub fn fleet(&self) -> MutexGuard<'_, Fleet> {
        lock(&self.fleet)
    }

    /// What was done in the last minutes.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// Publishes new statistics of the table.
    pub fn publish_statistics(&self, statistics: TableStatistics) {
        *lock(&self.statistics) = Some(statistics);
    }

    /// The last statistics of the table, or `None` when it is too old to describe the table now:
    /// while the database is away, the counts are unknown.
    pub fn fresh_statistics(&self) -> Option<TableStatistics> {
        lock(&self.statistics)
            .clone()
            .filter(|statistics| statistics.taken_at.elapsed() < TableStatistics::FRESH)
    }
}

/// The numbers of waiting and dead events in the table, which the supervisor collects from time to
/// time at a bounded cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStatistics {
    /// Due events that are not claimed, counted no further than the cap.
    pub backlog: u64,
    /// Events that cannot be read, and are passed over.
    pub unreadable: u64,
    /// There may be more due events than were counted.
    pub is_backlog_capped: bool,
    /// How long the oldest of them has been due; zero when there is none.
    pub oldest_due_age: Duration,
    /// Events that wait for their time, counted no further than the cap; `None` when counting them
    /// took too long.
    pub not_due: Option<u64>,
    /// There may be more of them than were counted.
    pub is_not_due_capped: bool,
    /// Time until the first of them is due; `None` when there is none, or it is never due.
    pub first_due_in: Option<Duration>,
    /// Dead events by type, as the rows spell it, the most frequent first, counted no further than
    /// the cap; `None` when counting them took too long.
    pub dead: Option<Vec<(String, u64)>>,
    /// There may be more dead events than were counted.
    pub is_dead_capped: bool,
    /// When the events were counted.
    pub taken_at: Instant,
}

impl TableStatistics {
    /// A survey that is older than this no longer describes the table: it is longer than the
    /// longest wait between two surveys.
    pub const FRESH: Duration = Duration::from_mins(1);
}

/// The phase of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonPhase {
    /// The daemon waits for its database; no worker runs yet.
    Starting,
    /// Workers claim.
    Running,
    /// The daemon was asked to stop.
    Draining,
}

impl DaemonPhase {
    /// The word for the phase.
    pub fn text(self) -> &'static str {
        match self {
            DaemonPhase::Starting => "starting",
            DaemonPhase::Running => "running",
            DaemonPhase::Draining => "draining",
        }
    }
}

/// The daemon's state, as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The phase.
    pub phase: DaemonPhase,
    /// When it started.
    pub started: Instant,
    /// The state of each slot's worker.
    pub workers: Vec<WorkerState>,
    /// Whether the daemon's own request to /health was answered lately; `None` without an HTTP
    /// port.
    pub is_http_up: Option<bool>,
    /// What keeps the database from being used, as the readiness probe found last.
    pub database: Option<Finding>,
}

/// A reason, found by a look at the database, that events cannot be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of which kind it is.
    pub failure_kind: FailureKind,
    /// What was found, with the remedy where one is known. It is shown only to clients that may use
    /// the API.
    pub detail: String,
}

impl Finding {
    /// Says whether the database cannot be reached at all.
    pub fn is_away(&self) -> bool {
        self.failure_kind == FailureKind::Unavailable
    }
}

/// What the supervisor knows of the worker in a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerState {
    /// The pid of its process; `None` while there is none.
    pub pid: Option<u32>,
    /// The phase of the worker.
    pub phase: WorkerPhase,
    /// When its process was started.
    pub started: Option<Instant>,
    /// Workers started in this slot in place of one that ended.
    pub restarts: u64,
    /// Events that it has claimed and not settled.
    pub in_flight: u64,
    /// Events among them whose outcome the database does not take.
    pub set_aside: u64,
    /// Handlers that run longer than their timeout.
    pub stuck: u64,
    /// What its last report said of its database calls, and when that report came.
    pub report: Option<(Access, Instant)>,
}

/// The phase of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WorkerPhase {
    /// There is no process.
    #[default]
    Down,
    /// Its process has not reported yet.
    Starting,
    /// It claims.
    Running,
    /// It claims no more.
    Draining,
}

impl WorkerPhase {
    /// The word for the phase.
    pub fn text(self) -> &'static str {
        match self {
            WorkerPhase::Down => "down",
            WorkerPhase::Starting => "starting",
            WorkerPhase::Running => "running",
            WorkerPhase::Draining => "draining",
        }
    }
}

/// The shared state: the supervisor writes it, and the HTTP threads read it.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

impl Health {
    /// The state of a daemon that has just begun to start.
    pub fn new(processes: u16) -> Health {
        Health {
            state: Arc::new(Mutex::new(State {
                phase: DaemonPhase::Starting,
                started: Instant::now(),
                workers: vec![WorkerState::default(); usize::from(processes)],
                is_http_up: None,
                database: None,
            })),
        }
    }

    /// Returns a copy of the state.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Publishes a change.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Locks a value, also after a panic of another thread: each change of it is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_statistics_say_nothing_about_now() {
        let published = Published::new(1);
        let publish = |age: Duration| {
            let statistics = TableStatistics {
                backlog: 7,
                unreadable: 0,
                is_backlog_capped: false,
                oldest_due_age: Duration::ZERO,
                not_due: None,
                is_not_due_capped: false,
                first_due_in: None,
                dead: None,
                is_dead_capped: false,
                taken_at: Instant::now()
                    .checked_sub(age)
                    .expect("a machine runs for longer before it runs tests"),
            };
            published.publish_statistics(statistics);
        };
        assert_eq!(published.fresh_statistics(), None);

        publish(Duration::from_secs(1));
        let fresh = published
            .fresh_statistics()
            .map(|statistics| statistics.backlog);
        assert_eq!(fresh, Some(7));

        publish(TableStatistics::FRESH);
        assert_eq!(published.fresh_statistics(), None);
    }
}
