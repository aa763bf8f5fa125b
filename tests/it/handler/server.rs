//! A peer that speaks HTTP as badly as a test wants.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use dispatchbox::domain::config::HandlerSpec;
use dispatchbox::handlers::http::DEAD_STATUSES;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::support::wait_until;

/// Listens on a port of its own until it is dropped; each connection is one call of the test's
/// closure.
pub struct Server {
    address: SocketAddr,
    port: u16,
    state: Arc<Mutex<State>>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// The connections by their numbers, to be ended with the server.
    open: Vec<(usize, TcpStream)>,
    n_connections: usize,
    is_stopped: bool,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice");
        value
    }
}

/// The server's side of a connection.
pub struct Connection {
    /// Counted from 0.
    pub n: usize,
    socket: TcpStream,
    reader: BufReader<Box<dyn Stream>>,
    state: Arc<Mutex<State>>,
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl Connection {
    /// Goes on in TLS; the handshake comes with the first read.
    pub fn secure(&mut self, config: Arc<rustls::ServerConfig>) {
        let tls = rustls::ServerConnection::new(config).unwrap();
        let socket = self.socket.try_clone().unwrap();
        self.reader = BufReader::new(Box::new(rustls::StreamOwned::new(tls, socket)));
    }

    /// Reads the head of a request; `None` when the client has closed.
    pub fn read_head(&mut self) -> Option<Request> {
        let line = self.read_line()?;
        let mut headers = Vec::new();
        while let Some((name, value)) = self.read_line()?.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Some(Request {
            line,
            headers,
            body: String::new(),
        })
    }

    /// Reads one request; `None` when the client has closed.
    pub fn read_request(&mut self) -> Option<Request> {
        let mut request = self.read_head()?;
        let length: usize = request.header("content-length")?.parse().unwrap();
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).ok()?;
        request.body = String::from_utf8(body).unwrap();
        self.state.lock().unwrap().requests.push(request.clone());
        Some(request)
    }

    fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
        Some(line.trim_end().to_owned())
    }

    /// Reads up to `n` bytes; `None` when the client has closed.
    pub fn read_some(&mut self, n: usize) -> Option<()> {
        let n = self.reader.read(&mut vec![0; n]).ok()?;
        (n > 0).then_some(())
    }

    /// Reads the body that belongs to a head, and gives its length.
    pub fn read_body(&mut self, request: &Request) -> Option<usize> {
        let length: usize = request.header("content-length")?.parse().unwrap();
        self.reader.read_exact(&mut vec![0; length]).ok()?;
        Some(length)
    }

    /// Reads the body that belongs to a head, gives its length, and writes `n_bytes` meanwhile.
    pub fn echo(&mut self, request: &Request, mut n_bytes: usize) -> usize {
        const CHUNK: usize = 64 * 1024;
        let length: usize = request.header("content-length").unwrap().parse().unwrap();
        let mut n_read = 0;
        while n_read < length {
            let mut chunk = vec![0; CHUNK.min(length - n_read)];
            match self.reader.read(&mut chunk) {
                Ok(n) if n > 0 => n_read += n,
                _ => break,
            }
            let n = CHUNK.min(n_bytes);
            n_bytes -= n;
            self.write(&"y".repeat(n));
        }
        n_read
    }

    /// Writes as it is; `None` when the client has closed.
    pub fn write(&mut self, text: &str) -> Option<()> {
        let stream = self.reader.get_mut();
        stream.write_all(text.as_bytes()).ok()?;
        stream.flush().ok()
    }

    /// Writes a whole answer.
    pub fn answer(&mut self, head: &str, body: &str) -> Option<()> {
        let length = body.len();
        self.write(&format!(
            "HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// Answers every request with the same.
    pub fn answer_all(mut self, head: &str, body: &str) {
        while self.read_request().is_some() && self.answer(head, body).is_some() {}
    }

    /// Says that nothing more comes; reading goes on.
    pub fn end_output(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Waits until the client closes.
    pub fn wait_closed(mut self) {
        let _ = std::io::copy(&mut self.reader, &mut std::io::sink());
    }

    /// Waits until the client closes, reading nothing of what it sends.
    pub fn wait_shut(&self) {
        wait_until("the client has closed", || {
            // A write to a socket whose peer is gone is what tells it.
            (&self.socket).write(b"\r\n").is_err()
        });
    }

    /// Waits until the client has closed, reading nothing of what it sends and writing nothing.
    pub fn wait_hung_up(&self) {
        let closed = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        wait_until("the client has closed", || {
            let mut socket = [PollFd::new(&self.socket, PollFlags::RDHUP)];
            poll(&mut socket, Some(&Timespec::default())).unwrap();
            socket[0].revents().intersects(closed)
        });
    }

    /// Waits for a request and closes with it unread, which resets the connection.
    pub fn reset(self) {
        let _ = self.socket.peek(&mut [0]);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The other handle would keep the connection open.
        if let Ok(mut state) = self.state.lock() {
            state.open.retain(|(n, _)| *n != self.n);
        }
    }
}

impl Server {
    pub fn start(serve: impl Fn(Connection) + Send + Sync + 'static) -> Server {
        Server::start_at("127.0.0.1", serve)
    }

    /// Listens at another address than the usual one.
    pub fn start_at(host: &str, serve: impl Fn(Connection) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port();
        let state = Arc::new(Mutex::new(State::default()));
        let for_thread = Arc::clone(&state);
        let accepting = thread::spawn(move || accept(&listener, &for_thread, &Arc::new(serve)));
        Server {
            address,
            port,
            state,
            accepting: Some(accepting),
        }
    }

    /// Answers every request with the same.
    pub fn answering(head: &'static str, body: &'static str) -> Server {
        Server::start(move |connection| connection.answer_all(head, body))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A handler that posts to `/hook` here.
    pub fn handler(&self) -> HandlerSpec {
        post_to(&format!("http://127.0.0.1:{}/hook", self.port))
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Says whether a client has a connection to here that it must believe to be open: the news of
    /// its end takes a moment.
    pub fn is_connected(&self) -> bool {
        const ESTABLISHED: &str = "01";
        let port = format!(":{:04X}", self.port);
        let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
        connections.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(2);
            let (remote, state) = (fields.next().unwrap(), fields.next().unwrap());
            remote.ends_with(&port) && state == ESTABLISHED
        })
    }

    /// Closes all connections at once, as a restart does.
    pub fn close_connections(&self) {
        for (_, stream) in self.state.lock().unwrap().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn n_connections(&self) -> usize {
        self.state.lock().unwrap().n_connections
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        {
            let mut state = self.state.lock().unwrap();
            state.is_stopped = true;
            for (_, stream) in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// A handler that posts to a URL.
pub fn post_to(url: &str) -> HandlerSpec {
    post_by(url, json!("route"))
}

/// A handler that posts to a URL which stands there.
pub fn post_by(url: &str, source: Value) -> HandlerSpec {
    HandlerSpec {
        kind: "http".to_owned(),
        settings: json!({ "url": url, "url_source": source, "dead_statuses": DEAD_STATUSES }),
    }
}

fn accept<F>(listener: &TcpListener, state: &Arc<Mutex<State>>, serve: &Arc<F>)
where
    F: Fn(Connection) + Send + Sync + 'static,
{
    let mut connections = Vec::new();
    for stream in listener.incoming().flatten() {
        let mut guard = state.lock().unwrap();
        if guard.is_stopped {
            break;
        }
        let n = guard.n_connections;
        guard.open.push((n, stream.try_clone().unwrap()));
        let connection = Connection {
            n,
            socket: stream.try_clone().unwrap(),
            reader: BufReader::new(Box::new(stream)),
            state: Arc::clone(state),
        };
        guard.n_connections += 1;
        drop(guard);
        let serve = Arc::clone(serve);
        connections.push(thread::spawn(move || serve(connection)));
    }
    for connection in connections {
        let _ = connection.join();
    }
}
