//! The HTTP endpoints: the page, /health, /ready, /metrics and the API.
//!
//! ```text
//! client ── guard ── private unix socket ── tiny_http ── pools ── endpoints
//!           whole, bounded, canonical       backend.rs            method, path, body → reply
//! ```
//!
//! `/health` says that the process lives and never touches the database; `/ready` says whether it
//! should get traffic, with a fixed reason when not; details are in the log, where no stranger
//! reads them.

mod api;
mod backend;
mod guard;
mod listener;
mod page;
mod socket;
mod thread_pool;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};

use crate::status::published::Published;
use crate::store::dsn::Dsn;
pub use api::access::Access;
use api::calls::Calls;
use api::endpoints::Endpoints;
pub use api::token::ApiToken;
use backend::{Backend, Running};
use guard::Guard;
pub use listener::bind;

/// Answers under way are finished within this time, or not at all.
const STOP_MAX: Duration = Duration::from_millis(100);

/// The running endpoints.
pub struct HttpServer {
    guard: Guard,
    running: Running,
}

impl HttpServer {
    /// Answers on `listener` until it is stopped.
    pub fn start(
        listener: TcpListener,
        dsn: Dsn,
        access: Access,
        published: &Published,
    ) -> Result<HttpServer, String> {
        let failed = |error: io::Error| format!("could not start the HTTP endpoints: {error}");
        let address = listener.local_addr().map_err(failed)?;
        if let Some(warning) = access.warning(address) {
            warn!("{warning}");
        }
        let endpoints = Endpoints {
            published: published.clone(),
            access: Arc::new(access),
            calls: Calls::new(dsn),
        };
        let (backend, running) = Backend::start(endpoints).map_err(failed)?;
        let families = listener::families(&listener);
        let guard = Guard::start(listener, backend).map_err(failed)?;
        // The address is the last word of this line: programs that start a daemon wait for it.
        info!("{families}listening on http://{address}");
        Ok(HttpServer { guard, running })
    }

    /// Stops: accepts no more connections, and finishes the answers under way.
    pub fn stop(self) {
        self.guard.stop(STOP_MAX);
        self.running.stop(STOP_MAX);
    }
}
