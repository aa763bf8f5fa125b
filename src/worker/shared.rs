//! What the threads of a worker share, and the channels between them.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::Config;
use crate::handler::{Handlers, Routes};
use crate::in_hand::{InHandFile, Owner};
use crate::metrics::WorkerMetrics;
use crate::settings::WorkerSettings;
use crate::store::{Pool, Timeouts};
use crate::worker::claim::{Claim, Finished, RunnerState};
use crate::worker::leases::Leases;
use crate::worker::outage::Outage;
use crate::worker::pulse::Pulse;

/// Whatever a call of the keeper meets, the next renewal comes in time: to connect and to renew take a third of a lease at most. A network
/// needs this much, however short a lease is.
const KEEPER_CALL_MIN: Duration = Duration::from_secs(1);

/// The channel ends that the stages are given.
pub(super) struct Channels {
    /// The fetcher's end of the queue.
    pub(super) claims: Sender<Claim>,
    /// The runners' end of it.
    pub(super) queue: Receiver<Claim>,
    /// Where outcomes go.
    pub(super) finished: Sender<Finished>,
    /// The settler's end of that.
    pub(super) outcomes: Receiver<Finished>,
    /// Tells the fetcher that the queue runs low.
    pub(super) room: Receiver<()>,
    /// Tells the fetcher that a route with a limit has room again.
    pub(super) route_room: Receiver<()>,
}

/// What the threads of a worker share.
pub(super) struct Shared {
    /// What was configured.
    pub(super) config: Config,
    /// Who this worker is.
    pub(super) owner: Owner,
    /// Event type → handler.
    pub(super) routes: Routes,
    /// What it counts.
    pub(super) metrics: WorkerMetrics,
    /// What its runners are handling.
    pub(super) in_hand: InHandFile,
    /// The leases in hand.
    pub(super) leases: Leases,
    /// Connections of fetcher, settler and sweeper.
    pub(super) pool: Pool,
    /// The keeper's own connection: what blocks the others does not hold up a renewal.
    pub(super) keeper_pool: Pool,
    /// How long its calls have been out.
    pub(super) pulse: Pulse,
    /// What its database calls come to, and what the log has been told of that.
    pub(super) outage: Outage,
    /// When it started.
    pub(super) epoch: Instant,
    /// It claims and starts no more.
    pub(super) is_draining: AtomicBool,
    /// A sweep was broken off since the keeper looked last.
    pub(super) has_sweep_failed: AtomicBool,
    /// The server may still commit a claim that this worker gave up. Its in-hand file stays then, so that somebody looks for that.
    pub(super) may_claim_late: AtomicBool,
    /// Events were given back unstarted while the worker goes on: they lie behind the fetcher's cursors.
    pub(super) gave_back: AtomicBool,
    /// Payload bytes in the queue: a few large events fill it as many small ones do.
    pub(super) queued_bytes: AtomicU64,
    /// Runs that have ended, and events that were given back unstarted.
    pub(super) runs_ended: AtomicU64,
    /// What each runner is doing.
    pub(super) runner_states: Vec<RunnerState>,
    /// Events in the queue and in hand, per route.
    pub(super) route_load: Vec<AtomicUsize>,
    /// Most events claimed and not settled: bounds the outcomes that wait for the settler.
    pub(super) in_flight_max: usize,
    /// Queue length at which the fetcher wants to know.
    pub(super) low_water: AtomicUsize,
    /// Its length is what the fetcher wants to know; nobody receives here but the drain.
    pub(super) queue: Receiver<Claim>,
    /// Says that the queue runs low.
    pub(super) room: Sender<()>,
    /// Says that a route with a limit has room again.
    pub(super) route_room: Sender<()>,
}

impl Shared {
    /// Puts together what a worker's threads share, and the ends of the channels between them.
    pub(super) fn new(
        settings: WorkerSettings,
        handlers: &Handlers,
    ) -> Result<(Shared, Channels), String> {
        let WorkerSettings {
            owner,
            directory,
            in_hand_name,
            config,
            dsn,
            ..
        } = settings;
        let routes = Routes::new(&config, handlers).map_err(|error| error.to_string())?;
        let in_hand = InHandFile::create(&directory, &in_hand_name, &owner)
            .map_err(|error| format!("in-hand file in `{}`: {error}", directory.display()))?;
        let patterns = (0..routes.len()).map(|index| routes.get(index).pattern.as_str());
        let metrics = WorkerMetrics::new(patterns).map_err(|error| error.to_string())?;
        let timeouts = Timeouts {
            connect: config.connect_timeout,
            query: config.query_timeout,
        };
        let n_runners = usize::from(config.max_parallel.get());
        // Two claims: the next one comes while this one is worked off.
        let queue_max = 2 * usize::from(config.claim_events_max());
        let in_flight_max = 2 * queue_max + n_runners;
        let (claims, queue) = bounded(queue_max);
        let (finished, outcomes) = bounded(in_flight_max);
        let (room_sender, room) = bounded(1);
        let (route_room_sender, route_room) = bounded(1);
        let shared = Shared {
            pool: Pool::new(
                dsn.clone(),
                timeouts,
                config.pool_size,
                &owner.application_name,
            ),
            keeper_pool: Pool::new(
                dsn,
                keeper_timeouts(timeouts, config.lease),
                NonZeroU16::MIN,
                &owner.application_name,
            ),
            leases: Leases::new(config.lease),
            pulse: Pulse::default(),
            outage: Outage::default(),
            epoch: Instant::now(),
            is_draining: AtomicBool::new(false),
            has_sweep_failed: AtomicBool::new(false),
            may_claim_late: AtomicBool::new(false),
            gave_back: AtomicBool::new(false),
            queued_bytes: AtomicU64::new(0),
            runs_ended: AtomicU64::new(0),
            runner_states: (0..n_runners).map(|_| RunnerState::default()).collect(),
            route_load: (0..routes.len()).map(|_| AtomicUsize::new(0)).collect(),
            in_flight_max,
            low_water: AtomicUsize::new(0),
            queue: queue.clone(),
            room: room_sender,
            route_room: route_room_sender,
            owner,
            metrics,
            in_hand,
            routes,
            config,
        };
        Ok((
            shared,
            Channels {
                claims,
                queue,
                finished,
                outcomes,
                room,
                route_room,
            },
        ))
    }

    /// Notes that a claim has left the queue.
    pub(super) fn left_queue(&self, claim: &Claim) {
        let bytes = claim.event.payload.len() as u64;
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.queue_moved();
    }

    /// Tells the fetcher when the queue runs low.
    pub(super) fn queue_moved(&self) {
        if self.queue.len() <= self.low_water.load(Ordering::Relaxed) {
            // Full means that it has been told already.
            let _ = self.room.try_send(());
        }
    }

    /// Events claimed and not settled.
    pub(super) fn in_flight(&self) -> usize {
        usize::try_from(self.metrics.in_flight.get()).unwrap_or(0)
    }

    /// Most events of a route in flight, where that is less than all runners could handle.
    pub(super) fn route_limit(&self, route: usize) -> Option<usize> {
        let limit = self.routes.get(route).max_parallel?.get();
        (limit < self.config.max_parallel.get()).then_some(usize::from(limit))
    }

    /// Says whether a route has a limit that matters.
    pub(super) fn is_limited(&self, route: Option<usize>) -> bool {
        route.is_some_and(|route| self.route_limit(route).is_some())
    }

    /// How many more events of this route may be claimed.
    pub(super) fn route_room(&self, route: usize) -> usize {
        self.route_limit(route)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.route_load[route].load(Ordering::Relaxed))
    }

    /// Takes a place in the route; `false` when there is none.
    pub(super) fn enter_route(&self, route: Option<usize>) -> bool {
        let Some(route) = route else { return true };
        // Only the fetcher enters, so nobody takes the place between the look and the step.
        if self.route_room(route) == 0 {
            return false;
        }
        self.route_load[route].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Gives back the place in the route.
    pub(super) fn left_route(&self, route: Option<usize>) {
        if let Some(route) = route {
            self.route_load[route].fetch_sub(1, Ordering::Relaxed);
            if self.is_limited(Some(route)) {
                let _ = self.route_room.try_send(());
            }
        }
    }

    /// Milliseconds after the epoch at which `wait` from now is over; never 0.
    pub(super) fn ms_at(&self, wait: Duration) -> u64 {
        u64::try_from((self.epoch.elapsed() + wait).as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Library handlers that run longer than their timeout.
    pub(super) fn stuck_runners(&self) -> usize {
        let now = self.ms_at(Duration::ZERO);
        let is_stuck = |state: &&RunnerState| {
            let due_back = state.due_back_ms.load(Ordering::Relaxed);
            due_back != 0 && due_back < now
        };
        self.runner_states.iter().filter(is_stuck).count()
    }
}

/// Bounds the keeper's calls by the lease: a renewal has to come through before that is over.
fn keeper_timeouts(usual: Timeouts, lease: Duration) -> Timeouts {
    let most = (lease / 6).max(KEEPER_CALL_MIN);
    Timeouts {
        connect: usual.connect.min(most),
        query: usual.query.min(most),
    }
}
