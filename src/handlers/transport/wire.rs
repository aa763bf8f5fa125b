//! A connection as bytes, plain or encrypted, none of whose calls waits.
//!
//! The client's own transport blocks in a read or a write and so cannot see an answer that comes
//! while it still sends. Here every call returns at once, and [`Wire::wait`] waits for either
//! direction, bounded by a deadline.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use ureq::Error;

use crate::handlers::transport::tls::Encrypted;
use crate::handlers::transport::wait::{Deadline, Wanted, wait, would_block};

/// A connection's bytes.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<Encrypted>),
}

impl Wire {
    /// Sends as many of `bytes` as is possible without waiting.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            Wire::Tls(tls) => tls.write(bytes),
        }
    }

    /// Sends the bytes that are still held by the encryption.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(_) => Ok(()),
            Wire::Tls(tls) => tls.flush(),
        }
    }

    /// Reads the bytes that have come; 0 is the end, a TLS connection's end without notice
    /// included: HTTP says by itself where a body ends.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(buffer),
            Wire::Tls(tls) => tls.read(buffer),
        }
    }

    /// Says whether nothing has come since the last answer, neither bytes nor an end.
    pub(super) fn is_quiet(&mut self) -> bool {
        let looked = match self {
            Wire::Plain(socket) => socket.peek(&mut [0]),
            // Encrypted bytes may be a session ticket, which is no stray answer.
            Wire::Tls(tls) => tls.read(&mut [0]),
        };
        would_block(&looked)
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Wire::Tls(_))
    }

    /// Waits until a call can do something, and says whether there is something to read.
    pub(super) fn wait(&self, wanted: Wanted, deadline: Deadline) -> Result<bool, Error> {
        match self {
            Wire::Plain(socket) => wait(socket, wanted, deadline),
            Wire::Tls(tls) => wait(tls.socket(), wanted, deadline),
        }
    }
}
