//! What the supervisor publishes about itself and `http` reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Fleet;

/// All that the supervisor publishes.
#[derive(Clone)]
pub struct Published {
    /// Where the daemon stands.
    pub health: Health,
    /// The sum of all workers' metrics.
    pub fleet: Arc<Mutex<Fleet>>,
    /// What the last survey of the table found; `None` before the first, and while the database does not answer.
    pub survey: Arc<Mutex<Option<Survey>>>,
}

impl Published {
    /// For a daemon with so many workers, none of which runs yet.
    pub fn new(processes: u16) -> Published {
        Published {
            health: Health::default(),
            fleet: Arc::new(Mutex::new(Fleet::new(processes))),
            survey: Arc::default(),
        }
    }
}

/// What waits and what is dead in the table, counted now and then by one process at a bounded cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Due events, counted no further than the cap.
    pub backlog: u64,
    /// There may be more due events than were counted.
    pub is_backlog_capped: bool,
    /// How long the oldest due event has been due; zero when there is none.
    pub oldest_due_age: Duration,
    /// Dead events by type, as the rows spell it, counted no further than the cap.
    pub dead: Vec<(String, u64)>,
    /// There may be more dead events than were counted.
    pub is_dead_capped: bool,
    /// When it was taken.
    pub taken_at: Instant,
}

/// Where the daemon stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonPhase {
    /// Waits for its database; no worker yet.
    Starting,
    /// Workers claim.
    Running,
    /// Was asked to leave.
    Draining,
}

/// The daemon's state as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it stands.
    pub phase: DaemonPhase,
    /// Workers that have reported and live.
    pub workers_up: usize,
}

/// Shared between the supervisor, which writes it, and the HTTP threads, which read it.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            state: Arc::new(Mutex::new(State {
                phase: DaemonPhase::Starting,
                workers_up: 0,
            })),
        }
    }
}

impl Health {
    /// The state now.
    pub fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Publishes a change.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
