//! One connection: read one request, have it answered, deliver the answer, close.
//!
//! The server behind the guard gets a request only when the request is complete, and an answer up
//! to `ANSWER_BUFFER` is read completely before the client is looked at again. So a slow client
//! holds its own place and nothing else. There is one request per connection: bytes that a client
//! sends behind its request are never looked at, so no disagreement about where a second request
//! begins can matter.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use crate::http::backend::Backend;
use crate::http::guard::framing;
use crate::http::guard::head::Head;
use crate::http::guard::places::ConnectionPlace;
use crate::http::guard::refusal::Refusal;
use crate::http::guard::timed::Timed;

/// Time for the head, from the first byte that is waited for to its end.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// Time for the body after the head: 4 MiB at 200 KiB a second.
const BODY_TIME: Duration = Duration::from_secs(20);

/// Time for the answer of the server behind the guard: the longest call to a database that does not
/// answer, and as much again.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Time for the client to take the answer.
const DELIVERY_TIME: Duration = Duration::from_secs(30);

/// How long the connection stays open for the client after the answer. Bytes that the client still
/// sends are read and dropped meanwhile: a close with unread bytes is a reset, and a reset takes
/// the answer away from a client that has not read it yet.
struct Linger {
    /// Longest time.
    time: Duration,
    /// Longest time without a byte from the client.
    silence: Duration,
    /// Most bytes that are read and dropped.
    n_bytes: u64,
}

/// For a request that was read to its end, or whose client had its time for it.
const SHORT: Linger = Linger {
    time: Duration::from_millis(500),
    silence: Duration::from_millis(500),
    n_bytes: 4 * 1024 * 1024,
};

/// For a request that was refused while it was under way: many clients look for an answer only
/// after their last byte. It lasts as long as a body may take. The connection is the first to make
/// room for another one meanwhile.
const LONG: Linger = Linger {
    time: BODY_TIME,
    silence: Duration::from_secs(3),
    n_bytes: 256 * 1024 * 1024,
};

/// An answer up to this size waits in memory here for its client. The rest of a longer answer waits
/// in the server behind the guard, and holds a thread there.
const ANSWER_BUFFER: u64 = 256 * 1024;

const CHUNK: usize = 16 * 1024;

/// A connection that was accepted.
pub(super) struct Connection {
    pub(super) client: Arc<TcpStream>,
    pub(super) peer: IpAddr,
    pub(super) place: ConnectionPlace,
    pub(super) backend: Arc<Backend>,
}

/// Why a request has no answer from the server behind the guard.
enum Failure {
    Refused(Refusal),
    /// The client has gone, or its connection was closed to make room: there is no client to
    /// answer.
    Gone(io::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == ErrorKind::TimedOut {
            Failure::Refused(Refusal::TOO_SLOW)
        } else {
            Failure::Gone(error)
        }
    }
}

impl Connection {
    /// Serves the connection: reads the request, has it answered, delivers the answer, and closes.
    pub(super) fn run(self) {
        let mut received = Vec::with_capacity(CHUNK);
        let outcome = self.exchange(&mut received);
        if let Err(Failure::Refused(refusal)) = &outcome {
            debug!("refused a request of {}: {}", self.peer, refusal.text());
            let answer = refusal.answer(received.starts_with(b"HEAD "));
            if let Err(error) = self.deliver(&answer, &mut io::empty()) {
                debug!("could not refuse a request of {}: {error}", self.peer);
                return;
            }
        }
        match outcome {
            Err(Failure::Gone(error)) => debug!("a request of {} ended early: {error}", self.peer),
            Ok(()) | Err(Failure::Refused(Refusal::TOO_SLOW | Refusal::NO_ANSWER)) => {
                self.linger(&SHORT);
            }
            Err(Failure::Refused(_)) => self.linger(&LONG),
        }
    }

    /// Reads the head, which stays in `received` for the refusal.
    fn exchange(&self, received: &mut Vec<u8>) -> Result<(), Failure> {
        let head_stream = &mut Timed::new(&*self.client, HEAD_TIME);
        let (head, length) = loop {
            if let Some(found) = framing::parse(received)? {
                break found;
            }
            if read_some(head_stream, received)? == 0 {
                return Err(Failure::Gone(ErrorKind::UnexpectedEof.into()));
            }
        };
        let body = self.read_body(&head, &received[length..])?;
        self.relay(&head, &body)
    }

    fn read_body(&self, head: &Head, begin: &[u8]) -> Result<Vec<u8>, Failure> {
        // Room for the whole body: until bytes arrive, that is address space and no memory.
        let mut body = Vec::with_capacity(head.body_length);
        body.extend_from_slice(&begin[..begin.len().min(head.body_length)]);
        let mut stream = Timed::new(&*self.client, BODY_TIME);
        if head.expects_continue && body.len() < head.body_length {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        // Bytes are counted as they arrive: a length that was only promised takes no memory.
        let mut charged = 0;
        loop {
            if !self.place.charge(body.len() - charged) {
                return Err(Refusal::BUSY.into());
            }
            charged = body.len();
            let missing = head.body_length - charged;
            if missing == 0 {
                return Ok(body);
            }
            let missing = u64::try_from(missing).unwrap_or(u64::MAX);
            if read_some(&mut (&mut stream).take(missing), &mut body)? == 0 {
                return Err(Failure::Gone(ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Has the request answered by the server behind, and delivers the answer.
    fn relay(&self, head: &Head, body: &[u8]) -> Result<(), Failure> {
        // A failure of the server behind the guard is not the client's fault.
        let unanswered = |error: io::Error| {
            debug!("a request of {} was not answered: {error}", self.peer);
            Refusal::NO_ANSWER
        };
        let upstream = Arc::new(self.backend.connect().map_err(unanswered)?);
        self.place.answering(Arc::clone(&upstream));
        let mut stream = Timed::new(&*upstream, ANSWER_TIME);
        let mut answer = Vec::with_capacity(CHUNK);
        stream
            .write_all(&head.rewrite(self.peer))
            .and_then(|()| stream.write_all(body))
            .and_then(|()| (&mut stream).take(ANSWER_BUFFER).read_to_end(&mut answer))
            .map_err(unanswered)?;
        // The server behind the guard closes the connection of a request that it cannot answer,
        // without an answer.
        let Some(line_end) = answer.windows(2).position(|pair| pair == b"\r\n") else {
            return Err(Refusal::NO_ANSWER.into());
        };
        // tiny_http leaves this header out, whatever the reply holds.
        answer.splice(line_end..line_end, *b"\r\nConnection: close");
        self.place.delivering();
        self.deliver(&answer, &mut stream).map_err(Failure::Gone)
    }

    fn deliver(&self, answer: &[u8], rest: &mut impl Read) -> io::Result<()> {
        let mut client = Timed::new(&*self.client, DELIVERY_TIME);
        client.write_all(answer)?;
        io::copy(rest, &mut client).map(drop)
    }

    /// Waits for the client to close, within these bounds.
    fn linger(&self, bounds: &Linger) {
        self.place.leaving();
        if self.client.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut chunk = [0; CHUNK];
        let mut n_left = bounds.n_bytes;
        let end = Instant::now() + bounds.time;
        while n_left > 0 {
            let left = end.saturating_duration_since(Instant::now());
            let mut client = Timed::new(&*self.client, left.min(bounds.silence));
            // An error ends the loop, as the end of the stream does.
            match client.read(&mut chunk) {
                Ok(read @ 1..) => n_left = n_left.saturating_sub(read as u64),
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// Reads the bytes that are there, a chunk at most, and returns their number.
fn read_some(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Ok(read) => {
                bytes.extend_from_slice(&chunk[..read]);
                return Ok(read);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
