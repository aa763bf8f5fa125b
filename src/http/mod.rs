//! The HTTP endpoints: /health, /ready and /metrics.
//!
//! A few threads answer what tiny_http accepts. `/health` says that the process lives and never touches the database; `/ready`
//! says whether it should get traffic, with a fixed reason when not; details are in the log, where no stranger reads them.

mod probe;
mod route;

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{debug, info, warn};
use tiny_http::{Header, Request, Response, Server};

use crate::health::{DaemonPhase, Published};
use crate::metrics;
use crate::store::dsn::Dsn;
use probe::{Database, Probe};
use route::Route;

/// Enough for a load balancer, a scraper and a person at once; a slow readiness look holds one of them up to four seconds.
const THREADS: usize = 4;

/// Answers under way are finished within this time, or not at all.
const STOP_MAX: Duration = Duration::from_millis(100);

const JSON: &str = "application/json";

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
        published: &Published,
    ) -> Result<HttpServer, String> {
        let failed = |error: String| format!("could not start the HTTP endpoints: {error}");
        let address = listener
            .local_addr()
            .map_err(|error| failed(error.to_string()))?;
        let server =
            Server::from_listener(listener, None).map_err(|error| failed(error.to_string()))?;
        let probe = Probe::start(dsn).map_err(|error| failed(error.to_string()))?;
        let server = Arc::new(server);
        let (running, ended) = bounded(0);
        for number in 0..THREADS {
            let (server, published, probe) =
                (Arc::clone(&server), published.clone(), probe.clone());
            let running: Sender<()> = running.clone();
            thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(move || {
                    let _running = running;
                    serve(&server, &published, &probe);
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

fn serve(server: &Server, published: &Published, probe: &Probe) {
    while let Ok(request) = server.recv() {
        let answer = answer(&request, published, probe);
        if let Err(error) = send(request, answer) {
            debug!("could not answer a request: {error}");
        }
    }
}

struct Answer {
    status: u16,
    media_type: &'static str,
    body: String,
    allow: Option<&'static str>,
}

fn answer(request: &Request, published: &Published, probe: &Probe) -> Answer {
    match route::find(&request.method().to_string(), request.url()) {
        Route::Health => json(200, r#"{"status":"ok"}"#),
        Route::Ready => match refusal(published, probe) {
            None => json(200, r#"{"status":"ready"}"#),
            Some(reason) => json(
                503,
                &format!(r#"{{"status":"not ready","reason":"{reason}"}}"#),
            ),
        },
        Route::Metrics => metrics_text(published),
        Route::NotFound => json(
            404,
            r#"{"error":"Not Found","message":"The requested resource was not found"}"#,
        ),
        Route::MethodNotAllowed(allow) => {
            let body = r#"{"error":"Method Not Allowed","message":"The HTTP method is not allowed for this resource"}"#;
            Answer {
                allow: Some(allow),
                ..json(405, body)
            }
        }
    }
}

/// Why the daemon should get no traffic now.
fn refusal(published: &Published, probe: &Probe) -> Option<&'static str> {
    let state = published.health.state();
    match state.phase {
        DaemonPhase::Draining => return Some("draining"),
        DaemonPhase::Starting | DaemonPhase::Running => {}
    }
    match probe.ask() {
        Database::NotConnected => Some("database not connected"),
        Database::SchemaNotUsable => Some("schema not usable"),
        Database::Usable if state.workers_up == 0 => Some("no workers"),
        Database::Usable => None,
    }
}

fn metrics_text(published: &Published) -> Answer {
    let rendered = published
        .fleet
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .render();
    match rendered {
        Ok(body) => Answer {
            status: 200,
            media_type: metrics::CONTENT_TYPE,
            body,
            allow: None,
        },
        Err(error) => {
            warn!("could not render the metrics: {error}");
            json(500, r#"{"error":"metrics unavailable"}"#)
        }
    }
}

fn json(status: u16, body: &str) -> Answer {
    Answer {
        status,
        media_type: JSON,
        body: body.to_owned(),
        allow: None,
    }
}

fn send(request: Request, answer: Answer) -> io::Result<()> {
    let mut response = Response::from_string(answer.body).with_status_code(answer.status);
    let headers = [
        ("Content-Type", Some(answer.media_type)),
        ("Allow", answer.allow),
        ("Cache-Control", Some("no-store")),
    ];
    for (name, value) in headers
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    request.respond(response)
}
