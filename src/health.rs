//! What the supervisor publishes about itself and `http` reads.

use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Fleet;

/// All that the supervisor publishes.
#[derive(Clone)]
pub struct Published {
    /// Where the daemon stands.
    pub health: Health,
    /// The sum of all workers' metrics.
    pub fleet: Arc<Mutex<Fleet>>,
}

impl Published {
    /// For a daemon with so many workers, none of which runs yet.
    pub fn new(processes: u16) -> Published {
        Published {
            health: Health::default(),
            fleet: Arc::new(Mutex::new(Fleet::new(processes))),
        }
    }
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
