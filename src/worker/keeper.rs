//! The keeper renews the leases in hand, and looks for expired leases.
//!
//! Nothing holds up a renewal: the keeper has a connection of its own, so what blocks a claim or a
//! settle, a locked row for instance, does not block it; each of its calls is bounded by a sixth of
//! the lease, at least 1 s; and the sweeper ([`super::sweeper`]) ends the expired leases, since a
//! sweep waits for the rows of up to 900 events.
//!
//! An expired lease is swept only after it was seen expired twice, with the same expiry, a third of
//! a lease apart by this worker's own clock and with no failed call between: after an outage longer
//! than a lease, or a jump of the database's clock, every living worker has renewed by then,
//! because leases are renewed every quarter of their time: with equal rhythms chance would decide
//! which comes first.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use log::warn;

use crate::store::StoreError;
use crate::store::lease::Lease;
use crate::worker::link::Link;
use crate::worker::shared::Shared;
use crate::worker::stage::Stage;

/// How often expired leases are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Rhythm after a failed call: several renewals fit into the rest of the lease, and an outage that
/// is over is noticed soon.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Leases swept per look.
const SWEEP_LEASES_MAX: u16 = 100;

/// Renews, and hands what has expired to the sweeper, until the stop channel is disconnected.
pub(super) fn run(stop: Receiver<()>, expired: Sender<Vec<Lease>>, shared: &Shared) {
    let mut keeper = Keeper {
        shared,
        expired,
        link: Link::new(shared, Stage::Keeper),
        seen: HashMap::new(),
        missed_once: Vec::new(),
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
                // Others may have failed to renew, too: what was seen expired before does not
                // count.
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
            let looked = keeper.look();
            if looked.is_err() {
                keeper.seen.clear();
            }
            sweep_at = Instant::now()
                + if looked.is_ok() {
                    sweep_every
                } else {
                    RETRY_EVERY.min(sweep_every)
                };
        }
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    /// The channel to the sweeper, which receives only while it has nothing else to do.
    expired: Sender<Vec<Lease>>,
    link: Link<'a>,
    /// Expired leases by token: their expiry and when it was first seen.
    seen: HashMap<i64, (Option<i64>, Instant)>,
    /// Tokens whose leases were gone at the last renewal.
    missed_once: Vec<i64>,
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
            self.missed_once.clear();
            return Ok(0);
        }
        self.tell_lost(&missing)?;
        Ok(missing.len())
    }

    /// Logs the leases that are lost. A lease that was not renewed is gone, has just been settled,
    /// or is locked at the moment: only a lease that is gone at two renewals in a row is lost.
    fn tell_lost(&mut self, missing: &[i64]) -> Result<(), StoreError> {
        let worker = &self.shared.owner.worker;
        let in_database = self.link.call(|session| session.leases_of(worker))?;
        let gone: Vec<i64> = missing
            .iter()
            .copied()
            .filter(|token| in_database.iter().all(|lease| lease.token != *token))
            .collect();
        for token in gone.iter().filter(|token| self.missed_once.contains(token)) {
            if self.shared.leases.lost(*token) {
                warn!("lease {token} is lost: its events that were not started are left to others");
            }
        }
        self.missed_once = gone;
        Ok(())
    }

    /// Looks which leases have expired, and hands on those that were seen expired before.
    fn look(&mut self) -> Result<(), StoreError> {
        if self.shared.has_sweep_failed.swap(false, Ordering::Relaxed) {
            self.seen.clear();
        }
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
            // No worker handles an event that cannot be read, so its lease need not be seen twice.
            if now.duration_since(first) >= wait || lease.is_of_unreadable() {
                due.push(lease);
            }
        }
        self.seen = seen;
        if !due.is_empty() {
            // While the sweeper is busy these leases wait for a later look.
            let _ = self.expired.try_send(due);
        }
        Ok(())
    }
}
