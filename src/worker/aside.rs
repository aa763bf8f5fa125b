//! Outcomes that the database does not take now: kept, and tried again with a growing wait, so that they hold up no other.
//!
//! An outcome is never given up while the worker works, however long that takes: its handler has run, and an outcome that is let go of
//! would make it run again. Its lease is renewed like any other, and it counts as in flight, so where every row is refused the worker
//! claims no more once its limit is reached.
//!
//! Only a drain gives up, once no handler runs any more: what is refused at one more try becomes `released`, which writes nothing to the
//! row, so its event is due again uncharged, and the handler runs again. Why not wait for the drain timeout: what has been refused for
//! minutes is not taken within seconds, and the end would be the same, with a killed worker in between.
//!
//! A row that is merely locked is tried again each second, since locks end by themselves. What is refused, swallowed or too slow waits
//! twice as long each time. When one of the refused is taken, the others are tried at once: most likely the same thing was mended.

use std::time::{Duration, Instant};

use log::debug;

use crate::event::Outcome;
use crate::figure::counted;
use crate::store::StoreError;
use crate::worker::claim::{Finished, Reason};
use crate::worker::refusals::Refusals;
use crate::worker::shared::Shared;

/// First wait, and every wait of what is locked.
const WAIT_FIRST: Duration = Duration::from_secs(1);

/// Longest wait: what a person has mended is taken soon after.
const WAIT_MAX: Duration = Duration::from_mins(2);

/// Longest time that one slow row is given: meanwhile the settler writes nothing else.
const SLOW_LIMIT_MAX: Duration = Duration::from_secs(8);

/// Least time between two looks at everything because one of it was taken.
const HURRY_EVERY: Duration = Duration::from_secs(10);

/// What the metric tells apart.
const TOLD: [(Reason, &str); 4] = [
    (Reason::Locked, "locked"),
    (Reason::Refused, "refused"),
    (Reason::Swallowed, "swallowed"),
    (Reason::Slow, "slow"),
];

fn reason_of(error: &StoreError) -> Reason {
    if error.is_lock_timeout() || error.is_conflict() {
        Reason::Locked
    } else if error.is_statement_timeout() {
        Reason::Slow
    } else {
        Reason::Refused
    }
}

/// What is set aside.
pub(super) struct Aside<'a> {
    shared: &'a Shared,
    waiting: Vec<Waiting>,
    refusals: Refusals,
    hurried: Option<Instant>,
    /// The worker drains, and no handler runs: what is refused now is given up.
    is_last: bool,
    /// Events to be given back.
    given_up: Vec<Finished>,
}

struct Waiting {
    finished: Finished,
    reason: Reason,
    due: Instant,
}

impl<'a> Aside<'a> {
    /// Nothing yet.
    pub(super) fn new(shared: &'a Shared) -> Aside<'a> {
        let aside = Aside {
            shared,
            waiting: Vec::new(),
            refusals: Refusals::default(),
            hurried: None,
            is_last: false,
            given_up: Vec::new(),
        };
        aside.tell();
        aside
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How long until one of it is due again; `None` when there is none.
    pub(super) fn wait(&self) -> Option<Duration> {
        let due = self.waiting.iter().map(|waiting| waiting.due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Takes what is due: what may be tried together, and what is slow.
    pub(super) fn take_due(&mut self) -> (Vec<Finished>, Vec<Finished>) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting: &Waiting| waiting.due <= now);
        self.waiting = later;
        let (slow, quick): (Vec<Waiting>, Vec<Waiting>) = due
            .into_iter()
            .partition(|waiting| waiting.reason == Reason::Slow);
        let finished = |part: Vec<Waiting>| part.into_iter().map(|waiting| waiting.finished);
        (finished(quick).collect(), finished(slow).collect())
    }

    /// How long this slow one may take now: longer each time.
    pub(super) fn slow_limit(finished: &Finished) -> Duration {
        doubled(finished.n_refusals, SLOW_LIMIT_MAX)
    }

    /// From now on each outcome has one try left.
    pub(super) fn begin_last_tries(&mut self) {
        self.is_last = true;
    }

    /// Takes the events whose last try has failed, as ones to be released.
    pub(super) fn take_given_up(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.given_up)
    }

    /// Sets aside what the database does not take.
    pub(super) fn refused(&mut self, mut finished: Finished, error: &StoreError) {
        let reason = reason_of(error);
        self.shared.metrics.db_error(error.reason());
        if self.is_given_up(&finished, reason) {
            return self.give_up(finished, error);
        }
        self.refusals.refused(&finished, error);
        // A column that takes no text of ours, too short or with a rule of its own: better without a reason than not at all.
        finished.is_bare = error.is_about_a_value() && !finished.is_bare;
        self.wait_for(finished, reason);
    }

    /// Sets aside what was swallowed.
    pub(super) fn swallowed(&mut self, finished: Finished) {
        let error = StoreError::kept("settle events");
        self.shared.metrics.db_error(error.reason());
        if self.is_given_up(&finished, Reason::Swallowed) {
            return self.give_up(finished, &error);
        }
        self.refusals.refused(&finished, &error);
        self.wait_for(finished, Reason::Swallowed);
    }

    /// Says whether this was the outcome's last try. A lock ends by itself, and a slow row has not had the time that it may be given.
    fn is_given_up(&self, finished: &Finished, reason: Reason) -> bool {
        let is_tried = match reason {
            Reason::Refused | Reason::Swallowed => true,
            Reason::Slow => Aside::slow_limit(finished) >= SLOW_LIMIT_MAX,
            Reason::Locked | Reason::Untried => false,
        };
        // A release writes nothing to the row: where that is refused there is nothing else left to try.
        self.is_last && is_tried && finished.outcome != Outcome::Released
    }

    fn give_up(&mut self, mut finished: Finished, error: &StoreError) {
        self.refusals.given_up(&finished, error);
        finished.outcome = Outcome::Released;
        self.given_up.push(finished);
    }

    /// Sets aside what was not tried.
    pub(super) fn untried(&mut self, part: Vec<Finished>) {
        debug!("left {} for later", counted(part.len(), "outcome"));
        let due = Instant::now() + WAIT_FIRST;
        self.waiting
            .extend(part.into_iter().map(|finished| Waiting {
                reason: finished.last_refusal.unwrap_or(Reason::Untried),
                finished,
                due,
            }));
    }

    fn wait_for(&mut self, mut finished: Finished, reason: Reason) {
        let wait = match reason {
            Reason::Locked => WAIT_FIRST,
            // Each try costs the others as long as it takes.
            Reason::Slow => doubled(finished.n_refusals.saturating_add(2), WAIT_MAX),
            Reason::Refused | Reason::Swallowed | Reason::Untried => {
                doubled(finished.n_refusals, WAIT_MAX)
            }
        };
        debug!(
            "set the outcome of event {} aside for {:.0} s: {reason:?}",
            finished.event_id,
            wait.as_secs_f64()
        );
        finished.n_refusals = finished.n_refusals.saturating_add(1);
        finished.last_refusal = Some(reason);
        self.waiting.push(Waiting {
            finished,
            reason,
            due: Instant::now() + wait,
        });
    }

    /// It is known what became of this outcome.
    pub(super) fn is_over(&mut self, finished: &Finished) {
        self.refusals.is_over(finished);
        let is_taken = matches!(
            finished.last_refusal,
            Some(Reason::Refused | Reason::Swallowed)
        );
        if is_taken && self.hurried.is_none_or(|at| at.elapsed() >= HURRY_EVERY) {
            self.hurried = Some(Instant::now());
            self.hurry();
        }
    }

    /// Makes everything due now.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        for waiting in &mut self.waiting {
            waiting.due = now;
        }
    }

    /// Tells the metric how much there is.
    pub(super) fn tell(&self) {
        for (reason, name) in TOLD {
            let of_it = self.waiting.iter().filter(|one| one.reason == reason);
            self.shared.metrics.set_aside(name, of_it.count());
        }
    }
}

fn doubled(times: u32, max: Duration) -> Duration {
    WAIT_FIRST
        .saturating_mul(2_u32.saturating_pow(times))
        .min(max)
}

/// The outcome without its reason, which keeps the one that stands in the row.
pub(super) fn bare(outcome: &Outcome) -> Outcome {
    let reason = String::new();
    match outcome {
        Outcome::Retry { delay, .. } => Outcome::Retry {
            delay: *delay,
            reason,
        },
        Outcome::Dead { .. } => Outcome::Dead { reason },
        Outcome::Done | Outcome::Released => outcome.clone(),
    }
}
