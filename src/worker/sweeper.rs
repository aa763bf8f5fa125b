//! The sweeper ends leases that their workers let expire: those of a host that is lost, most likely.
//!
//! The keeper says which, and goes on renewing: a sweep waits for every row of a lease that somebody else has locked. Nobody can know which
//! of its events were being handled when its worker vanished, so each is charged an attempt.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, TryRecvError};
use log::{info, warn};

use crate::event::{Outcome, obituary};
use crate::store::lease::Lease;
use crate::store::settle::{SettleBatch, Settlement, Written};
use crate::store::{EventBrief, StoreError};
use crate::worker::link::{Link, Patience};
use crate::worker::pulse::Stage;
use crate::worker::shared::Shared;

/// Sweeps what the keeper hands over until that has ended.
pub(super) fn run(expired: Receiver<Vec<Lease>>, shared: &Shared) {
    let mut sweeper = Sweeper {
        shared,
        link: Link::new(shared, Stage::Sweeper, &shared.pool),
        expired,
    };
    while let Ok(leases) = sweeper.expired.recv() {
        if sweeper.sweep(leases).is_err() {
            // The link has told the log. Others may have been cut off, too: what was seen expired before does not count.
            shared.has_sweep_failed.store(true, Ordering::Relaxed);
        }
    }
}

struct Sweeper<'a> {
    shared: &'a Shared,
    link: Link<'a>,
    expired: Receiver<Vec<Lease>>,
}

/// What an event of an expired lease is charged.
struct Charge {
    route: Option<usize>,
    attempt: u32,
    settlement: Settlement,
}

impl Sweeper<'_> {
    fn sweep(&mut self, leases: Vec<Lease>) -> Result<(), StoreError> {
        for lease in leases {
            if self.is_stopped() {
                break;
            }
            let charges = self.charges(&lease)?;
            match self.end(&lease, &charges) {
                Ok(()) => {}
                Err(error) if error.is_connection_lost() => return Err(error),
                // Somebody else holds one of its rows; that holds up no other lease, and the link has told the log.
                Err(_) => self.end_what_can_be(&lease, &charges)?,
            }
        }
        Ok(())
    }

    /// Says whether the worker drains: what is left is swept by another one.
    fn is_stopped(&self) -> bool {
        self.expired.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Charges every event of an expired lease and deletes it, unless its worker renewed it at the last moment.
    fn end(&mut self, lease: &Lease, charges: &[Charge]) -> Result<(), StoreError> {
        let written = self.charge(Patience::Usual, lease, charges, &[lease.token])?;
        if !written.is_empty() || lease.event_ids.is_empty() {
            self.shared.metrics.lease_sweeps.inc();
            info!(
                "swept the expired lease of worker {}: {} events are due again later",
                lease.worker,
                written.len()
            );
        }
        Ok(())
    }

    /// Charges the events of a lease one by one, with little patience; what cannot be written stays named for the next look.
    fn end_what_can_be(&mut self, lease: &Lease, charges: &[Charge]) -> Result<(), StoreError> {
        for charge in charges {
            if self.is_stopped() {
                break;
            }
            let charges = std::slice::from_ref(charge);
            match self.charge(Patience::Short, lease, charges, &[]) {
                Err(error) if error.is_connection_lost() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Writes charges and counts those that stand now.
    fn charge(
        &mut self,
        patience: Patience,
        lease: &Lease,
        charges: &[Charge],
        ended: &[i64],
    ) -> Result<Vec<Written>, StoreError> {
        let outcomes: Vec<Settlement> = charges.iter().map(|one| one.settlement.clone()).collect();
        let batch = SettleBatch {
            worker: &lease.worker,
            outcomes: &outcomes,
            ended,
            expired: true,
        };
        let written = self
            .link
            .call_with(patience, |session| session.settle(&batch))?;
        let stands: HashSet<i64> = written
            .iter()
            .filter(|written| written.written)
            .map(|written| written.event_id)
            .collect();
        for Charge {
            route,
            attempt,
            settlement,
        } in charges
            .iter()
            .filter(|one| stands.contains(&one.settlement.event_id))
        {
            let outcome = &settlement.outcome;
            self.shared.metrics.settled(*route, outcome, *attempt);
            if let Outcome::Dead { reason } = outcome {
                warn!("{}", obituary(settlement.event_id, *attempt, reason));
            }
        }
        Ok(written)
    }

    fn charges(&mut self, lease: &Lease) -> Result<Vec<Charge>, StoreError> {
        let events = self
            .link
            .call(|session| session.events_brief(&lease.event_ids))?;
        let reason = format!(
            "lease of worker {} expired while the event was claimed",
            lease.worker
        );
        let charge = |event: &EventBrief| {
            let routes = &self.shared.routes;
            let policy = routes.retry_policy(&event.event_type);
            Charge {
                route: routes.find(&event.event_type),
                attempt: event.attempts.saturating_add(1),
                settlement: event.charge(lease.token, &policy, &reason, fastrand::f64()),
            }
        };
        Ok(events.iter().map(charge).collect())
    }
}
