//! How long the worker's database calls have been out: what the supervisor needs to see that a worker is wedged.
//!
//! A stage that waits for work is healthy however long it waits, and so is one whose handler takes hours. Only a call that does
//! not return is not: a stuck server, or a connection whose other end is gone. So just the calls are timed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The stages that call the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// Claims.
    Fetcher,
    /// Writes outcomes.
    Settler,
    /// Renews.
    Keeper,
    /// Sweeps.
    Sweeper,
}

impl Stage {
    /// How many there are.
    pub(super) const COUNT: usize = Stage::Sweeper as usize + 1;

    /// Says whether it keeps its session from call to call.
    pub(super) fn keeps_session(self) -> bool {
        match self {
            Stage::Fetcher | Stage::Keeper => true,
            Stage::Settler | Stage::Sweeper => false,
        }
    }
}

/// The calls under way.
#[derive(Debug)]
pub(super) struct Pulse {
    epoch: Instant,
    /// Per stage: microseconds after the epoch at which its call began, 0 while it is in none.
    began: [AtomicU64; Stage::COUNT],
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse {
            epoch: Instant::now(),
            began: Default::default(),
        }
    }
}

impl Pulse {
    /// Times one call of `stage`.
    pub(super) fn call<T>(&self, stage: Stage, call: impl FnOnce() -> T) -> T {
        let slot = stage as usize;
        self.began[slot].store(self.now_micros().max(1), Ordering::Relaxed);
        let result = call();
        self.began[slot].store(0, Ordering::Relaxed);
        result
    }

    /// How long the oldest call under way has been out.
    pub(super) fn longest_call(&self) -> Duration {
        let now = self.now_micros();
        let micros = self
            .began
            .iter()
            .map(|began| began.load(Ordering::Relaxed))
            .filter(|&began| began != 0)
            .map(|began| now.saturating_sub(began))
            .max();
        Duration::from_micros(micros.unwrap_or(0))
    }

    fn now_micros(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
