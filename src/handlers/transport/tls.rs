//! A connection in TLS, without a call that waits but the handshake's.
//!
//! Not rustls' own stream: that one writes what is left before it reads, so an answer could not be
//! read once the receiver takes no more.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use ureq::Error;

use crate::handlers::transport::trust::Trust;
use crate::handlers::transport::wait::{Deadline, Wanted, wait, would_block};

/// A connection in TLS.
pub(super) struct Encrypted {
    tls: ClientConnection,
    socket: TcpStream,
    trust: Arc<Trust>,
}

impl Encrypted {
    /// Shakes hands with the receiver called `host`.
    pub(super) fn connect(
        socket: TcpStream,
        host: &str,
        trust: Arc<Trust>,
        deadline: Deadline,
    ) -> Result<Encrypted, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            invalid(format!(
                "`{host}` is no name that a certificate could be for"
            ))
        })?;
        let tls = ClientConnection::new(Arc::clone(trust.config()), name)
            .map_err(|error| invalid(trust.in_words(&error)))?;
        let mut connection = Encrypted { tls, socket, trust };
        while connection.tls.is_handshaking() {
            let result = connection.advance();
            if would_block(&result) {
                let wanted = if connection.tls.wants_write() {
                    Wanted::Either
                } else {
                    Wanted::Input
                };
                wait(&connection.socket, wanted, deadline)?;
            } else {
                result?;
            }
        }
        Ok(connection)
    }

    /// Does one step of the handshake.
    fn advance(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.tls.is_handshaking() && self.receive()? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the receiver closed the connection during the TLS handshake",
            ));
        }
        Ok(())
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let n = self.tls.writer().write(bytes)?;
        let flushed = self.flush();
        if would_block(&flushed) {
            return Ok(n);
        }
        flushed.map(|()| n)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            self.receive()?;
        }
    }

    /// Reads the bytes that the socket has; 0 is its end.
    fn receive(&mut self) -> io::Result<usize> {
        let n = self.tls.read_tls(&mut self.socket)?;
        if let Err(error) = self.tls.process_new_packets() {
            // The alert tells the receiver what is wrong. It does not matter whether it arrives.
            let _ = self.flush();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                self.trust.in_words(&error),
            ));
        }
        Ok(n)
    }
}

fn invalid(problem: String) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, problem))
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
