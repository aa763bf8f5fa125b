//! The state of the daemon and its workers: one state for /ready, /api/status and the page, which
//! `http` reads.
//!
//! The supervisor writes its own phase, what its workers report, and what its observer found at the
//! database. [`crate::status::readiness`] holds the conclusion from both together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::domain::failure::FailureKind;
use crate::domain::protocol::DatabaseAccess;

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
    /// What keeps the database from being used, as the observer found last.
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
    pub report: Option<(DatabaseAccess, Instant)>,
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

/// The shared state: the supervisor's threads and the looks write it, the HTTP threads read it.
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
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
