//! The ping of a server: a short request over a socket of this program, whose every step is
//! bounded.
//!
//! The request asks whether the server offers TLS. Any client may send it first, and servers and
//! poolers answer it with one byte before the client has named its user. A ping costs the server a
//! fork. It is sent once per connection and not per call.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::new_socket::Turn;

/// The SSLRequest message: its length, then its code.
pub(super) const QUESTION: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// An IP address and a port.
    Tcp(SocketAddr),
}

impl Address {
    /// The IP address, unless it has an IPv6 zone: the driver would lose the zone, and resolves the
    /// name itself then.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Tcp(SocketAddr::V6(address)) if address.scope_id() != 0 => None,
            Address::Tcp(address) => Some(address.ip()),
            Address::Unix(_) => None,
        }
    }

    /// The address as messages show it.
    pub(super) fn shown(&self) -> String {
        match self {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(address) => address.to_string(),
        }
    }
}

/// Returns when a server at this address has answered.
pub(super) fn ping(address: &Address, limit: Duration) -> io::Result<()> {
    match address {
        Address::Unix(path) => ask_unix(path, limit),
        Address::Tcp(address) => ask_tcp(*address, limit),
    }
}

fn ask_tcp(address: SocketAddr, limit: Duration) -> io::Result<()> {
    // Some of the calls below take zero as no limit, others refuse it.
    let limit = limit.max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    ask(&mut stream)
}

fn ask_unix(path: &Path, limit: Duration) -> io::Result<()> {
    let limit = limit.max(Duration::from_millis(1));
    // No other thread may be looking for its own socket among those of this process meanwhile
    // (`new_socket.rs`).
    let turn = Turn::take();
    let mut stream = UnixStream::connect(path)?;
    drop(turn);
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    ask(&mut stream)
}

fn ask(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&QUESTION)?;
    // Any byte is an answer, and so is the end of the stream: if the server refuses this client,
    // the driver receives the reason.
    match stream.read(&mut [0]) {
        Err(error) if is_time_out(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Says whether a socket operation reached its timeout.
pub(super) fn is_time_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
