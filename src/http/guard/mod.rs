//! The guard: an accept loop of our own in front of tiny_http, so that every request from the
//! network reaches tiny_http clean or not at all.
//!
//! tiny_http 0.12 must not face a network bare: one `Content-Length` of 10^15 aborts the process, a
//! request line with `HTTP/2.0` leaks a thread and two descriptors, four stuck bodies starve
//! /health, a reset at the wrong moment ends a thread, and it has neither timeouts nor caps. The
//! guard promises tiny_http whole, canonical requests, each on a connection of its own over a
//! private unix socket. It promises the rest of the daemon that a client can hold no more than one
//! of a bounded number of places, for a bounded time.
//!
//! There is a thread per connection, as many as there are places. The places are few, and a loop
//! over readiness would be more code than the threads are. Refused: limits by peer address, since
//! behind a balancer all peers are one; and a timeout on the listener itself, which ends accept
//! loops.

mod connection;
mod framing;
#[cfg(test)]
mod fuzz;
mod head;
pub(super) mod places;
mod refusal;
mod timed;

use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use rustix::event::{PollFd, PollFlags, poll};

use crate::http::backend::Backend;
use crate::system::incident::Incident;
use crate::system::threads::{self, Thread};
use connection::Connection;
use places::ConnectionPlaces;

/// Connections that wait for the accept loop; the kernel may allow fewer (net.core.somaxconn, 4096
/// by default). A client whose connection finds no room in this queue tries again after a second.
/// So the queue holds what a flood brings while the accept loop waits for its turn on a busy
/// machine: with 1024, one probe of thirty was late under a flood of resets, with the 128 of the
/// standard library every burst was felt.
const BACKLOG: i32 = 4096;

/// Stack of a connection's thread: enough for a buffer and a parser. The default of 2 MiB times 128
/// would count against limits on address space.
const STACK: usize = 256 * 1024;

/// The accept loop and what it has accepted.
pub(super) struct Guard {
    places: Arc<ConnectionPlaces>,
    /// Dropping it tells the accept loop to end.
    stop: PipeWriter,
    thread: Thread,
}

impl Guard {
    /// Accepts on `listener` and hands over to `backend`.
    pub(super) fn start(listener: TcpListener, backend: Arc<Backend>) -> io::Result<Guard> {
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let places = Arc::new(ConnectionPlaces::new(places::affordable()));
        let (stopped, stop) = io::pipe()?;
        let acceptor = Acceptor {
            listener,
            places: Arc::clone(&places),
            stopped,
            backend,
        };
        let thread = threads::start("guard", move || acceptor.accept_all())?;
        Ok(Guard {
            places,
            stop,
            thread,
        })
    }

    /// Stops: accepts only connections that wait already. Answers under way are finished within
    /// `limit`, or not at all.
    pub(super) fn stop(self, limit: Duration) {
        drop(self.stop);
        // Under a flood the queue is never empty; then the accept loop ends with the process.
        let _ = self.thread.join_within(limit);
        self.places.close(limit);
    }
}

/// What the accept loop works with.
struct Acceptor {
    listener: TcpListener,
    places: Arc<ConnectionPlaces>,
    /// Ends when the loop is to end.
    stopped: PipeReader,
    backend: Arc<Backend>,
}

impl Acceptor {
    /// Accepts one connection after the other, and ends only when none waits any more: a client in
    /// the queue has been told that it is connected, and closing the listener would reset its
    /// connection.
    fn accept_all(&self) {
        let (mut shortage, mut is_stopping) = (Incident::default(), false);
        for id in 0.. {
            let served = self
                .listener
                .accept()
                .and_then(|(client, peer)| self.serve(id, client, peer));
            match served {
                Ok(()) => {
                    if shortage.over().is_some() {
                        info!("the HTTP port accepts connections again");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if is_stopping {
                        return;
                    }
                    // Connections that arrived together with the order to end are still accepted.
                    is_stopping = self.wait();
                }
                // The client has caused the error, and the connection is gone.
                Err(error) if is_passing(&error) => {}
                // No descriptor, no thread, no memory: the connection that has held one the longest
                // gives it back.
                Err(error) => {
                    if shortage.met(()) {
                        warn!("could not accept a connection on the HTTP port: {error}");
                    }
                    self.places.make_room();
                }
            }
        }
    }

    /// Waits for a connection or for the order to end, and says whether that order has come.
    fn wait(&self) -> bool {
        let mut fds = [
            PollFd::new(&self.stopped, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        // The wait was interrupted, or the system is short of memory: the next accept tells more.
        let _ = poll(&mut fds, None);
        !fds[0].revents().is_empty()
    }

    fn serve(&self, id: u64, client: TcpStream, peer: SocketAddr) -> io::Result<()> {
        // A flood of connections that were reset while they waited costs no threads.
        if client.take_error()?.is_some() {
            return Ok(());
        }
        let client = Arc::new(client);
        // Without `TCP_NODELAY` the second of two small writes waits until the peer has
        // acknowledged the first. The connection works without it, too.
        let _ = client.set_nodelay(true);
        let connection = Connection {
            place: self.places.take(id, Arc::clone(&client)),
            // A client of IPv4 at a socket for both families is shown by its own address.
            peer: peer.ip().to_canonical(),
            backend: Arc::clone(&self.backend),
            client,
        };
        threads::detach_with_stack("http-client", STACK, move || connection.run())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
