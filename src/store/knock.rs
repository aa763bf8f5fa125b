//! Knocks at a server: asks for a sign of life with a socket of our own, whose every step is bounded.
//!
//! The question is the one that any client may ask first, whether TLS is to be had; servers and poolers answer it with one byte before they
//! know who asks. It costs the server a fork, once per connection and not per call.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::line::Turn;

/// SSLRequest: its length, then its code.
const QUESTION: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where one server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// The file of a socket.
    Unix(PathBuf),
    /// The other way.
    Tcp(SocketAddr),
}

impl Address {
    /// An address whose zone the driver would lose is left to it as a name.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Tcp(SocketAddr::V6(address)) if address.scope_id() != 0 => None,
            Address::Tcp(address) => Some(address.ip()),
            Address::Unix(_) => None,
        }
    }

    /// Names it in messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(address) => address.to_string(),
        }
    }
}

/// Returns when a server at this address has shown a sign of life.
pub(super) fn knock(address: &Address, limit: Duration) -> io::Result<()> {
    match address {
        Address::Unix(path) => ask_unix(path, limit),
        Address::Tcp(address) => ask_tcp(*address, limit),
    }
}

fn ask_tcp(address: SocketAddr, limit: Duration) -> io::Result<()> {
    // Zero would mean no limit to some, and is an error to others.
    let limit = limit.max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    ask(&mut stream)
}

fn ask_unix(path: &Path, limit: Duration) -> io::Result<()> {
    let limit = limit.max(Duration::from_millis(1));
    // Not while another one looks for its socket among all that this process has.
    let turn = Turn::take();
    let mut stream = UnixStream::connect(path)?;
    drop(turn);
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    ask(&mut stream)
}

fn ask(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&QUESTION)?;
    // Any byte will do, and so will the end: whatever the server has against us, the driver will hear it, too.
    match stream.read(&mut [0]) {
        Err(err) if is_time_out(&err) => Err(err),
        _ => Ok(()),
    }
}

/// Says whether an operation of a socket ended because its time was over.
pub(super) fn is_time_out(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
