//! Knocks at a server: asks for a sign of life with a socket of our own, whose every step is bounded.
//!
//! The question is the one that any client may ask first, whether TLS is to be had; servers and poolers answer it with one byte before they
//! know who asks. It costs the server a fork, once per connection and not per call.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use postgres::Config;
use postgres::config::Host;

/// SSLRequest: its length, then its code.
const QUESTION: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The driver's default.
const DEFAULT_PORT: u16 = 5432;

/// Returns when the configuration's only host has shown a sign of life, and binds the configuration to the address that did.
pub(super) fn knock(config: &mut Config, limit: Duration) -> io::Result<()> {
    let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    if let Some(&address) = config.get_hostaddrs().first() {
        return ask_tcp((address, port).into(), limit);
    }
    match config.get_hosts().first().cloned() {
        Some(Host::Unix(directory)) => ask_unix(&directory, port, limit),
        Some(Host::Tcp(name)) => {
            let address = ask_each(&name, port, limit)?;
            config.hostaddr(address.ip());
            Ok(())
        }
        // The driver knows what is wrong with that.
        None => Ok(()),
    }
}

/// A name may have several addresses; the time is for all of them.
fn ask_each(name: &str, port: u16, limit: Duration) -> io::Result<SocketAddr> {
    let deadline = Instant::now() + limit;
    let addresses: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (address, n_left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let left = deadline.saturating_duration_since(Instant::now());
        match ask_tcp(*address, left / u32::try_from(n_left).unwrap_or(1)) {
            Ok(()) => return Ok(*address),
            Err(err) => last = err,
        }
    }
    Err(last)
}

fn ask_tcp(address: SocketAddr, limit: Duration) -> io::Result<()> {
    // Zero would mean no limit to some, and is an error to others.
    let limit = limit.max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    ask(&mut stream)
}

fn ask_unix(directory: &Path, port: u16, limit: Duration) -> io::Result<()> {
    let limit = limit.max(Duration::from_millis(1));
    let mut stream = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}")))?;
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
