//! Waiting for facts. The only place that sleeps.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Longer than any wait of the program itself, of which the longest is the 45 s between two
/// collections of the table's statistics: only a failing test waits this long.
const LIMIT: Duration = Duration::from_secs(90);

/// Waits until the condition holds; `what` completes "waited for".
#[track_caller]
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_until_within(LIMIT, what, holds);
}

/// Waits until the condition holds, `limit` at most.
#[track_caller]
pub fn wait_until_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(
            since.elapsed() < limit,
            "waited {limit:?} in vain for: {what}"
        );
        std::thread::sleep(LOOK);
    }
}

/// Lets `duration` pass from `since` on, where the time itself is what a test is about: an outage
/// longer than a lease, a lock that outlasts several statements. `what` says so. Never a way to wait
/// for something to happen.
pub fn outlast(since: Instant, duration: Duration, what: &str) {
    eprintln!("{what}: {duration:?}");
    std::thread::sleep(duration.saturating_sub(since.elapsed()));
}

/// Takes time on purpose, in a test's own receiver or handler: a slow peer, never a way to
/// synchronize.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
