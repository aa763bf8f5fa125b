//! Requests this daemon's own /health over its public port, as a load balancer does, so that the
//! log and the metrics show a failure that is visible from outside.
//!
//! A failure leads to one ERROR, `dispatchbox_http_up` 0, and `http_up` false in the status, until
//! a request is answered again. Nothing is restarted. The guard ends connections that last too
//! long, and the server behind it is replaced when it has ended, both where that is noticed; what
//! is left is a flood, or a machine without descriptors, and neither is cured by a new port. And
//! the workers deliver meanwhile, which a restart of the daemon would interrupt.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use log::{error, info};

use crate::status::published::Published;
use crate::system::incident::Incident;
use crate::system::threads;

/// The interval of requests.
const EVERY: Duration = Duration::from_secs(2);

/// The longest wait for an answer. Load balancers wait no longer either.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The number of failures in a row that counts. A single one may have a harmless cause: a
/// connection is evicted, or this process was stopped for a moment.
const FAILURES: u32 = 3;

/// How the answer begins.
const STATUS: [u8; 13] = *b"HTTP/1.1 200 ";

/// The running probe. Dropping it ends the thread, without waiting for it.
pub(super) struct SelfProbe {
    _stop: Sender<()>,
}

impl SelfProbe {
    /// Starts the thread, which sends its first request at once.
    pub(super) fn start(listening_on: SocketAddr, published: Published) -> io::Result<SelfProbe> {
        let (stop, stopped) = bounded::<()>(0);
        let addresses = reachable(listening_on);
        tell(&published, false);
        threads::detach("self-probe", move || {
            let mut incident = Incident::beginning_after(FAILURES);
            loop {
                match ask_any(&addresses) {
                    Ok(()) => {
                        if incident.over().is_some() {
                            info!("the HTTP port answers again");
                        }
                        tell(&published, true);
                    }
                    Err((address, error)) => {
                        if incident.met(()) {
                            error!(
                                "the HTTP port does not answer: {FAILURES} requests for http://{address}/health have failed, the last with: {error}"
                            );
                            tell(&published, false);
                        }
                    }
                }
                if stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        })?;
        Ok(SelfProbe { _stop: stop })
    }
}

fn tell(published: &Published, is_up: bool) {
    published
        .health
        .update(|state| state.is_http_up = Some(is_up));
    published.fleet().http_is_up(is_up);
}

/// Where a listener can be reached from this host: one on all addresses by the loopback of its
/// kind. One for both families may stand on a host whose loopback has no address of IPv6.
fn reachable(listening_on: SocketAddr) -> Vec<SocketAddr> {
    let ips: Vec<IpAddr> = match listening_on.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
        }
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => vec![ip],
    };
    let at = |ip| {
        // The scope of a link-local address is kept.
        let mut address = listening_on;
        address.set_ip(ip);
        address
    };
    ips.into_iter().map(at).collect()
}

/// Asks at the first address, and at the next one only where this host has no way to the first.
fn ask_any(addresses: &[SocketAddr]) -> Result<(), (SocketAddr, io::Error)> {
    let mut last = None;
    for &address in addresses {
        match ask(address) {
            Ok(()) => return Ok(()),
            Err(error) => {
                let has_no_way = matches!(
                    error.kind(),
                    io::ErrorKind::AddrNotAvailable | io::ErrorKind::NetworkUnreachable
                );
                last = Some((address, error));
                if !has_no_way {
                    break;
                }
            }
        }
    }
    last.map_or(Ok(()), Err)
}

/// One request, bounded as a whole.
fn ask(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + ANSWER_MAX;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        Ok(left)
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status = [0; STATUS.len()];
    let mut n_read = 0;
    while n_read < status.len() {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut status[n_read..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => n_read += n,
        }
    }
    if status == STATUS {
        Ok(())
    } else {
        Err(io::Error::other("the answer is not 200"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_over_its_loopback() {
        let cases = [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080 127.0.0.1:8080"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("192.0.2.7:80", "192.0.2.7:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ];
        for (listening_on, expected) in cases {
            let listening_on: SocketAddr = listening_on.parse().expect("it is an address");
            let asked: Vec<String> = reachable(listening_on)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(asked.join(" "), expected);
        }
    }
}
