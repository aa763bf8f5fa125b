//! The watchdog: what takes too long in a worker and cannot be ended from within.
//!
//! It times two things. A library handler that runs longer than its timeout is stuck. The metrics
//! show how many are, and the worker ends once each runner is stuck. A database call that does not
//! return, because the server is stuck or the other end of the connection is gone, is reported with
//! its age, and the supervisor replaces a worker whose call is too old. Nothing else is timed: a
//! stage that waits for work is healthy however long it waits, and so is a runner whose handler
//! bounds itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::worker::stage::Stage;

/// The handlers and the database calls under way.
#[derive(Debug)]
pub(super) struct Watchdog {
    epoch: Instant,
    /// Per runner: milliseconds after the epoch at which its handler should have returned; 0 while
    /// the runner is idle, or if its handler bounds itself.
    due_back_ms: Vec<AtomicU64>,
    /// Per stage: microseconds after the epoch at which its call began; 0 while it is in none.
    call_began_micros: [AtomicU64; Stage::COUNT],
}

impl Watchdog {
    /// Makes a watchdog for so many runners, all of them idle.
    pub(super) fn new(n_runners: usize) -> Watchdog {
        Watchdog {
            epoch: Instant::now(),
            due_back_ms: (0..n_runners).map(|_| AtomicU64::new(0)).collect(),
            call_began_micros: Default::default(),
        }
    }

    /// The number of runners.
    pub(super) fn n_runners(&self) -> usize {
        self.due_back_ms.len()
    }

    /// Watches the handler of a runner until the guard is dropped.
    pub(super) fn watch(&self, slot: usize, timeout: Duration) -> Watch<'_> {
        let due_back = &self.due_back_ms[slot];
        due_back.store(self.ms_at(timeout), Ordering::Relaxed);
        Watch { due_back }
    }

    /// The number of handlers that run longer than their timeout.
    pub(super) fn n_stuck(&self) -> usize {
        let now = self.ms_at(Duration::ZERO);
        let is_stuck = |due_back: &&AtomicU64| {
            let due_back = due_back.load(Ordering::Relaxed);
            due_back != 0 && due_back < now
        };
        self.due_back_ms.iter().filter(is_stuck).count()
    }

    /// Makes one database call of `stage` and times it.
    pub(super) fn call<T>(&self, stage: Stage, call: impl FnOnce() -> T) -> T {
        let began = &self.call_began_micros[stage as usize];
        began.store(self.now_micros().max(1), Ordering::Relaxed);
        let result = call();
        began.store(0, Ordering::Relaxed);
        result
    }

    /// The age of the oldest database call under way; zero if there is none.
    pub(super) fn longest_call(&self) -> Duration {
        let now = self.now_micros();
        let micros = self
            .call_began_micros
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

    /// Milliseconds after the epoch at which `wait` from now is over; never 0.
    fn ms_at(&self, wait: Duration) -> u64 {
        u64::try_from((self.epoch.elapsed() + wait).as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

/// Ends the watch of a handler when it is dropped.
pub(super) struct Watch<'a> {
    due_back: &'a AtomicU64,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.due_back.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_stuck_from_its_timeout_until_it_is_back() {
        let watchdog = Watchdog::new(2);
        let long = watchdog.watch(0, Duration::from_hours(1));
        assert_eq!(watchdog.n_stuck(), 0);
        // The epoch counts from 1 ms on.
        while watchdog.epoch.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        let over = watchdog.watch(1, Duration::ZERO);
        while watchdog.n_stuck() == 0 {
            std::thread::yield_now();
        }
        drop((over, long));
        assert_eq!(watchdog.n_stuck(), 0);
    }
}
