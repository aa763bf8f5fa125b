//! The log lines about outcomes that the database refuses, by a trigger or a constraint for
//! example.
//!
//! A refused outcome is kept and tried again. The log names its event and the cause once, again
//! when the cause changes, and when the refusal is over. An event whose row is merely locked is not
//! named: a lock usually ends by itself, and the failed calls are in the log anyway.

use std::collections::HashMap;
use std::time::Duration;

use log::{info, warn};

use crate::domain::event::Outcome;
use crate::store::StoreError;
use crate::system::incident::Incident;
use crate::worker::claim::Finished;

/// The most events that are named at a time: a few of them are enough to recognize a trigger that
/// refuses every row.
const NAMED_MAX: usize = 10;

/// Another cause for the same event is logged after this time, because some messages hold a time or
/// a number that changes with every try.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// The refused outcomes that were logged.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The error of each event that was named.
    named: HashMap<i64, Incident<String>>,
    /// There are more.
    rest: Incident,
    /// Outcomes that were given up.
    n_given_up: usize,
}

impl Refusals {
    /// Notes that the database refuses this outcome.
    pub(super) fn refused(&mut self, finished: &Finished, error: &StoreError) {
        if !(error.is_refusal() || error.is_statement_timeout()) {
            return;
        }
        if self.named.len() >= NAMED_MAX && !self.named.contains_key(&finished.event_id) {
            if self.rest.met(()) {
                warn!(
                    "outcomes of further events are refused, too; {NAMED_MAX} are named at a time"
                );
            }
            return;
        }
        let refusal = self
            .named
            .entry(finished.event_id)
            .or_insert_with(|| Incident::changing_after(REPEAT_AFTER));
        if refusal.met(error.to_string()) {
            warn!(
                "event {} ({}): {error}; its outcome `{}` is kept and tried again",
                finished.event_id,
                finished.event_type,
                finished.outcome.name()
            );
        }
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
    pub(super) fn settled(&mut self, finished: &Finished) {
        let Some(mut refusal) = self.named.remove(&finished.event_id) else {
            return;
        };
        if self.named.is_empty() {
            self.rest.over();
        }
        // A release was given up, and that was logged.
        if let Some(lasted) = refusal.over()
            && finished.outcome != Outcome::Released
        {
            info!(
                "event {} ({}): its outcome `{}` is refused no more, after {:.1} s",
                finished.event_id,
                finished.event_type,
                finished.outcome.name(),
                lasted.as_secs_f64()
            );
        }
    }
}
