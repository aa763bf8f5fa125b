//! What the threads of a worker share, and the channels between them.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::Config;
use crate::handler::{Handlers, Routes};
use crate::in_hand::{InHandFile, Owner};
use crate::metrics::WorkerMetrics;
use crate::settings::WorkerSettings;
use crate::store::{Pool, Timeouts};
use crate::worker::claim::{Claim, Finished};
use crate::worker::leases::Leases;
use crate::worker::ledger::{Ledger, Room};
use crate::worker::outage::Outage;
use crate::worker::watchdog::Watchdog;

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
    /// Tells the fetcher that there is room again.
    pub(super) room: Room,
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
    /// Who holds what, and what there is room for.
    pub(super) ledger: Arc<Ledger>,
    /// The leases in hand.
    pub(super) leases: Leases,
    /// The handlers and the database calls that take too long.
    pub(super) watchdog: Watchdog,
    /// Connections of fetcher, settler and sweeper.
    pub(super) pool: Pool,
    /// The keeper's own connection: what blocks the others does not hold up a renewal.
    pub(super) keeper_pool: Pool,
    /// What its database calls come to, and what the log has been told of that.
    pub(super) outage: Outage,
    /// It claims and starts no more.
    pub(super) is_draining: AtomicBool,
    /// A sweep was broken off since the keeper looked last.
    pub(super) has_sweep_failed: AtomicBool,
    /// The server may still commit a claim that this worker gave up, or may have. Its in-hand file stays then, so that somebody looks for
    /// that.
    pub(super) may_claim_late: AtomicBool,
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
        let (ledger, room) = Ledger::new(&config, &routes);
        let (claims, queue) = bounded(ledger.queue_max());
        let (finished, outcomes) = bounded(ledger.in_flight_max());
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
            ledger: Arc::new(ledger),
            leases: Leases::new(config.lease),
            watchdog: Watchdog::new(usize::from(config.max_parallel.get())),
            outage: Outage::default(),
            is_draining: AtomicBool::new(false),
            has_sweep_failed: AtomicBool::new(false),
            may_claim_late: AtomicBool::new(false),
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
            },
        ))
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
