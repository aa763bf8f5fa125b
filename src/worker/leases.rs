//! The leases in hand: claimed by this worker, and not yet ended by settling.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A runner starts no event in the last seconds of a lease, or the last quarter of a short one, so
/// that a handler's first steps are not already a duplicate.
const MARGIN_MAX: Duration = Duration::from_secs(5);

/// One lease in hand, shared by its events.
#[derive(Debug)]
pub(super) struct HeldLease {
    /// The token that settling shows.
    pub(super) token: i64,
    /// Milliseconds after `Leases::epoch` until which its events may be started.
    good_until_ms: AtomicU64,
    is_lost: AtomicBool,
    /// Events whose outcome is not written yet; changed by the settler alone.
    open: AtomicUsize,
}

impl HeldLease {
    /// Events whose outcome is not written yet.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes that the outcomes of `events` events are written or lost; returns how many are left.
    pub(super) fn close(&self, events: usize) -> usize {
        let left = self.open().saturating_sub(events);
        self.open.store(left, Ordering::Relaxed);
        left
    }
}

/// All leases in hand.
#[derive(Debug)]
pub(super) struct Leases {
    epoch: Instant,
    lease: Duration,
    held: Mutex<BTreeMap<i64, Arc<HeldLease>>>,
}

impl Leases {
    /// Makes an empty set; `lease` is how long a claim or renewal holds.
    pub(super) fn new(lease: Duration) -> Leases {
        Leases {
            epoch: Instant::now(),
            lease,
            held: Mutex::default(),
        }
    }

    /// Takes a new lease in hand. `sent` is the moment before the claim was sent: the database
    /// counts from later on.
    pub(super) fn hold(&self, token: i64, events: usize, sent: Instant) -> Arc<HeldLease> {
        let held = Arc::new(HeldLease {
            token,
            good_until_ms: AtomicU64::new(self.good_until_ms(sent)),
            is_lost: AtomicBool::new(false),
            open: AtomicUsize::new(events),
        });
        self.lock().insert(token, Arc::clone(&held));
        held
    }

    /// Notes a successful renewal that was sent at `sent`.
    pub(super) fn renewed(&self, token: i64, sent: Instant) {
        if let Some(held) = self.lock().get(&token) {
            held.good_until_ms
                .fetch_max(self.good_until_ms(sent), Ordering::Relaxed);
        }
    }

    /// Marks a lease that is gone from the database, unless its settling has just ended it; its
    /// waiting events are not started.
    pub(super) fn lost(&self, token: i64) -> bool {
        self.lock()
            .get(&token)
            .is_some_and(|held| held.open() > 0 && !held.is_lost.swap(true, Ordering::Relaxed))
    }

    /// Says whether an event of this lease may be started now.
    pub(super) fn may_start(&self, held: &HeldLease) -> bool {
        !held.is_lost.load(Ordering::Relaxed)
            && self.now_ms() < held.good_until_ms.load(Ordering::Relaxed)
    }

    /// Lets go of an ended lease.
    pub(super) fn end(&self, token: i64) {
        self.lock().remove(&token);
    }

    /// The tokens in hand.
    pub(super) fn tokens(&self) -> Vec<i64> {
        self.lock().keys().copied().collect()
    }

    fn good_until_ms(&self, sent: Instant) -> u64 {
        millis(
            (sent + self.lease)
                .saturating_duration_since(self.epoch)
                .saturating_sub(MARGIN_MAX.min(self.lease / 4)),
        )
    }

    fn now_ms(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Arc<HeldLease>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
