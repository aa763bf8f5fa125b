//! The transport under the HTTP client, which makes up for the peculiarities of receivers.
//!
//! The client sends a request to its end before it looks for an answer, and what it understands of
//! an answer is narrower than what receivers send. Between it and the wire, this transport
//!
//! - holds back the request's head until the first part of the body follows: one packet for a small
//!   event;
//! - looks for an answer while it sends. A final one that is no success ends the sending: the rest
//!   is swallowed, and the client reads the answer. The same holds when the receiver stops taking
//!   the request: it may have answered before. A success, said before it can have seen the whole
//!   event, does not spare it the rest;
//! - reads the answer's head by itself, drops interim answers, and passes on what the client needs
//!   ([`super::head`]);
//! - tells a connection that was closed in the moment of its next use ([`Stale`]) from a receiver
//!   that took a request and broke off;
//! - is open for another request only where the answer's end was certain, nothing lies behind it,
//!   and the connection is not too old.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use crate::handlers::transport::exchange::Exchange;
use crate::handlers::transport::head::{self, BadHead, Found, Head};
use crate::handlers::transport::wait::{Deadline, Wanted, would_block};
use crate::handlers::transport::wire::Wire;

/// A status that says that no request came in time.
const REQUEST_TIMEOUT: u16 = 408;

/// How much is read at once before a head is complete.
const READ_BYTES: usize = 8 * 1024;

/// How much of an answer's body is kept while the request is still being sent.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A connection that had carried a request before ended, or was useless, before a byte of this
/// request's answer came: the receiver has most probably closed it without having seen the request.
#[derive(Debug, thiserror::Error)]
#[error("the receiver closed a connection in the moment of its next use")]
pub struct Stale;

/// The habits of a receiver, shared by all connections to it.
#[derive(Debug, Default)]
pub(super) struct Habits {
    /// The receiver has sent a body after an answer that has none, so late that it came before the
    /// next answer.
    sends_late_bodies: AtomicBool,
}

/// Where a connection is in the exchange of one request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No part of a request has come from the client.
    Idle,
    /// A request is being sent, and an answer looked for.
    Asking,
    /// The answer's head has been passed on.
    Answered,
}

/// One connection.
pub struct Mend {
    wire: Wire,
    habits: Arc<Habits>,
    /// When the connection is too old for another request.
    ends_at: Instant,
    buffers: LazyBuffers,
    /// Bytes that were taken from the client and are not sent yet.
    outgoing: Vec<u8>,
    /// Bytes that were read and are not passed on yet.
    incoming: Vec<u8>,
    /// How much of `incoming` was searched for the end of a head.
    n_searched: usize,
    phase: Phase,
    n_requests: u64,
    exchange: Exchange,
    /// No other request may use this connection.
    is_unfit: bool,
    /// The last answer had no body.
    was_bodiless: bool,
}

impl Mend {
    pub(super) fn new(
        wire: Wire,
        habits: Arc<Habits>,
        ends_at: Instant,
        buffers: LazyBuffers,
    ) -> Mend {
        Mend {
            wire,
            habits,
            ends_at,
            buffers,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            n_searched: 0,
            phase: Phase::Idle,
            n_requests: 0,
            exchange: Exchange::default(),
            is_unfit: false,
            was_bodiless: false,
        }
    }

    fn begin_request(&mut self) {
        self.phase = Phase::Asking;
        self.n_requests += 1;
        self.exchange = Exchange::default();
    }

    /// Sends what has been taken from the client, unless the receiver answers or breaks off
    /// meanwhile.
    fn send(&mut self, deadline: Deadline) -> Result<(), Error> {
        let mut n_sent = 0;
        while !self.exchange.is_decided() {
            let result = if n_sent < self.outgoing.len() {
                self.wire.write(&self.outgoing[n_sent..])
            } else {
                self.wire.flush().map(|()| 0)
            };
            match result {
                Ok(0) if n_sent == self.outgoing.len() => break,
                Ok(n) => n_sent += n,
                result if would_block(&result) => {
                    let wanted = if self.exchange.is_ended {
                        Wanted::Output
                    } else {
                        Wanted::Either
                    };
                    if self.wire.wait(wanted, deadline)? {
                        self.read_what_is_there(deadline)?;
                    }
                }
                Err(error) => {
                    self.exchange.failure = Some(error);
                    self.is_unfit = true;
                }
            }
        }
        // No other request can follow one that was not sent to its end.
        self.is_unfit |= self.exchange.is_decided();
        self.outgoing.clear();
        self.exchange.has_sent = true;
        Ok(())
    }

    /// Reads without waiting, until it is clear that the rest of the request is not wanted.
    fn read_what_is_there(&mut self, deadline: Deadline) -> Result<(), Error> {
        while !self.exchange.is_decided() && !self.exchange.is_ended {
            // A receiver that never stops sending needs no wait, so the deadline is checked here.
            deadline.left()?;
            let result = self.read_more();
            if would_block(&result) {
                break;
            }
            match result {
                Ok(0) => self.exchange.is_ended = true,
                Ok(_) if self.exchange.head.is_some() => self.limit_body(),
                Ok(_) => self.look_for_head()?,
                Err(error) => self.exchange.failure = Some(error),
            }
        }
        Ok(())
    }

    /// Throws away the part of a body that is too long to be quoted. A receiver that writes while
    /// it reads would wait for this end to read, as this end waits for it.
    fn limit_body(&mut self) {
        if self.incoming.len() > BODY_BYTES_MAX {
            self.incoming.truncate(BODY_BYTES_MAX);
            self.is_unfit = true;
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let n_before = self.incoming.len();
        self.incoming.resize(n_before + READ_BYTES, 0);
        let result = self.wire.read(&mut self.incoming[n_before..]);
        let n = result.as_ref().map_or(0, |n| *n);
        self.incoming.truncate(n_before + n);
        result
    }

    /// Drops interim answers, and takes the head of the final one.
    fn look_for_head(&mut self) -> Result<(), Error> {
        loop {
            let is_first = !self.exchange.has_answer;
            match head::find(&self.incoming, self.n_searched) {
                Ok(None) => {
                    self.n_searched = self.incoming.len();
                    return Ok(());
                }
                Ok(Some(Found::Interim(length))) => {
                    self.consume(length);
                    self.exchange.has_answer = true;
                }
                Ok(Some(Found::Final(length, head))) => {
                    self.consume(length);
                    // The receiver says that the connection was idle for too long: the answer is
                    // not about this request.
                    let is_late = head.status == REQUEST_TIMEOUT && !head.is_reusable;
                    if is_late && is_first && self.is_reused() {
                        return Err(stale());
                    }
                    self.exchange.has_answer = true;
                    self.is_unfit |= !head.is_reusable;
                    self.was_bodiless = head.is_bodiless();
                    self.exchange.head = Some(head);
                    return Ok(());
                }
                Err(BadHead::NoHttp(_)) if is_first && self.is_reused() && self.was_bodiless => {
                    self.habits.sends_late_bodies.store(true, Ordering::Relaxed);
                    return Err(stale());
                }
                Err(error) => return Err(Error::Other(Box::new(error))),
            }
        }
    }

    fn consume(&mut self, n: usize) {
        self.incoming.drain(..n);
        self.n_searched = 0;
    }

    /// Waits for the head of the final answer.
    fn await_head(&mut self, deadline: Deadline) -> Result<Head, Error> {
        loop {
            if let Some(head) = self.exchange.head.take() {
                return Ok(head);
            }
            if self.exchange.is_ended {
                return Err(self.broke_off(None));
            }
            // A receiver that never stops sending needs no wait, so the deadline is checked here.
            deadline.left()?;
            match self.read_more() {
                Ok(0) => self.exchange.is_ended = true,
                Ok(_) => self.look_for_head()?,
                result if would_block(&result) => {
                    self.wire.wait(Wanted::Input, deadline)?;
                }
                Err(error) => return Err(self.broke_off(Some(error))),
            }
        }
    }

    /// The error for a connection that ended before the answer's head was complete.
    fn broke_off(&mut self, error: Option<io::Error>) -> Error {
        let has_bytes = self.exchange.has_answer || !self.incoming.is_empty();
        if self.is_reused() && !has_bytes {
            return stale();
        }
        // An alert says why the receiver took no more.
        let is_alert = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
        let error = match (self.exchange.failure.take(), error) {
            (Some(_), Some(error)) if is_alert(&error) => Some(error),
            (failure, error) => failure.or(error),
        };
        if let Some(error) = error {
            return Error::Io(error);
        }
        Error::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            if has_bytes {
                "the receiver closed the connection before its answer was complete"
            } else {
                "the receiver closed the connection without an answer"
            },
        ))
    }

    fn is_reused(&self) -> bool {
        self.n_requests > 1
    }

    /// Reads some of the body, as much as the client has room for.
    fn await_body(&mut self, deadline: Deadline) -> Result<bool, Error> {
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Ok(false);
        }
        if !self.incoming.is_empty() {
            let n = room.len().min(self.incoming.len());
            room[..n].copy_from_slice(&self.incoming[..n]);
            self.buffers.input_appended(n);
            self.consume(n);
            return Ok(true);
        }
        loop {
            let result = self.wire.read(self.buffers.input_append_buf());
            if would_block(&result) {
                self.wire.wait(Wanted::Input, deadline)?;
                continue;
            }
            let n = result.inspect_err(|_| self.is_unfit = true)?;
            self.exchange.is_ended |= n == 0;
            self.buffers.input_appended(n);
            return Ok(n > 0);
        }
    }
}

fn stale() -> Error {
    Error::Other(Box::new(Stale))
}

impl Transport for Mend {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let is_head = self.phase != Phase::Asking;
        if is_head {
            self.begin_request();
        } else if self.exchange.has_sent {
            // Most events go in one piece; with a larger one, an answer may be there already.
            self.read_what_is_there(Deadline::of(timeout))?;
        }
        if self.exchange.is_decided() {
            self.is_unfit = true;
            return Ok(());
        }
        self.outgoing
            .extend_from_slice(&self.buffers.output()[..amount]);
        if is_head {
            return Ok(());
        }
        self.send(Deadline::of(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let deadline = Deadline::of(timeout);
        if self.phase != Phase::Asking {
            return self.await_body(deadline);
        }
        if !self.outgoing.is_empty() {
            self.send(deadline)?;
        }
        let head = self.await_head(deadline)?;
        self.phase = Phase::Answered;
        let n = head.write(self.buffers.input_append_buf());
        self.buffers.input_appended(n);
        Ok(true)
    }

    fn is_open(&mut self) -> bool {
        let is_trusted =
            !(self.was_bodiless && self.habits.sends_late_bodies.load(Ordering::Relaxed));
        self.phase == Phase::Answered
            && !self.is_unfit
            && !self.exchange.is_ended
            && self.incoming.is_empty()
            && is_trusted
            && Instant::now() < self.ends_at
            && self.wire.is_quiet()
    }

    fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }
}

impl fmt::Debug for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mend")
            .field("wire", &self.wire)
            .field("n_requests", &self.n_requests)
            .finish_non_exhaustive()
    }
}
