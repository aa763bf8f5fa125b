//! Outcomes that the database refuses now. The settler keeps them and tries them again with a
//! growing wait, so that they delay no other.
//!
//! While the worker runs, no outcome is given up, however long it is refused: its handler has run,
//! and a lost outcome would make the handler run again. Its lease is renewed like any other. It
//! takes no room from other events, so they are claimed and delivered however many rows are
//! refused; only at [`SET_ASIDE_MAX`] does the worker claim nothing, and logs that.
//!
//! Only a drain gives up, once no handler runs any more: what is refused at one more try becomes
//! `released`, which writes nothing to the row, so its event is due again uncharged, and the
//! handler runs again. Why not wait for the drain timeout: what has been refused for minutes is not
//! taken within seconds, and the end would be the same, with a killed worker in between.
//!
//! A row that is merely locked is tried again each second, since locks end by themselves. What is
//! refused, swallowed or too slow waits twice as long each time. When one of the refused is taken,
//! the others are tried at once: most likely the same thing was mended.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::domain::event::Outcome;
use crate::domain::figure::counted;
use crate::store::StoreError;
use crate::system::incident::Incident;
use crate::worker::claim::{Finished, Reason};
use crate::worker::ledger::SET_ASIDE_MAX;
use crate::worker::refusals::Refusals;
use crate::worker::shared::Shared;

/// The first wait, and every wait of an outcome whose row is locked.
const WAIT_FIRST: Duration = Duration::from_secs(1);

/// The longest wait. An outcome is written this soon after the cause of its refusal is removed.
const WAIT_MAX: Duration = Duration::from_mins(2);

/// The longest time for one slow row. The settler writes nothing else meanwhile.
const SLOW_LIMIT_MAX: Duration = Duration::from_secs(8);

/// The least time between two tries of all refused outcomes because one of them was written.
const HURRY_EVERY: Duration = Duration::from_secs(10);

/// The most outcomes that are tried once more at a drain of those that were refused before.
const LAST_TRIES_MAX: usize = 1_000;

/// The reasons that the metric distinguishes.
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

/// The outcomes that are set aside.
pub(super) struct Aside<'a> {
    shared: &'a Shared,
    waiting: Vec<Waiting>,
    refusals: Refusals,
    hurried: Option<Instant>,
    /// There are so many that nothing is claimed.
    fullness: Incident,
    /// The worker drains and no handler runs any more: an outcome that is refused now is given up.
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
    /// Makes an empty set.
    pub(super) fn new(shared: &'a Shared) -> Aside<'a> {
        let mut aside = Aside {
            shared,
            waiting: Vec::new(),
            refusals: Refusals::default(),
            hurried: None,
            fullness: Incident::default(),
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

    /// The time until the first outcome is due again; `None` when there is none.
    pub(super) fn wait(&self) -> Option<Duration> {
        let due = self.waiting.iter().map(|waiting| waiting.due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Takes the outcomes that are due: first those that may be tried together, then the slow ones.
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

    /// The time limit of this slow outcome, which grows with each try.
    pub(super) fn slow_limit(finished: &Finished) -> Duration {
        doubled(finished.n_refusals, SLOW_LIMIT_MAX)
    }

    /// From now on each outcome has one try left; where there are many that were refused before,
    /// only some of them.
    pub(super) fn begin_last_tries(&mut self) {
        self.is_last = true;
        let mut n_tried = 0;
        let (tried, given_up) =
            std::mem::take(&mut self.waiting)
                .into_iter()
                .partition(|waiting: &Waiting| {
                    let was_refused = matches!(waiting.reason, Reason::Refused | Reason::Swallowed);
                    n_tried += usize::from(was_refused);
                    !was_refused || n_tried <= LAST_TRIES_MAX
                });
        self.waiting = tried;
        if !given_up.is_empty() {
            warn!(
                "the worker drains: {} whose outcomes were refused before are given back, and their handlers run again",
                counted(given_up.len(), "event")
            );
        }
        for Waiting { finished, .. } in given_up {
            self.release(finished);
        }
    }

    /// Takes the outcomes whose last try has failed; each becomes `released`.
    pub(super) fn take_given_up(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.given_up)
    }

    /// Sets aside an outcome that the database refuses.
    pub(super) fn refused(&mut self, mut finished: Finished, error: &StoreError) {
        let reason = reason_of(error);
        self.shared.metrics.db_error(error.reason());
        if self.is_given_up(&finished, reason) {
            return self.give_up(finished, error);
        }
        self.refusals.refused(&finished, error);
        // The column refuses the text, because it is too short or has a constraint. The outcome is
        // written without its reason then.
        finished.is_bare = error.is_about_a_value() && !finished.is_bare;
        self.wait_for(finished, reason, error);
    }

    /// Sets aside an outcome whose update left the row as it was.
    pub(super) fn swallowed(&mut self, finished: Finished) {
        let error = StoreError::kept("settle events");
        self.shared.metrics.db_error(error.reason());
        if self.is_given_up(&finished, Reason::Swallowed) {
            return self.give_up(finished, &error);
        }
        self.refusals.refused(&finished, &error);
        self.wait_for(finished, Reason::Swallowed, &error);
    }

    /// Says whether this was the outcome's last try. A lock ends by itself, and a slow row has not
    /// had the time that it may be given.
    fn is_given_up(&self, finished: &Finished, reason: Reason) -> bool {
        let is_tried = match reason {
            Reason::Refused | Reason::Swallowed => true,
            Reason::Slow => Aside::slow_limit(finished) >= SLOW_LIMIT_MAX,
            Reason::Locked | Reason::Untried => false,
        };
        // A release writes nothing to the row. If it is refused there is nothing else to try.
        self.is_last && is_tried && finished.outcome != Outcome::Released
    }

    fn give_up(&mut self, finished: Finished, error: &StoreError) {
        self.refusals.given_up(&finished, error);
        self.release(finished);
    }

    fn release(&mut self, mut finished: Finished) {
        finished.outcome = Outcome::Released;
        self.given_up.push(finished);
    }

    /// Sets aside outcomes that were not tried.
    pub(super) fn untried(&mut self, part: Vec<Finished>) {
        debug!("left {} for later", counted(part.len(), "outcome"));
        let due = Instant::now() + WAIT_FIRST;
        self.waiting.extend(part.into_iter().map(|mut finished| {
            finished.set_aside();
            Waiting {
                reason: finished.last_refusal.unwrap_or(Reason::Untried),
                finished,
                due,
            }
        }));
    }

    fn wait_for(&mut self, mut finished: Finished, reason: Reason, error: &StoreError) {
        let wait = match reason {
            Reason::Locked => WAIT_FIRST,
            // The other outcomes wait during each try.
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
        finished.refused_for = Some(error.reason());
        finished.set_aside();
        self.waiting.push(Waiting {
            finished,
            reason,
            due: Instant::now() + wait,
        });
    }

    /// Forgets an outcome that is settled.
    pub(super) fn settled(&mut self, finished: &Finished) {
        self.refusals.settled(finished);
        let is_taken = matches!(
            finished.last_refusal,
            Some(Reason::Refused | Reason::Swallowed)
        );
        if is_taken && self.hurried.is_none_or(|at| at.elapsed() >= HURRY_EVERY) {
            self.hurried = Some(Instant::now());
            self.hurry();
        }
    }

    /// Makes all outcomes due now.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        for waiting in &mut self.waiting {
            waiting.due = now;
        }
    }

    /// Sets the metric to the number of outcomes by reason, notes which refusals last, and logs
    /// when there are too many.
    pub(super) fn tell(&mut self) {
        let lasting: HashSet<&'static str> = self
            .waiting
            .iter()
            .filter_map(|waiting| waiting.finished.refused_for)
            .collect();
        self.shared.outage.set_aside(lasting);
        let mut counts = [0; TOLD.len()];
        for one in &self.waiting {
            // Outcomes that had no turn yet have no reason.
            if let Some(place) = TOLD.iter().position(|&(reason, _)| reason == one.reason) {
                counts[place] += 1;
            }
        }
        for ((_, name), count) in TOLD.into_iter().zip(counts) {
            self.shared.metrics.set_aside(name, count);
        }
        if self.shared.ledger.set_aside() < SET_ASIDE_MAX {
            if self.fullness.over().is_some() {
                info!("claiming again: fewer than {SET_ASIDE_MAX} outcomes are set aside");
            }
        } else if self.fullness.met(()) {
            warn!(
                "the database does not take {SET_ASIDE_MAX} outcomes: this worker claims nothing until some of them are written"
            );
        }
    }
}

fn doubled(times: u32, max: Duration) -> Duration {
    WAIT_FIRST
        .saturating_mul(2_u32.saturating_pow(times))
        .min(max)
}

/// The outcome without its reason; the row keeps the reason that it has.
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
