//! The watchdog: library handlers that run longer than their timeout, which nothing can end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When each runner's handler should be back.
#[derive(Debug)]
pub(super) struct Watchdog {
    epoch: Instant,
    /// Milliseconds after the epoch; 0 when the runner is idle, or its handler bounds itself.
    due_back_ms: Vec<AtomicU64>,
}

impl Watchdog {
    /// All runners are idle.
    pub(super) fn new(n_runners: usize) -> Watchdog {
        Watchdog {
            epoch: Instant::now(),
            due_back_ms: (0..n_runners).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// How many runners there are.
    pub(super) fn n_runners(&self) -> usize {
        self.due_back_ms.len()
    }

    /// Watches what a runner does until the guard is dropped.
    pub(super) fn watch(&self, slot: usize, timeout: Duration) -> Watch<'_> {
        let due_back = &self.due_back_ms[slot];
        due_back.store(self.ms_at(timeout), Ordering::Relaxed);
        Watch { due_back }
    }

    /// How many handlers run longer than their timeout.
    pub(super) fn n_stuck(&self) -> usize {
        let now = self.ms_at(Duration::ZERO);
        let is_stuck = |due_back: &&AtomicU64| {
            let due_back = due_back.load(Ordering::Relaxed);
            due_back != 0 && due_back < now
        };
        self.due_back_ms.iter().filter(is_stuck).count()
    }

    /// Milliseconds after the epoch at which `wait` from now is over; never 0.
    fn ms_at(&self, wait: Duration) -> u64 {
        u64::try_from((self.epoch.elapsed() + wait).as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

/// A run that is watched.
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
