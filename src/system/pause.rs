//! Waits between the tries of a call, which nothing interrupts, and which grow after each failure.

use std::time::Duration;

/// Waits for this time; only the end of the process ends it earlier. Everything else waits for an
/// event.
pub fn sleep_uninterruptibly(wait: Duration) {
    std::thread::sleep(wait);
}

/// Takes up to a fifth off at random, so that threads that began to wait together do not return
/// together.
pub fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.8 + 0.2 * fastrand::f64())
}

/// The waits between tries of a call that fails: doubling, jittered, bounded.
#[derive(Debug)]
pub struct Waits {
    next: Duration,
}

impl Waits {
    /// First wait after a failure.
    const FIRST: Duration = Duration::from_millis(50);

    /// Longest wait: a repair is noticed within this time.
    pub const MAX: Duration = Duration::from_secs(1);

    /// Starts with the shortest wait.
    pub fn new() -> Waits {
        Waits { next: Waits::FIRST }
    }

    /// How long to wait now; the next wait is twice as long.
    pub fn take(&mut self) -> Duration {
        let wait = jittered(self.next);
        self.next = (self.next * 2).min(Waits::MAX);
        wait
    }
}

impl Default for Waits {
    fn default() -> Waits {
        Waits::new()
    }
}
