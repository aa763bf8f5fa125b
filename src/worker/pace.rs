//! How much the settler writes at a time, how long that may take, and when it turns to other
//! outcomes.

use std::time::{Duration, Instant};

use crate::store::StoreError;

/// Outcomes per write: a larger batch saves next to nothing, and a failure repeats all of it.
const BATCH_EVENTS: usize = 500;

/// Fewer are not written faster, unless one by one.
const BATCH_EVENTS_LEAST: usize = 30;

/// Longest time for a batch; one that needs more holds a slow row, or is too large for a database
/// that is slow as a whole.
const BATCH_LIMIT: Duration = Duration::from_secs(4);

/// The same while slow rows are about.
const BATCH_LIMIT_SLOW: Duration = Duration::from_millis(600);

/// How long slow rows are about after the last one was met.
const SLOW_AFTERMATH: Duration = Duration::from_mins(1);

/// A round of narrowing begins nothing after this time.
const ROUND_MAX: Duration = Duration::from_secs(4);

/// Nor after so many refusals by locks: most likely the whole table is locked.
const ROUND_LOCKS_MAX: usize = 5;

/// How much is written at a time, and how quickly it has to go.
#[derive(Debug)]
pub(super) struct Pace {
    batch_max: usize,
    slow_met: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            batch_max: BATCH_EVENTS,
            slow_met: None,
        }
    }
}

impl Pace {
    /// Most outcomes of a batch.
    pub(super) fn batch_max(&self) -> usize {
        self.batch_max
    }

    /// A row has turned out to be slow.
    pub(super) fn slow_row(&mut self) {
        self.slow_met = Some(Instant::now());
    }

    /// How long a batch may take.
    pub(super) fn limit(&self) -> Duration {
        match self.slow_met {
            Some(at) if at.elapsed() < SLOW_AFTERMATH => BATCH_LIMIT_SLOW,
            _ => BATCH_LIMIT,
        }
    }

    /// A batch was written as a whole.
    pub(super) fn went_well(&mut self) {
        self.batch_max = (self.batch_max * 2).min(BATCH_EVENTS);
    }

    /// A batch of so many has run into its limit.
    pub(super) fn took_too_long(&mut self, events: usize) {
        self.batch_max = (events / 4).max(BATCH_EVENTS_LEAST);
    }
}

/// One round of narrowing.
#[derive(Debug)]
pub(super) struct Round {
    began: Instant,
    n_locks: usize,
}

impl Round {
    /// It begins now.
    pub(super) fn new() -> Round {
        Round {
            began: Instant::now(),
            n_locks: 0,
        }
    }

    /// Says whether what is left waits for another round.
    pub(super) fn is_over(&self) -> bool {
        self.began.elapsed() >= ROUND_MAX || self.n_locks >= ROUND_LOCKS_MAX
    }

    /// The database did not take something.
    pub(super) fn refused(&mut self, error: &StoreError) {
        self.n_locks += usize::from(error.is_lock_timeout());
    }
}
