//! The keeper renews the leases in hand and sweeps those that others let expire.
//!
//! It has a connection of its own, so nothing that blocks a claim or a settle, a locked row for instance, holds up a renewal.
//!
//! An expired lease is swept only after it was seen expired twice, with the same expiry, a third of a lease apart by this
//! worker's own clock and with no failed call between: after an outage longer than a lease, or a jump of the database's clock,
//! every living worker has renewed by then, because leases are renewed every quarter of their time: with equal rhythms chance would
//! decide which comes first. Nobody can know which of its events were being handled when its worker vanished, so
//! each is charged an attempt.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};
use log::{info, warn};

use crate::event::{Outcome, obituary};
use crate::store::lease::Lease;
use crate::store::settle::{SettleBatch, Settlement, Written};
use crate::store::{EventBrief, StoreError};
use crate::worker::link::{Link, Patience};
use crate::worker::pulse::Stage;
use crate::worker::shared::Shared;

/// How often expired leases are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Rhythm after a failed call: several renewals fit into the rest of the lease, and an outage that is over is noticed soon.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Leases swept per look.
const SWEEP_LEASES_MAX: u16 = 100;

/// Renews and sweeps until the stop channel is disconnected.
pub(super) fn run(stop: Receiver<()>, shared: &Shared) {
    let mut keeper = Keeper {
        shared,
        link: Link::new(shared, Stage::Keeper, &shared.keeper_pool),
        seen: HashMap::new(),
        strays: Vec::new(),
    };
    let renew_every = shared.config.lease / 4;
    let sweep_every = SWEEP_EVERY.min(renew_every);
    let (mut renew_at, mut sweep_at) = (Instant::now() + renew_every, Instant::now() + sweep_every);
    loop {
        let wait = renew_at
            .min(sweep_at)
            .saturating_duration_since(Instant::now());
        select! {
            recv(stop) -> _ => return,
            default(wait) => {}
        }
        if Instant::now() >= renew_at {
            let renewed = keeper.renew();
            if renewed.is_err() {
                // Others may have failed to renew, too: what was seen expired before does not count.
                keeper.seen.clear();
            }
            let is_settled = renewed.is_ok_and(|missing| missing == 0);
            renew_at = Instant::now()
                + if is_settled {
                    renew_every
                } else {
                    RETRY_EVERY.min(renew_every)
                };
        }
        if Instant::now() >= sweep_at {
            // The error is logged by the link; what was seen before it does not count.
            let swept = keeper.sweep();
            if swept.is_err() {
                keeper.seen.clear();
            }
            sweep_at = Instant::now()
                + if swept.is_ok() {
                    sweep_every
                } else {
                    RETRY_EVERY.min(sweep_every)
                };
        }
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    link: Link<'a>,
    /// Expired leases by token: their expiry and when it was first seen.
    seen: HashMap<i64, (Option<i64>, Instant)>,
    /// Tokens that the last renewal did not find.
    strays: Vec<i64>,
}

/// What an event of an expired lease is charged.
struct Charge {
    route: Option<usize>,
    attempt: u32,
    settlement: Settlement,
}

impl Keeper<'_> {
    /// Renews all leases in hand; returns how many were not renewed.
    fn renew(&mut self) -> Result<usize, StoreError> {
        let tokens = self.shared.leases.tokens();
        if tokens.is_empty() {
            return Ok(0);
        }
        let (worker, lease) = (&self.shared.owner.worker, self.shared.config.lease);
        let seconds = &self.shared.metrics.renew_seconds;
        let sent = Instant::now();
        let renewed = self.link.call(|session| {
            seconds.observe_closure_duration(|| session.renew(worker, &tokens, lease))
        })?;
        for &token in &renewed {
            self.shared.leases.renewed(token, sent);
        }
        let missing: Vec<i64> = tokens
            .into_iter()
            .filter(|token| !renewed.contains(token))
            .collect();
        if missing.is_empty() {
            self.strays.clear();
            return Ok(0);
        }
        self.tell_lost(&missing)?;
        Ok(missing.len())
    }

    /// Not renewed means gone, settled this moment, or locked this moment: only what is gone twice over is lost.
    fn tell_lost(&mut self, missing: &[i64]) -> Result<(), StoreError> {
        let worker = &self.shared.owner.worker;
        let standing = self.link.call(|session| session.leases_of(worker))?;
        let gone: Vec<i64> = missing
            .iter()
            .copied()
            .filter(|token| standing.iter().all(|lease| lease.token != *token))
            .collect();
        for token in gone.iter().filter(|token| self.strays.contains(token)) {
            if self.shared.leases.lost(*token) {
                warn!("lease {token} is lost: its events that were not started are left to others");
            }
        }
        self.strays = gone;
        Ok(())
    }

    fn sweep(&mut self) -> Result<(), StoreError> {
        let expired = self
            .link
            .call(|session| session.expired_leases(SWEEP_LEASES_MAX))?;
        let now = Instant::now();
        let wait = self.shared.config.lease / 3;
        let mut due = Vec::new();
        let mut seen = HashMap::new();
        for lease in expired {
            let first = match self.seen.get(&lease.token) {
                Some(&(expires_at, first)) if expires_at == lease.expires_at_micros => first,
                _ => now,
            };
            seen.insert(lease.token, (lease.expires_at_micros, first));
            if now.duration_since(first) >= wait {
                due.push(lease);
            }
        }
        self.seen = seen;
        for lease in due {
            let charges = self.charges(&lease)?;
            match self.end(&lease, &charges) {
                Ok(()) => {
                    self.seen.remove(&lease.token);
                }
                Err(error) if error.is_connection_lost() => return Err(error),
                // Somebody else holds one of its rows; that holds up no other lease, and the link has told the log.
                Err(_) => self.end_what_can_be(&lease, &charges)?,
            }
        }
        Ok(())
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
