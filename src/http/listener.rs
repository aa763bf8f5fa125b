//! The public port.
//!
//! Where no address is given, the port answers IPv4 and IPv6 alike, by one socket for both, and
//! IPv4 alone on a host without IPv6. A given address is taken literally: `0.0.0.0` is all of IPv4
//! and nothing else.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};

use log::{debug, warn};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that wait; the guard sets a length of its own.
const BACKLOG: i32 = 128;

/// Binds `port` at `host`, or at all addresses. The error names the address. This is done before
/// any worker starts, so that a second daemon fails at once.
pub fn bind(host: Option<&str>, port: u16) -> Result<TcpListener, String> {
    let Some(host) = host else {
        return bind_all(port);
    };
    let name = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let failed = |error: io::Error| failure(&name, &error);
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    TcpListener::bind(addresses.as_slice()).map_err(failed)
}

fn bind_all(port: u16) -> Result<TcpListener, String> {
    let error = match bind_both(port) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener =
        TcpListener::bind(address).map_err(|error| failure(&address.to_string(), &error))?;
    if error.kind() == ErrorKind::AddrInUse {
        warn!("something else listens at port {port} by IPv6: this daemon answers IPv4 alone");
    } else {
        debug!("this host has no IPv6: {error}");
    }
    Ok(listener)
}

/// Binds one socket for both families. Whether a socket of IPv6 accepts IPv4, too, is a setting of
/// the host, unless the socket sets it.
fn bind_both(port: u16) -> io::Result<TcpListener> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET6,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    // `SO_REUSEADDR`, as the standard library sets it: connections of an earlier daemon may still
    // be closing.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Says for the log that a socket answers IPv4, too, which its address does not show.
pub(super) fn families(listener: &TcpListener) -> &'static str {
    let is_v6 = listener
        .local_addr()
        .is_ok_and(|address| address.ip() == Ipv6Addr::UNSPECIFIED);
    match sockopt::ipv6_v6only(listener) {
        Ok(false) if is_v6 => "answering IPv4 and IPv6, ",
        Ok(_) | Err(_) => "",
    }
}

fn failure(address: &str, error: &io::Error) -> String {
    let remedy = if error.kind() == ErrorKind::AddrInUse {
        "; is it another dispatchbox? --http-port chooses another port"
    } else {
        ""
    };
    format!("could not listen on `{address}`: {error}{remedy}")
}
