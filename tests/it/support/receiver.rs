//! An HTTP server for http routes that records its requests, and answers as the test wants.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::history::History;

/// A receiver on a port of its own; connections are kept alive. It ends with this value.
pub struct Receiver {
    port: u16,
    state: Arc<Mutex<State>>,
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST /hook HTTP/1.1`.
    pub line: String,
    /// Names in lower case, values trimmed, in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    n_connections: usize,
    status: u16,
    headers: String,
    body: String,
    delay: Duration,
    is_stopped: bool,
    open: Vec<TcpStream>,
}

impl Receiver {
    /// Starts a receiver that answers 200 at once.
    pub fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            status: 200,
            ..State::default()
        }));
        let for_thread = Arc::clone(&state);
        // Neither thread is joined: both end when their sockets do, in drop.
        thread::spawn(move || accept(&listener, &for_thread));
        Receiver { port, state }
    }

    /// Its URL, with the path `/hook`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// The value for `--route` that sends event types of this pattern here.
    pub fn route(&self, pattern: &str) -> String {
        format!("{pattern}={}", self.url())
    }

    /// Answers with this status from now on.
    pub fn set_status(&self, status: u16) {
        self.state.lock().unwrap().status = status;
    }

    /// Adds this header line (`Retry-After: 3`) to answers from now on; empty takes it away.
    pub fn set_header(&self, line: &str) {
        self.state.lock().unwrap().headers = if line.is_empty() {
            String::new()
        } else {
            format!("{line}\r\n")
        };
    }

    /// Answers with this body from now on.
    pub fn set_body(&self, body: &str) {
        body.clone_into(&mut self.state.lock().unwrap().body);
    }

    /// Waits this long before each answer from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// The requests so far; one that waits for its answer is in it.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Connections accepted so far.
    pub fn n_connections(&self) -> usize {
        self.state.lock().unwrap().n_connections
    }

    /// The runs so far, from the headers `Dispatchbox-Event-Id` and `Dispatchbox-Attempt`.
    pub fn history(&self) -> History {
        let number =
            |request: &Request, name| request.header(name).unwrap().parse::<i64>().unwrap();
        History::new(self.requests().iter().map(|request| {
            (
                number(request, "dispatchbox-event-id"),
                u32::try_from(number(request, "dispatchbox-attempt")).unwrap(),
            )
        }))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.is_stopped = true;
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>) {
    for stream in listener.incoming().flatten() {
        let mut guard = state.lock().unwrap();
        if guard.is_stopped {
            return;
        }
        guard.n_connections += 1;
        guard.open.push(stream.try_clone().unwrap());
        drop(guard);
        let for_thread = Arc::clone(state);
        thread::spawn(move || serve(stream, &for_thread));
    }
}

/// Answers request after request until the peer or the test ends it.
fn serve(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let request = read_request(&mut reader)?;
        let (answer, delay) = {
            let mut state = state.lock().ok()?;
            state.requests.push(request);
            let answer = format!(
                "HTTP/1.1 {} Recorded\r\n{}Content-Length: {}\r\n\r\n{}",
                state.status,
                state.headers,
                state.body.len(),
                state.body
            );
            (answer, state.delay)
        };
        if !delay.is_zero() {
            super::wait::pause(delay);
        }
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|&n| n > 0)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        line: line.trim_end().to_owned(),
        headers,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |value| value.parse().unwrap());
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
