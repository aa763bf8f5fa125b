//! The sweeper ends expired leases: those of lost workers, charging every event; those of this
//! worker's claims whose answer was lost, uncharged; and it looks again at events that could not be
//! read.
//!
//! The keeper finds the leases and goes on renewing meanwhile, because a sweep waits for every
//! locked row of a lease. It is unknown which events of the lease were being handled when its
//! worker vanished, so each is charged an attempt.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use log::{debug, info, warn};

use crate::domain::figure::counted;
use crate::store::lease::Lease;
use crate::store::settle::Settlement;
use crate::store::sweep::{self, Charge, EventBrief, charge_each};
use crate::store::{SecondLook, StoreError, Unreadable, look_waits};
use crate::worker::link::{Link, Patience};
use crate::worker::shared::Shared;
use crate::worker::stage::Stage;

/// Longest time for all events of a lease in one.
const LEASE_LIMIT: Duration = Duration::from_secs(4);

/// The longest time for some of them one by one. An event that takes more than half of it is left
/// for later.
const PART_LIMIT: Duration = Duration::from_secs(1);

/// The most locked events of a lease for which one look waits.
const LOCKED_MAX: usize = 5;

/// When a lease of which something is refused is looked at again.
const POSTPONED: Duration = Duration::from_mins(1);

/// The most leases that are remembered as logged. If there are more at once, they have the same
/// cause.
const LOGGED_MAX: usize = 1000;

/// Sweeps what the keeper hands over until that has ended.
pub(super) fn run(expired: Receiver<Vec<Lease>>, shared: &Shared) {
    let mut sweeper = Sweeper {
        shared,
        link: Link::new(shared, Stage::Sweeper),
        expired,
        logged: HashSet::new(),
    };
    while let Ok(leases) = sweeper.expired.recv() {
        if sweeper.sweep(leases).is_err() {
            // The link has logged the error. Other workers may have been cut off, too, so leases
            // that were seen expired before do not count.
            shared.has_sweep_failed.store(true, Ordering::Relaxed);
        }
    }
}

struct Sweeper<'a> {
    shared: &'a Shared,
    link: Link<'a>,
    expired: Receiver<Vec<Lease>>,
    /// Leases for which it was logged that they cannot be swept.
    logged: HashSet<i64>,
}

impl Sweeper<'_> {
    fn sweep(&mut self, leases: Vec<Lease>) -> Result<(), StoreError> {
        for lease in leases {
            if is_stopped(&self.expired) {
                break;
            }
            if lease.is_of_unreadable() {
                match self.look_again() {
                    Err(error) if error.is_connection_lost() => return Err(error),
                    // The link has logged the error. The leases of other workers are swept next.
                    Ok(()) | Err(_) => continue,
                }
            }
            let is_forgotten = self.is_forgotten(&lease);
            let charges = if is_forgotten {
                Vec::new()
            } else {
                self.charges(&lease)?
            };
            match self.end(&lease, &charges) {
                Ok(()) if is_forgotten => {
                    info!("released an expired lease of a claim whose answer was lost");
                    self.shared.ledger.gave_back();
                }
                Ok(()) => {}
                Err(error) if error.is_connection_lost() => return Err(error),
                // Another session has locked one of the rows. That delays no other lease, and the
                // link has logged the error.
                Err(_) => self.end_what_can_be(&lease, &charges)?,
            }
        }
        Ok(())
    }

    /// Says whether a lease is an orphaned one of this worker: its claim was committed long after
    /// its answer was lost, and none of its events has run.
    fn is_forgotten(&self, lease: &Lease) -> bool {
        lease.worker == self.shared.owner.worker
            && !self.shared.leases.tokens().contains(&lease.token)
    }

    /// Looks again at events that could not be read, and logs the result.
    fn look_again(&mut self) -> Result<(), StoreError> {
        let waits = look_waits(&self.shared.config.retry);
        for look in self.link.call(|session| session.look_again(&waits))? {
            match look {
                SecondLook::Free(id) => info!("event {id} can be read again"),
                SecondLook::Waits(Unreadable { event_id, error }) => {
                    debug!("event {event_id} still waits: {error}");
                }
                SecondLook::Dead(Unreadable { event_id, error }) => {
                    warn!(
                        "event {event_id} is dead after {} looks: {error}",
                        waits.len()
                    );
                }
            }
        }
        Ok(())
    }

    /// Charges every event of an expired lease and deletes it, unless its worker renewed it at the
    /// last moment.
    fn end(&mut self, lease: &Lease, charges: &[Charge]) -> Result<(), StoreError> {
        let outcomes: Vec<Settlement> = charges.iter().map(|one| one.settlement.clone()).collect();
        let patience = Patience::Batch(LEASE_LIMIT);
        let written = self.link.call_with(patience, |session| {
            session.settle(&lease.batch(&outcomes, true, true))
        })?;
        let standing = sweep::written(charges, &written);
        self.count(&standing);
        if let Some(kept) = written.iter().find(|written| written.kept) {
            return self.postpone(lease, kept.event_id, &StoreError::kept("charge an attempt"));
        }
        if !written.is_empty() || lease.event_ids.is_empty() {
            self.shared.metrics.lease_sweeps.inc();
            info!(
                "swept the expired lease of worker {}: {} charged an attempt",
                lease.worker,
                counted(standing.len(), "event")
            );
        }
        Ok(())
    }

    /// Charges the events of a lease one by one, with short time limits. The lease goes on naming
    /// the events that cannot be written. Locked ones are tried at the next look, refused ones at a
    /// later look, so that no keeper tries them all the time.
    fn end_what_can_be(&mut self, lease: &Lease, charges: &[Charge]) -> Result<(), StoreError> {
        let Sweeper { link, expired, .. } = self;
        let swept = charge_each(
            charges,
            |swept| swept.failed.is_none() && swept.n_locked() < LOCKED_MAX && !is_stopped(expired),
            |outcomes, _| {
                link.call_with(Patience::Part(PART_LIMIT), |session| {
                    session.settle_each(&lease.batch(outcomes, false, true))
                })
            },
        );
        self.count(&swept.written);
        for (_, error) in &swept.refused {
            self.shared.metrics.db_error(error.reason());
        }
        match swept.failed {
            Some(error) if error.is_connection_lost() => return Err(error),
            // The link has logged the error.
            Some(_) | None => {}
        }
        let mut refused = swept.refused.into_iter();
        let in_the_way = refused.rfind(|(_, error)| !error.is_lock_timeout());
        match in_the_way {
            Some((event_id, error)) => self.postpone(lease, event_id, &error),
            None => Ok(()),
        }
    }

    /// Postpones the next look at a lease whose events cannot all be charged, and logs that once.
    fn postpone(
        &mut self,
        lease: &Lease,
        event: i64,
        error: &StoreError,
    ) -> Result<(), StoreError> {
        if self.logged.len() >= LOGGED_MAX {
            self.logged.clear();
        }
        if self.logged.insert(lease.token) {
            warn!(
                "event {event} of the expired lease of worker {}: {error}; it is tried again each {} s",
                lease.worker,
                POSTPONED.as_secs()
            );
        }
        self.link
            .call(|session| session.postpone_lease(lease, POSTPONED))
    }

    /// Counts the charges that were written.
    fn count(&self, written: &[&Charge]) {
        for charge in written {
            let route = self.shared.routes.find(&charge.event_type);
            let outcome = &charge.settlement.outcome;
            self.shared.metrics.settled(route, outcome, charge.attempt);
            if let Some(message) = charge.dead_letter() {
                warn!("{message}");
            }
        }
    }

    fn charges(&mut self, lease: &Lease) -> Result<Vec<Charge>, StoreError> {
        let events = self
            .link
            .call(|session| session.events_brief(&lease.event_ids))?;
        let reason = format!(
            "lease of worker {} expired while the event was claimed",
            lease.worker
        );
        let charge = |event: EventBrief| {
            let policy = self.shared.routes.retry_policy(&event.event_type);
            event.charge(lease.token, &policy, &reason, fastrand::f64())
        };
        Ok(events.into_iter().map(charge).collect())
    }
}

/// Says whether the worker drains: another worker sweeps the remaining leases.
fn is_stopped(expired: &Receiver<Vec<Lease>>) -> bool {
    expired.try_recv() == Err(TryRecvError::Disconnected)
}
