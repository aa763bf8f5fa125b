//! Leases in nobody's hand, after a claim whose answer was lost: the old back end may have committed it, or may yet.
//!
//! They are looked for before the next claim and then each second, for as long as such a claim may become visible and its lease stands.
//! Where the claim was never sent, because there was no connection, there is no doubt.

use std::time::{Duration, Instant};

use log::info;

use crate::figure::counted;
use crate::store::{StoreError, StoreErrorKind};
use crate::worker::link::{Link, Patience};
use crate::worker::shared::Shared;

/// What a claim in doubt may take beyond its statement timeout until it is visible.
const MARGIN: Duration = Duration::from_secs(5);

/// A server that gives no answer may hang in the commit, for as long as its synchronous standby is away for example, and the lease that
/// appears then is over already: it is looked for as long as this, or other workers would charge its events for runs that never were.
const HANGING_MAX: Duration = Duration::from_mins(10);

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Whether a worker may have leases that it does not know of.
#[derive(Debug, Default)]
pub(super) struct Strays {
    until: Option<Instant>,
    looked: Option<Instant>,
}

impl Strays {
    /// Notes that the answer of a claim was lost by this error.
    pub(super) fn expect(&mut self, shared: &Shared, error: &StoreError) {
        // So long the old back end may take to commit the claim, and so long its lease stands.
        let usual = shared.config.lease.max(shared.config.query_timeout) + MARGIN;
        let wait = if matches!(error.kind(), StoreErrorKind::Unanswered) {
            usual.max(HANGING_MAX)
        } else {
            usual
        };
        self.until = Some(Instant::now() + wait);
        self.looked = None;
    }

    /// Says whether there may still be one.
    pub(super) fn are_possible(&self) -> bool {
        self.until.is_some()
    }

    /// Makes the next look one that is due.
    pub(super) fn look_at_once(&mut self) {
        self.looked = None;
    }

    /// Ends those that there are, where a look is due; says whether there was one.
    pub(super) fn release(&mut self, shared: &Shared, link: &mut Link) -> Result<bool, StoreError> {
        let Some(until) = self.until else {
            return Ok(false);
        };
        if self.looked.is_some_and(|looked| looked.elapsed() < EVERY) {
            return Ok(false);
        }
        let in_hand = shared.leases.tokens();
        let n_leases = link.aside(Patience::Usual, |session| {
            session.release_strays(&shared.owner.worker, &in_hand)
        })?;
        if n_leases > 0 {
            info!(
                "released {} of claims whose answer was lost",
                counted(n_leases, "lease")
            );
        }
        self.looked = Some(Instant::now());
        if Instant::now() >= until {
            self.until = None;
        }
        Ok(n_leases > 0)
    }
}
