//! The observer: looks at the database for the daemon as a whole, with or without an HTTP port.
//!
//! The *preflight* waits for a usable database before the first worker starts. The *statistics*
//! count what waits in the table from then on. The *readiness* looks find out whether events could
//! be delivered, for /ready and for the log: when a request asks, and by themselves while the
//! daemon runs.
//!
//! Each of its two threads has a connection of its own. A count may take seconds on a table whose
//! pages are cold, and a request waits for a look no longer than 4.5 s; so no look stands behind a
//! count. The preflight and the statistics follow each other, and share a thread. Where the role
//! may hold a single connection more, the readiness looks get it.

mod preflight;
mod readiness;
mod statistics;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use log::warn;

use crate::handlers::Routes;
use crate::status::looks::Looks;
use crate::status::published::Published;
use crate::store::Timeouts;
use crate::store::dsn::Dsn;
use crate::supervisor::FleetEvent;
use crate::system::threads::{self, Thread};
use statistics::Collection;

/// How long a stop waits for a thread. It does not wait for the end of a call under way.
const STOP_MAX: Duration = Duration::from_millis(20);

/// The running observer.
pub(super) struct Observer {
    looks: Looks,
    stop: Sender<()>,
    readiness: Thread,
    statistics: Thread,
}

impl Observer {
    /// Starts the threads. The answer of the preflight goes to `events`.
    pub(super) fn start(
        dsn: Dsn,
        timeouts: Timeouts,
        routes: Arc<Routes>,
        published: Published,
        events: Sender<FleetEvent>,
    ) -> io::Result<Observer> {
        let looks = published.looks.clone();
        let (dsn_of_looks, published_by_looks) = (dsn.clone(), published.clone());
        let readiness = threads::start("readiness", move || {
            readiness::run(dsn_of_looks, &published_by_looks);
        })?;
        let (stop, stopped) = bounded(0);
        let statistics = threads::start("statistics", move || {
            let Some(answer) = preflight::wait_for_database(&dsn, &timeouts, &stopped) else {
                return;
            };
            let is_usable = answer.is_ok();
            // The supervisor may have left meanwhile.
            let is_wanted = events.send(FleetEvent::Preflight(answer)).is_ok();
            if is_usable && is_wanted {
                Collection::new(dsn, timeouts).run(&stopped, &routes, &published);
            }
        })?;
        Ok(Observer {
            looks,
            stop,
            readiness,
            statistics,
        })
    }

    /// Ends the threads between two calls of the database. A thread in the middle of a call ends
    /// with the process.
    pub(super) fn stop(self) {
        self.looks.close();
        drop(self.stop);
        for (name, thread) in [
            ("readiness", self.readiness),
            ("statistics", self.statistics),
        ] {
            if let Some(Err(_)) = thread.join_within(STOP_MAX) {
                warn!("the observer's thread `{name}` had died");
            }
        }
    }
}
