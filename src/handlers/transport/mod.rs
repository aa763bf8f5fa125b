//! The connections of an http route, which tolerate the peculiarities of receivers.
//!
//! The HTTP client keeps its pool, its protocol and its deadlines; this module decides how bytes
//! get to the receiver and which part of an answer the client sees: `addresses` connects, to those
//! that `guard` leaves, `tls` encrypts as `trust` says, with the route's `credentials`, `wire` moves
//! bytes without waiting, and `mend` makes up for the peculiarities of receivers: `head` reads the
//! head of an answer for it, `framing` finds the end of its body.
//!
//! Why not the client's own transport: it sends to the end before it reads, and it takes neither a
//! verifier of ours nor a connection's age. Why not another client: reqwest loses the early answer
//! and the same events at closing connections, and it brings a runtime.

mod addresses;
mod credentials;
mod exchange;
mod framing;
mod guard;
mod head;
mod mend;
mod tls;
mod trust;
mod verifier;
mod wait;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector, LazyBuffers};

use addresses::Addresses;
use mend::Habits;
use tls::Encrypted;
use wait::Deadline;
use wire::Wire;

pub use credentials::{CertificateFiles, Credentials};
pub(super) use guard::{public, refusal};
pub use mend::{Mend, Stale};
pub(super) use trust::Roots;

/// How long a connection is used. A name may move to another address while a busy route never lets
/// its connections go idle; a minute is what common name servers let an answer be kept for.
pub const LIFE: Duration = Duration::from_mins(1);

/// Makes the connections to one receiver.
pub struct Connections {
    addresses: Addresses,
    /// What https is spoken with.
    credentials: Option<Arc<Credentials>>,
    habits: Arc<Habits>,
    life: Duration,
    is_guarded: bool,
}

impl Connections {
    /// Makes connections that are used for up to `life`, encrypted where the URL says so and
    /// `credentials` are there.
    pub fn new(credentials: Option<Arc<Credentials>>, life: Duration) -> Connections {
        Connections {
            addresses: Addresses::default(),
            credentials,
            habits: Arc::default(),
            life,
            is_guarded: false,
        }
    }

    /// Makes connections to addresses of the Internet alone (`guard`).
    #[must_use]
    pub fn guarded(mut self) -> Connections {
        self.is_guarded = true;
        self
    }
}

impl Connector for Connections {
    type Out = Mend;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Mend>, Error> {
        let deadline = Deadline::of(details.timeout);
        let socket = if self.is_guarded {
            let addresses =
                public(&details.addrs).map_err(|error| Error::Other(Box::new(error)))?;
            self.addresses.connect(&addresses, deadline)?
        } else {
            self.addresses.connect(&details.addrs, deadline)?
        };
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let wire = match &self.credentials {
            Some(credentials) if details.needs_tls() => {
                let host = details.uri.host().unwrap_or_default();
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let trust = credentials.current();
                Wire::Tls(Box::new(Encrypted::connect(socket, host, trust, deadline)?))
            }
            _ => Wire::Plain(socket),
        };
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        let ends_at = Instant::now() + self.life;
        Ok(Some(Mend::new(
            wire,
            Arc::clone(&self.habits),
            ends_at,
            buffers,
        )))
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
