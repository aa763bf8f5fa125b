//! Orphaned leases: leases of this worker that it does not know of. A claim whose answer was lost
//! leaves one, if the old back end has committed the claim or commits it later.
//!
//! The fetcher looks for orphaned leases before the next claim and then each second, for as long as
//! such a claim may become visible and its lease has not expired. A claim that was never sent,
//! because there was no connection, cannot leave one.

use std::time::{Duration, Instant};

use log::info;

use crate::domain::figure::counted;
use crate::store::{StoreError, StoreErrorKind};
use crate::worker::link::{Link, Patience};
use crate::worker::shared::Shared;

/// How long beyond its statement timeout a claim without an answer may take until it is visible.
const MARGIN: Duration = Duration::from_secs(5);

/// How long the fetcher looks for the lease of a claim that the server did not answer. Such a
/// server may hang in the commit, for example for as long as its synchronous standby is away, and
/// the lease that appears then has already expired. If the fetcher did not look for it, other
/// workers would charge its events for runs that never happened.
const HANGING_MAX: Duration = Duration::from_mins(10);

/// Time between two searches.
const EVERY: Duration = Duration::from_secs(1);

/// Whether a worker may have leases that it does not know of.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    until: Option<Instant>,
    looked: Option<Instant>,
}

impl Orphans {
    /// Notes that a claim ended with this error and that its answer is unknown.
    pub(super) fn expect(&mut self, shared: &Shared, error: &StoreError) {
        // The old back end may take this long to commit the claim, and its lease is valid for this
        // long.
        let usual = shared.config.lease.max(shared.config.query_timeout) + MARGIN;
        let wait = if matches!(error.kind(), StoreErrorKind::Unanswered) {
            usual.max(HANGING_MAX)
        } else {
            usual
        };
        self.until = Some(Instant::now() + wait);
        self.looked = None;
    }

    /// Says whether there may still be an orphaned lease.
    pub(super) fn are_possible(&self) -> bool {
        self.until.is_some()
    }

    /// Makes the next call of [`Orphans::release`] search.
    pub(super) fn look_at_once(&mut self) {
        self.looked = None;
    }

    /// Ends the orphaned leases if a search is due; says whether it ended any.
    pub(super) fn release(&mut self, shared: &Shared, link: &mut Link) -> Result<bool, StoreError> {
        let Some(until) = self.until else {
            return Ok(false);
        };
        if self.looked.is_some_and(|looked| looked.elapsed() < EVERY) {
            return Ok(false);
        }
        let in_hand = shared.leases.tokens();
        let n_leases = link.aside(Patience::Usual, |session| {
            session.release_orphans(&shared.owner.worker, &in_hand)
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
