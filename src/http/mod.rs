//! The HTTP endpoints: the page, /health, /ready, /metrics and /api/status.
//!
//! A few threads answer what tiny_http accepts. `/health` says that the process lives and never touches the database; `/ready`
//! says whether it should get traffic, with a fixed reason when not; details are in the log, where no stranger reads them.

mod access;
mod body;
mod calls;
mod dead_events;
mod endpoints;
mod exchange;
mod page;
mod probe;
mod query;
mod route;
mod status;
mod token;

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{debug, info, warn};
use tiny_http::{Header, Request, Response, Server};

use crate::health::Published;
use crate::store::dsn::Dsn;
pub use access::Access;
use calls::Calls;
use endpoints::Endpoints;
use exchange::{Incoming, Reply};
use probe::Probe;
pub use token::ApiToken;

/// Enough for a load balancer, a scraper and a person at once, and for as many as may wait for a call of the API; a slow readiness look
/// holds one of them up to four seconds.
const THREADS: usize = 4 + calls::CALLS_MAX;

/// Answers under way are finished within this time, or not at all.
const STOP_MAX: Duration = Duration::from_millis(100);

/// The running endpoints.
pub struct HttpServer {
    server: Arc<Server>,
    /// Disconnected when the last thread has returned.
    ended: Receiver<()>,
}

/// Binds `host:port`; the error names the address. Done before any worker starts, so that a second daemon fails at once.
pub fn bind(host: &str, port: u16) -> Result<TcpListener, String> {
    let name = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let failed = |error: io::Error| format!("could not listen on `{name}`: {error}");
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    TcpListener::bind(addresses.as_slice()).map_err(failed)
}

impl HttpServer {
    /// Answers on `listener` until it is stopped.
    pub fn start(
        listener: TcpListener,
        dsn: Dsn,
        access: Access,
        published: &Published,
    ) -> Result<HttpServer, String> {
        let failed = |error: String| format!("could not start the HTTP endpoints: {error}");
        let address = listener
            .local_addr()
            .map_err(|error| failed(error.to_string()))?;
        let server =
            Server::from_listener(listener, None).map_err(|error| failed(error.to_string()))?;
        if let Some(warning) = access.warning(address) {
            warn!("{warning}");
        }
        let endpoints = Endpoints {
            published: published.clone(),
            access: Arc::new(access),
            calls: Calls::new(dsn.clone()),
            probe: Probe::start(dsn, published.health.clone())
                .map_err(|error| failed(error.to_string()))?,
        };
        let server = Arc::new(server);
        let (running, ended) = bounded(0);
        for number in 0..THREADS {
            let (server, endpoints) = (Arc::clone(&server), endpoints.clone());
            let running: Sender<()> = running.clone();
            thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(move || {
                    let _running = running;
                    serve(&server, &endpoints);
                })
                .map_err(|error| failed(error.to_string()))?;
        }
        info!("listening on http://{address}");
        Ok(HttpServer { server, ended })
    }

    /// Stops answering. A thread that waits for the database is left behind: the process is about to end.
    pub fn stop(self) {
        for _ in 0..THREADS {
            // Frees one thread per call.
            self.server.unblock();
        }
        let _ = self.ended.recv_timeout(STOP_MAX);
    }
}

fn serve(server: &Server, endpoints: &Endpoints) {
    while let Ok(mut request) = server.recv() {
        let sent = receive(&mut request)
            .map(|incoming| endpoints.answer(&incoming))
            .and_then(|reply| send(request, reply));
        if let Err(error) = sent {
            debug!("could not answer a request: {error}");
        }
    }
}

fn receive(request: &mut Request) -> io::Result<Incoming> {
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body)?;
    let headers = request.headers().iter().map(|header| {
        let name = header.field.as_str().as_str().to_owned();
        (name, header.value.as_str().to_owned())
    });
    Ok(Incoming {
        method: request.method().to_string(),
        target: request.url().to_owned(),
        peer: request.remote_addr().map(SocketAddr::ip),
        headers: headers.collect(),
        body,
    })
}

fn send(request: Request, reply: Reply) -> io::Result<()> {
    let mut response = Response::from_string(reply.body).with_status_code(reply.status);
    let fixed = [
        ("Content-Type", reply.media_type),
        ("Cache-Control", "no-store"),
        // An answer is what its type says, and no other site's page may embed it.
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
    request.respond(response)
}
