//! What the threads of a worker share, and the channels between them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::domain::config::Config;
use crate::domain::protocol::{Owner, WorkerSettings};
use crate::handlers::{Handlers, Routes};
use crate::status::metrics::WorkerMetrics;
use crate::store::dsn::Dsn;
use crate::system::in_hand::InHandFile;
use crate::worker::claim::{Claim, Finished};
use crate::worker::leases::Leases;
use crate::worker::ledger::{Ledger, Room};
use crate::worker::outage::Outage;
use crate::worker::pools::Pools;
use crate::worker::watchdog::Watchdog;

/// The channel ends that the stages are given.
pub(super) struct Channels {
    /// The fetcher's end of the queue.
    pub(super) claims: Sender<Claim>,
    /// The runners' end of the queue.
    pub(super) queue: Receiver<Claim>,
    /// The senders' end of the outcomes.
    pub(super) finished: Sender<Finished>,
    /// The settler's end of the outcomes.
    pub(super) outcomes: Receiver<Finished>,
    /// Tells the fetcher that there is room again.
    pub(super) room: Room,
}

/// What the threads of a worker share.
pub(super) struct Shared {
    /// The configuration.
    pub(super) config: Config,
    /// The name and id of this worker.
    pub(super) owner: Owner,
    /// Event type → handler.
    pub(super) routes: Routes,
    /// The metrics of this worker.
    pub(super) metrics: WorkerMetrics,
    /// The in-hand file: the events that the runners are handling.
    pub(super) in_hand: InHandFile,
    /// How much of each limit is in use.
    pub(super) ledger: Arc<Ledger>,
    /// The leases in hand.
    pub(super) leases: Leases,
    /// The handlers and the database calls that take too long.
    pub(super) watchdog: Watchdog,
    /// The connections of the stages.
    pub(super) pools: Pools,
    /// The results of its database calls, and what was logged about them.
    pub(super) outage: Outage,
    /// The worker drains: it claims and starts no more events.
    pub(super) is_draining: AtomicBool,
    /// A sweep has failed since the keeper's last look.
    pub(super) has_sweep_failed: AtomicBool,
    /// The server may have committed, or may still commit, a claim that this worker gave up. The
    /// in-hand file stays then, so that the supervisor looks for the lease.
    pub(super) may_claim_late: AtomicBool,
}

impl Shared {
    /// Puts together what a worker's threads share, and the ends of the channels between them.
    pub(super) fn new(
        settings: WorkerSettings<Dsn>,
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
        let names = (0..routes.len()).map(|index| routes.get(index).name.as_str());
        let metrics = WorkerMetrics::new(names).map_err(|error| error.to_string())?;
        let (ledger, room) = Ledger::new(&config, &routes);
        let (claims, queue) = bounded(ledger.queue_max());
        let (finished, outcomes) = bounded(ledger.in_flight_max());
        let shared = Shared {
            pools: Pools::new(&dsn, &config, &owner.application_name),
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
