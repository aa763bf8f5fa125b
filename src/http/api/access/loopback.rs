//! Clients on this host: the peer is a loopback address, no proxy forwards, and the Host is a
//! loopback name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::http::api::access::proxy::is_forwarded;
use crate::http::api::exchange::{Incoming, Reply};

/// Lets a request of a client on this host pass, if it names the host by a loopback name or by one
/// of `allowed_hosts`.
pub(super) fn check(allowed_hosts: &[String], request: &Incoming) -> Result<(), Reply> {
    let is_local = request
        .peer
        .is_some_and(|peer| peer.to_canonical().is_loopback());
    if !is_local || is_forwarded(request) {
        return Err(Reply::error(
            403,
            "without --api-token-file the API answers only clients on its own host",
        ));
    }
    let host = request.only("Host").and_then(host_name);
    let is_known = host.is_some_and(|host| {
        is_loopback_name(host)
            || allowed_hosts
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(host))
    });
    if is_known {
        return Ok(());
    }
    Err(Reply::error(
        403,
        "without --api-token-file the API must be called by a loopback name or one of --http-allowed-hosts",
    ))
}

/// The host of `host`, `host:port` or `[address]:port`; an address in brackets keeps them.
fn host_name(header: &str) -> Option<&str> {
    let (host, port) = match header.find(']') {
        Some(end) => header.split_at(end + 1),
        None => header.split_at(header.find(':').unwrap_or(header.len())),
    };
    let has_port = port
        .strip_prefix(':')
        .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    (!host.is_empty() && (port.is_empty() || has_port)).then_some(host)
}

fn is_loopback_name(host: &str) -> bool {
    let address = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => host.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
    };
    host.eq_ignore_ascii_case("localhost")
        || address.is_some_and(|address| address.to_canonical().is_loopback())
}
