//! What must be there before the first event: routes, signals, a directory, and the threads that
//! wait for the database.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use log::{info, warn};

use crate::domain::config::Config;
use crate::domain::figure::counted;
use crate::domain::usage::EXIT_CONFIG;
use crate::handlers::{Handlers, Routes};
use crate::status::metrics::WorkerMetrics;
use crate::status::published::Published;
use crate::store::Timeouts;
use crate::store::dsn::Dsn;
use crate::supervisor::observer::Observer;
use crate::supervisor::orphan_recovery::OrphanRecovery;
use crate::supervisor::publisher::Publisher;
use crate::supervisor::self_probe::SelfProbe;
use crate::supervisor::slot::{Identity, Slot};
use crate::supervisor::sweeper::Sweeper;
use crate::supervisor::{Phase, StartFailure, Supervisor};
use crate::system::directory::PrivateDirectory;
use crate::system::process;
use crate::system::signal::SignalThread;

/// Reports that wait while the main loop is busy; their readers wait with them.
const EVENTS_MAX: usize = 64;

/// What a healthy worker may add to the two timeouts of a database call before it counts as wedged.
const WEDGED_MARGIN: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Makes everything ready but starts no worker yet: that is for [`Supervisor::run`], once the
    /// database is usable. `listening_on` is where this daemon's HTTP port is bound.
    pub fn start(
        config: Config,
        dsn: Dsn,
        handlers: &Handlers,
        listening_on: Option<SocketAddr>,
        published: Published,
    ) -> Result<Supervisor, StartFailure> {
        info!(
            "dispatchbox {} starting: {} for {}",
            env!("CARGO_PKG_VERSION"),
            counted(config.processes.get(), "worker process"),
            dsn.identity()
        );
        let routes = Arc::new(build_routes(&config, handlers)?);
        let signals = SignalThread::start().map_err(|error| {
            StartFailure::failed(format!("could not listen to signals: {error}"))
        })?;
        let directory = PrivateDirectory::find().map_err(StartFailure::failed)?;
        if let Some(warning) = &directory.warning {
            warn!("{warning}");
        }
        process::become_subreaper();
        let (sender, events) = bounded(EVENTS_MAX);
        let thread_failed =
            |error| StartFailure::failed(format!("could not start a thread: {error}"));
        let timeouts = Timeouts {
            connect: config.connect_timeout,
            query: config.query_timeout,
        };
        let names = (0..routes.len()).map(|index| routes.get(index).name.as_str());
        let swept = WorkerMetrics::new(names).map_err(|error| {
            StartFailure::failed(format!("could not set up the metrics: {error}"))
        })?;
        let sweeper = Sweeper::start(dsn.clone(), timeouts, Arc::clone(&routes), swept.clone())
            .map_err(thread_failed)?;
        let observer = Observer::start(
            dsn.clone(),
            timeouts,
            routes,
            published.clone(),
            sender.clone(),
        )
        .map_err(thread_failed)?;
        let self_probe = listening_on
            .map(|address| SelfProbe::start(address, published.clone()))
            .transpose()
            .map_err(thread_failed)?;
        Ok(Supervisor {
            identity: Identity::new(dsn.identity()),
            orphan_recovery: OrphanRecovery::new(directory.path.clone(), dsn.identity()),
            wedged_after: timeouts.query + timeouts.connect_all(&dsn) + WEDGED_MARGIN,
            slots: (0..config.processes.get()).map(Slot::new).collect(),
            config,
            dsn,
            directory,
            publisher: Publisher::new(published, swept),
            signals,
            sweeper,
            observer,
            _self_probe: self_probe,
            events,
            sender,
            phase: Phase::Starting,
            last_look: Instant::now(),
            has_failed: false,
        })
    }
}

/// Builds the routes as the workers will, for the labels of metrics and the retry policies of
/// sweeps.
fn build_routes(config: &Config, handlers: &Handlers) -> Result<Routes, StartFailure> {
    let routes = Routes::new(config, handlers).map_err(|error| StartFailure {
        reason: error.to_string(),
        code: EXIT_CONFIG,
    })?;
    if routes.is_sample() {
        warn!(
            "no route is configured: order.created, order.created.analytics and order.created.crm are only logged; \
             give routes by --route, in the file of --config, or in code by Handlers::on"
        );
    }
    Ok(routes)
}
