//! The log lines about outcomes that the database refuses, by a trigger or a constraint for example.
//!
//! A refused outcome is kept and tried again. The log names its event and the cause once, again when the cause changes, and when the
//! refusal is over. An event whose row is merely locked is not named: a lock usually ends by itself, and the failed calls are in the log
//! anyway.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::event::Outcome;
use crate::store::StoreError;
use crate::worker::claim::Finished;

/// The most events that are named at a time: a few of them are enough to recognize a trigger that refuses every row.
const NAMED_MAX: usize = 10;

/// Another cause for the same event is logged after this time, because some messages hold a time or a number that changes with every try.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// The refused outcomes that were logged.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    named: HashMap<i64, Refusal>,
    /// It was logged that there are more.
    is_cut: bool,
    /// Outcomes that were given up.
    n_given_up: usize,
}

#[derive(Debug)]
struct Refusal {
    cause: String,
    since: Instant,
    logged_at: Instant,
}

impl Refusals {
    /// Notes that the database refuses this outcome.
    pub(super) fn refused(&mut self, finished: &Finished, error: &StoreError) {
        if !(error.is_refusal() || error.is_statement_timeout()) {
            return;
        }
        let (now, cause) = (Instant::now(), error.to_string());
        let n_named = self.named.len();
        match self.named.get_mut(&finished.event_id) {
            Some(earlier) if earlier.cause == cause || now - earlier.logged_at < REPEAT_AFTER => {
                return;
            }
            Some(earlier) => (earlier.cause, earlier.logged_at) = (cause, now),
            None if n_named >= NAMED_MAX => return self.cut(),
            None => {
                let refusal = Refusal {
                    cause,
                    since: now,
                    logged_at: now,
                };
                self.named.insert(finished.event_id, refusal);
            }
        }
        warn!(
            "event {} ({}): {error}; its outcome `{}` is kept and tried again",
            finished.event_id,
            finished.event_type,
            finished.outcome.name()
        );
    }

    /// Notes that this outcome is refused for the last time: the worker drains.
    pub(super) fn given_up(&mut self, finished: &Finished, error: &StoreError) {
        self.n_given_up += 1;
        if self.n_given_up <= NAMED_MAX {
            warn!(
                "event {} ({}): {error}; the worker drains: its outcome `{}` is given up, the event is given back and its handler runs \
                 again",
                finished.event_id,
                finished.event_type,
                finished.outcome.name()
            );
        } else if self.n_given_up == NAMED_MAX + 1 {
            warn!("further events are given back because their outcomes are refused");
        }
    }

    /// Notes that this outcome is settled.
    pub(super) fn is_over(&mut self, finished: &Finished) {
        let Some(refusal) = self.named.remove(&finished.event_id) else {
            return;
        };
        self.is_cut &= !self.named.is_empty();
        if finished.outcome == Outcome::Released {
            // It was given up, and that was logged.
            return;
        }
        info!(
            "event {} ({}): its outcome `{}` is refused no more, after {:.1} s",
            finished.event_id,
            finished.event_type,
            finished.outcome.name(),
            refusal.since.elapsed().as_secs_f64()
        );
    }

    fn cut(&mut self) {
        if !self.is_cut {
            self.is_cut = true;
            warn!("outcomes of further events are refused, too; {NAMED_MAX} are named at a time");
        }
    }
}
