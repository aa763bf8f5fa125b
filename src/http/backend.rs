//! The server behind the guard: tiny_http on a private socket. No other file knows it.
//!
//! The accept loop of tiny_http ends for good at its first error, such as a moment without
//! descriptors, and then the socket has no listener. A connection of the guard that fails to
//! connect reports that, and another server takes its place.
//!
//! One thread takes the requests. It answers itself the requests that need no look at anything. The
//! others go to pools, and when a pool is full the answer is 503. So /health never waits for
//! another request.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use log::{debug, error, warn};
use tiny_http::{Header, Request, Response, Server};

use crate::http::api::calls;
use crate::http::api::endpoints::Endpoints;
use crate::http::api::exchange::{Incoming, PEER, Reply};
use crate::http::api::route::{self, Priority};
use crate::http::guard::places;
use crate::http::socket::Socket;
use crate::http::thread_pool::ThreadPool;
use crate::system::directory::PrivateDirectory;
use crate::system::incident::Incident;
use crate::system::threads::{self, Thread};

/// Threads of the pool for looks: enough for a scraper and a person at once, since a look waits for
/// nothing.
const LOOKS: usize = 2;

/// Threads of the pool for probes: enough for a few load balancers. A database that does not answer
/// holds each of these threads for some seconds. The metrics are looked at in such an outage, so
/// looks have other threads.
const PROBES: usize = 4;

/// Threads of the pool for calls: as many as may be in a call, and two more. While all calls are
/// stuck, these two refuse one request after the other, each as soon as it has waited long enough
/// for a place.
const CALLS: usize = calls::CALLS_MAX + 2;

/// Most requests that wait for a thread of their pool: those of a burst of fifty. Each takes its
/// turn in no time while nothing is stuck.
const WAITING_MAX: usize = 50;

/// Requests that may wait for a thread of their pool in any case, however few places the guard has.
const WAITING_MIN: usize = 16;

/// Places of the guard that remain for other requests when the pools for calls and for probes are
/// stuck together with the database, and are as full as they can be: no other request is refused
/// then, and none is cut off.
const REMAINING: usize = 16;

/// Pause between two attempts to listen again.
const RETRY: Duration = Duration::from_millis(100);

/// A server that listens, or has listened until its accept loop ended.
struct Listening {
    server: Server,
    // Dropped after the server: that wakes its accept loop, which then ends.
    socket: Socket,
}

impl Listening {
    fn start() -> io::Result<Listening> {
        let directory = PrivateDirectory::find().map_err(io::Error::other)?;
        let (listener, socket) = Socket::bind(&directory.path)?;
        // tiny_http panics when it cannot start its threads.
        let started = panic::catch_unwind(|| Server::from_listener(listener, None));
        match started {
            Ok(Ok(server)) => Ok(Listening { server, socket }),
            Ok(Err(error)) => Err(io::Error::other(error.to_string())),
            Err(_) => Err(io::Error::other("no thread to be had")),
        }
    }
}

/// The backend as the guard sees it: the socket to hand requests over.
pub(super) struct Backend {
    listening: Mutex<Arc<Listening>>,
}

/// Keeps the backend answering; dropped, it stops.
pub(super) struct Running {
    backend: Arc<Backend>,
    stop: Sender<()>,
    /// Takes the requests.
    thread: Thread,
}

impl Backend {
    /// Starts to answer from `endpoints`.
    pub(super) fn start(endpoints: Endpoints) -> io::Result<(Arc<Backend>, Running)> {
        let backend = Arc::new(Backend {
            listening: Mutex::new(Arc::new(Listening::start()?)),
        });
        let n_waiting = waiting(places::affordable());
        let pool = |name, n_threads| {
            let endpoints = endpoints.clone();
            ThreadPool::start(name, n_threads, n_waiting, move |(request, arrived)| {
                answer(request, arrived, &endpoints);
            })
        };
        let looks = pool("http-look", LOOKS)?;
        let probes = pool("http-probe", PROBES)?;
        let calls = pool("http-call", CALLS)?;
        let (stop, stopped) = bounded(0);
        let dispatcher = Dispatcher {
            backend: Arc::clone(&backend),
            endpoints,
            looks,
            probes,
            calls,
            stopped,
        };
        let thread = threads::start("http", move || dispatcher.run())?;
        let running = Running {
            backend: Arc::clone(&backend),
            stop,
            thread,
        };
        Ok((backend, running))
    }

    /// A connection for one request.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let listening = self.listening();
        listening.socket.connect().inspect_err(|error| {
            if error.kind() == ErrorKind::ConnectionRefused {
                listening.server.unblock();
            }
        })
    }

    fn listening(&self) -> Arc<Listening> {
        let listening = self.listening.lock();
        Arc::clone(&listening.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Running {
    /// Ends within `limit`. A thread that waits for the database is left behind: the process is
    /// about to end.
    pub(super) fn stop(self, limit: Duration) {
        drop(self.stop);
        self.backend.listening().server.unblock();
        let _ = self.thread.join_within(limit);
    }
}

/// Takes the requests.
struct Dispatcher {
    backend: Arc<Backend>,
    endpoints: Endpoints,
    looks: ThreadPool<(Request, Instant)>,
    probes: ThreadPool<(Request, Instant)>,
    calls: ThreadPool<(Request, Instant)>,
    stopped: Receiver<()>,
}

impl Dispatcher {
    fn run(&self) {
        loop {
            let listening = self.backend.listening();
            // The loop also ends when it is unblocked: because the server no longer listens, or
            // because the daemon stops.
            while let Ok(request) = listening.server.recv() {
                self.dispatch(request);
            }
            if self.stopped.try_recv() == Err(TryRecvError::Disconnected) {
                return;
            }
            warn!("the HTTP server behind the guard has ended; another one takes its place");
            let Some(next) = self.listen_again() else {
                return;
            };
            let current = self.backend.listening.lock();
            *current.unwrap_or_else(PoisonError::into_inner) = next;
        }
    }

    /// Returns the next server that listens, or `None` when the daemon stops first.
    fn listen_again(&self) -> Option<Arc<Listening>> {
        let mut trouble = Incident::default();
        loop {
            match Listening::start() {
                Ok(listening) => return Some(Arc::new(listening)),
                Err(error) if trouble.met(()) => {
                    error!("could not start the HTTP server again, still trying: {error}");
                }
                Err(_) => {}
            }
            if self.stopped.recv_timeout(RETRY) == Err(RecvTimeoutError::Disconnected) {
                return None;
            }
        }
    }

    fn dispatch(&self, request: Request) {
        let arrived = Instant::now();
        let method = request.method().to_string();
        let pool = match route::find(&method, request.url()).priority() {
            Priority::AtOnce => return answer(request, arrived, &self.endpoints),
            Priority::Look => &self.looks,
            Priority::Probe => &self.probes,
            Priority::Call => &self.calls,
        };
        if let Err((request, _)) = pool.offer((request, arrived)) {
            let busy = Reply::error(503, "too many requests at once");
            send(request, busy.with("Retry-After", "1"));
        }
    }
}

/// How many requests may wait for each pool, when the guard has this many places.
fn waiting(n_places: usize) -> usize {
    let n_waiting = n_places.saturating_sub(CALLS + PROBES + REMAINING) / 2;
    n_waiting.clamp(WAITING_MIN, WAITING_MAX)
}

fn answer(mut request: Request, arrived: Instant, endpoints: &Endpoints) {
    let incoming = match receive(&mut request, arrived) {
        Ok(incoming) => incoming,
        Err(error) => {
            debug!("could not read a request: {error}");
            return;
        }
    };
    // A panic costs its request and not the thread.
    let reply = panic::catch_unwind(AssertUnwindSafe(|| endpoints.answer(&incoming)))
        .unwrap_or_else(|_| Reply::error(500, "internal error"));
    send(request, reply);
}

fn receive(request: &mut Request, arrived: Instant) -> io::Result<Incoming> {
    let length = request.body_length().unwrap_or(0);
    let mut body = Vec::with_capacity(length);
    request.as_reader().read_to_end(&mut body)?;
    if body.len() != length {
        // The guard was told to stop while it handed the request over: a part of a request is not
        // answered.
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|header| {
            let name = header.field.as_str().as_str().to_owned();
            (name, header.value.as_str().to_owned())
        })
        .collect();
    let peer = headers
        .extract_if(.., |(name, _)| name.eq_ignore_ascii_case(PEER))
        .next()
        .and_then(|(_, value)| value.parse::<IpAddr>().ok());
    Ok(Incoming {
        method: request.method().to_string(),
        target: request.url().to_owned(),
        peer,
        headers,
        body,
        arrived,
    })
}

fn send(request: Request, reply: Reply) {
    let mut response = Response::from_string(reply.body)
        .with_status_code(reply.status)
        // The answer always has a Content-Length and is never sent in chunks: clients of HTTP/1.0
        // cannot read chunks.
        .with_chunked_threshold(usize::MAX);
    let fixed = [
        ("Content-Type", reply.media_type),
        ("Cache-Control", "no-store"),
        // A browser must not guess another type than that of the answer, and no page of another
        // site may embed it.
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ];
    let more = reply
        .headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    for (name, value) in fixed.into_iter().chain(more) {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    if let Err(error) = request.respond(response) {
        debug!("could not answer a request: {error}");
    }
}
