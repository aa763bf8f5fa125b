//! What travels between the stages: a claimed event, and what its handling came to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::event::{Event, Outcome};
use crate::worker::leases::HeldLease;
use crate::worker::ledger::Ticket;

/// One claimed event on its way to a runner.
#[derive(Debug)]
pub(super) struct Claim {
    /// The event to deliver.
    pub(super) event: Event,
    /// Its route, if one takes it.
    pub(super) route: Option<usize>,
    /// The lease that names it.
    pub(super) lease: Arc<HeldLease>,
    /// Its share of the room in the ledger.
    pub(super) ticket: Ticket,
    /// How old the event was when it was claimed, by the database's clock.
    pub(super) age: Duration,
    /// When it was claimed.
    pub(super) claimed: Instant,
}

/// A handled event with its outcome, on its way to the settler.
#[derive(Debug)]
pub(super) struct Finished {
    /// The event.
    pub(super) event_id: i64,
    /// Its type, for the log.
    pub(super) event_type: String,
    /// Number of the attempt.
    pub(super) attempt: u32,
    /// The event's route, if one takes it.
    pub(super) route: Option<usize>,
    /// The lease that names the event.
    pub(super) lease: Arc<HeldLease>,
    /// Its share of the room in the ledger, until the outcome is written.
    ticket: Ticket,
    /// The outcome to write.
    pub(super) outcome: Outcome,
    /// How old the event was when it was claimed.
    pub(super) age: Duration,
    /// When it was claimed.
    pub(super) claimed: Instant,
    /// It was sent to the database and no answer came, so it may have been written.
    pub(super) is_in_doubt: bool,
    /// How often the database refused it.
    pub(super) n_refusals: u32,
    /// Why the database refused it the last time.
    pub(super) last_refusal: Option<Reason>,
    /// The reason of that refusal as metrics and the log show it.
    pub(super) refused_for: Option<&'static str>,
    /// It is written without the text of its reason.
    pub(super) is_bare: bool,
}

/// Why an outcome is not written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its row, or its lease, is locked by another session.
    Locked,
    /// A trigger or a constraint refuses it, or a value does not fit.
    Refused,
    /// Its update went through, and the row is as it was.
    Swallowed,
    /// Its update takes too long.
    Slow,
    /// It was not tried yet.
    Untried,
}

impl Claim {
    /// Turns the claim into its outcome.
    pub(super) fn finish(self, outcome: Outcome) -> Finished {
        Finished {
            event_id: self.event.id,
            event_type: self.event.event_type,
            attempt: self.event.attempt,
            route: self.route,
            lease: self.lease,
            ticket: self.ticket,
            outcome,
            age: self.age,
            claimed: self.claimed,
            is_in_doubt: false,
            n_refusals: 0,
            last_refusal: None,
            refused_for: None,
            is_bare: false,
        }
    }
}

impl Finished {
    /// Notes that the database refuses the outcome for now, so that it takes no room from other
    /// events.
    pub(super) fn set_aside(&mut self) {
        self.ticket.set_aside();
    }
}
