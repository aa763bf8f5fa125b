//! The sweeper ends the leases of a worker that died while its host lives. It has a thread of its
//! own, because it waits for the database and the main loop must not.
//!
//! The dead worker's in-hand file names what was being handled: exactly those events are charged an
//! attempt, dead when it was their last, and all others of its leases are released uncharged, those
//! among them whose handler has ended and whose outcome is not written. Without this the neighbours
//! of an event that kills its worker would die with it. A back end of the dead worker may still be
//! running a claim, a locked table holds it up for instance, and commit it later; so the sweeper
//! looks again each second until that worker has neither a back end nor a lease.

use std::collections::HashSet;
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use log::{info, warn};

use crate::domain::event::Outcome;
use crate::domain::figure::counted;
use crate::domain::protocol::Owner;
use crate::handlers::Routes;
use crate::status::metrics::WorkerMetrics;
use crate::store::dsn::Dsn;
use crate::store::lease::Lease;
use crate::store::settle::Settlement;
use crate::store::sweep::{Charge, EventBrief, charge_each};
use crate::store::{Limits, Pool, Session, StoreError, Timeouts};
use crate::system::in_hand::{InHand, Remains};
use crate::system::incident::Incident;
use crate::system::pause::sleep_uninterruptibly;
use crate::system::threads::{self, Thread};

/// How often a dead worker is looked at until nothing of it is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The same when this process is about to leave. A back end needs a moment to notice that its
/// worker is gone.
const LAST_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Dead workers watched at once. Those of a crash loop hold no lease, so what does not fit is left
/// to a later look for in-hand files, or to the expiry of its leases.
const WATCHED_MAX: usize = 256;

/// Its connection is closed when no worker has died for this long.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Longest wait for a lock.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// Longest time of a call.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// A worker that died.
pub(super) struct Dead {
    /// The worker's name and id.
    pub(super) owner: Owner,
    /// How it ended, for `last_error`.
    pub(super) end: String,
    /// Its in-hand file.
    pub(super) remains: Option<Remains>,
}

/// The running sweeper.
pub(super) struct Sweeper {
    dead: Option<Sender<Dead>>,
    thread: Thread,
}

impl Sweeper {
    /// Starts the thread.
    pub(super) fn start(
        dsn: Dsn,
        timeouts: Timeouts,
        routes: Arc<Routes>,
        metrics: WorkerMetrics,
    ) -> io::Result<Sweeper> {
        let (sender, dead) = bounded(WATCHED_MAX);
        let thread = threads::start("sweeper", move || {
            let one = NonZeroU16::MIN;
            let mut sweep = Sweep {
                pool: Pool::for_seldom(dsn, timeouts, one, "dispatchbox sweeper", IDLE_MAX),
                timeouts,
                routes,
                metrics,
                outage: Incident::default(),
            };
            sweep.run(&dead);
        })?;
        Ok(Sweeper {
            dead: Some(sender),
            thread,
        })
    }

    /// Hands over a dead worker.
    pub(super) fn sweep(&self, dead: Dead) {
        let Some(sender) = &self.dead else { return };
        if let Err(TrySendError::Full(dead)) = sender.try_send(dead) {
            warn!(
                "too many dead workers to sweep at once: the leases of {} end later",
                dead.owner.worker
            );
        }
    }

    /// Lets it finish its workers, for at most `wait`. The in-hand files of the others stay for the
    /// next supervisor.
    pub(super) fn stop(mut self, wait: Duration) {
        self.dead = None;
        match self.thread.join_within(wait) {
            Some(Ok(())) => {}
            Some(Err(_)) => warn!("the sweeper had died"),
            None => warn!(
                "leaving before the leases of all workers are swept: the next daemon on this host does it, or another one when they end"
            ),
        }
    }
}

struct Sweep {
    pool: Pool,
    timeouts: Timeouts,
    routes: Arc<Routes>,
    metrics: WorkerMetrics,
    outage: Incident,
}

impl Sweep {
    fn run(&mut self, arriving: &Receiver<Dead>) {
        let mut watched: Vec<Dead> = Vec::new();
        let mut is_open = true;
        while is_open || !watched.is_empty() {
            if watched.is_empty() {
                match arriving.recv() {
                    Ok(dead) => watched.push(dead),
                    Err(_) => return,
                }
            }
            watched.extend(arriving.try_iter().take(WATCHED_MAX));
            watched = watched
                .into_iter()
                .filter_map(|dead| self.look(dead))
                .collect();
            let next_look = Instant::now() + LOOK_EVERY;
            while !watched.is_empty() && is_open {
                match arriving.recv_deadline(next_look) {
                    // A new dead worker is swept without delay.
                    Ok(dead) => watched.extend(self.look(dead)),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => is_open = false,
                }
            }
            if !is_open && !watched.is_empty() {
                sleep_uninterruptibly(LAST_LOOK_EVERY);
            }
        }
    }

    /// Sweeps once; returns the worker unless it has neither a back end nor a lease.
    fn look(&mut self, dead: Dead) -> Option<Dead> {
        match self.try_look(&dead) {
            Ok(is_over) => {
                self.outage.over();
                if !is_over {
                    return Some(dead);
                }
                if let Some(remains) = dead.remains {
                    remains.remove();
                }
                None
            }
            Err(error) => {
                self.metrics.db_error(error.reason());
                if self.outage.met(()) {
                    warn!(
                        "could not sweep the leases of {}, trying again: {error}",
                        dead.owner.worker
                    );
                }
                Some(dead)
            }
        }
    }

    fn try_look(&mut self, dead: &Dead) -> Result<bool, StoreError> {
        let mut session = self.pool.get()?;
        // A row that is locked, or has a slow trigger, delays no other row for long: it is tried
        // again in a second.
        session.wait_no_longer(Limits {
            lock: Some(LOCK_WAIT.min(self.timeouts.query / 2)),
            statement: Some(CALL_LIMIT.min(self.timeouts.query)),
        })?;
        // The order matters: the look at the leases sees what a back end has committed before it
        // was gone.
        let has_backend = session.has_backend(&dead.owner.application_name)?;
        let leases = session.leases_of(&dead.owner.worker)?;
        let mut failed = None;
        for lease in &leases {
            match end(&mut session, &self.routes, &self.metrics, dead, lease) {
                Err(error) if error.is_connection_lost() => return Err(error),
                Err(error) => failed = Some(error),
                Ok(()) => self.metrics.lease_sweeps.inc(),
            }
        }
        if let Some(error) = failed {
            // The other leases are ended; this one is tried again in a second.
            return Err(error);
        }
        // A lease that was ended just now is gone; one whose rows are locked is not.
        Ok(
            !has_backend
                && (leases.is_empty() || session.leases_of(&dead.owner.worker)?.is_empty()),
        )
    }
}

/// Ends one lease: releases what was not in hand first, which waits for no row, then charges the
/// rest, one by one so that a row that another session has locked delays no other.
fn end(
    session: &mut Session,
    routes: &Routes,
    metrics: &WorkerMetrics,
    dead: &Dead,
    lease: &Lease,
) -> Result<(), StoreError> {
    let in_hand: HashSet<i64> = dead
        .remains
        .iter()
        .flat_map(|remains| &remains.in_hand)
        .filter(|in_hand: &&InHand| in_hand.token == lease.token)
        .map(|in_hand| in_hand.event_id)
        .collect();
    // A lease names also the events that are done, until it ends. Only waiting ones are charged, or
    // counted as released.
    let waiting = session.events_brief(&lease.event_ids)?;
    let (handled, released): (Vec<EventBrief>, Vec<EventBrief>) = waiting
        .into_iter()
        .filter(EventBrief::is_waiting)
        .partition(|brief| in_hand.contains(&brief.event_id));
    let released: Vec<Settlement> = released
        .iter()
        .map(|&EventBrief { event_id, .. }| Settlement {
            token: lease.token,
            event_id,
            outcome: Outcome::Released,
        })
        .collect();
    session.settle(&lease.batch(&released, handled.is_empty(), false))?;
    let charges = charges(handled, lease, dead, routes);
    let swept = charge_each(
        &charges,
        |_| true,
        |outcomes, is_last| session.settle_each(&lease.batch(outcomes, is_last, false)),
    );
    for charge in &swept.written {
        let route = routes.find(&charge.event_type);
        metrics.settled(route, &charge.settlement.outcome, charge.attempt);
        if let Some(message) = charge.dead_letter() {
            warn!("{message}");
        }
    }
    // If all remaining rows are locked this look changes nothing, and it is repeated each second
    // without a log line.
    if swept.written.len() + released.len() > 0 {
        info!(
            "swept a lease of {}: charged {} in hand, released {}",
            dead.owner.worker,
            counted(swept.written.len(), "event"),
            released.len()
        );
    }
    let mut refused = swept.refused.into_iter().map(|(_, error)| error);
    swept
        .failed
        .or_else(|| refused.next_back())
        .map_or(Ok(()), Err)
}

/// The attempts that the worker is charged for the events that it was handling.
fn charges(handled: Vec<EventBrief>, lease: &Lease, dead: &Dead, routes: &Routes) -> Vec<Charge> {
    let reason = format!(
        "worker {} ended while it handled the event: {}",
        dead.owner.worker, dead.end
    );
    let charge = |brief: EventBrief| {
        let policy = routes.retry_policy(&brief.event_type);
        brief.charge(lease.token, &policy, &reason, fastrand::f64())
    };
    handled.into_iter().map(charge).collect()
}
