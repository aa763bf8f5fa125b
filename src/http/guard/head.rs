//! Pure: what a request's head means, and the one form in which it goes on.
//!
//! The head is written anew from what was understood, never copied, so the server behind the guard
//! has nothing to decide: there is one length, one request, and one peer address.
//!
//! Headers that a client names in `Connection` are not removed, though a proxy would remove them:
//! the guard is no proxy, and a client could have the `X-Forwarded-For` removed that tells its
//! address.

use std::fmt::Write as _;
use std::net::IpAddr;

use httparse::Request;

use crate::http::api::exchange::PEER;
use crate::http::api::route;
use crate::http::guard::refusal::Refusal;

/// Most bytes of path and query.
const TARGET_MAX: usize = 4 * 1024;

/// Headers that are not passed on: those of this connection and not of the request, and those that
/// the guard writes itself.
const NOT_PASSED_ON: [&str; 11] = [
    "Connection",
    "Content-Length",
    "Expect",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Upgrade",
    PEER,
];

/// A request's head after the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    method: String,
    target: String,
    /// The version is HTTP/1.1 and not 1.0, in which a Host may be missing.
    is_1_1: bool,
    /// The headers that are passed on, in their order.
    headers: Vec<(String, String)>,
    /// How long the body is.
    pub(super) body_length: usize,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

impl Head {
    /// Checks what the parts mean together.
    pub(super) fn understand(request: &Request) -> Result<Head, Refusal> {
        const INCOMPLETE: Refusal = Refusal::malformed("the request line is not complete");
        let method = request.method.ok_or(INCOMPLETE)?;
        let target = request.path.ok_or(INCOMPLETE)?;
        let is_1_1 = request.version == Some(1);
        // The target of CONNECT has no path. Any other method is passed on: each path knows its
        // methods, and its refusal of others names them.
        if method == "CONNECT" {
            return Err(Refusal::METHOD);
        }
        if target.len() > TARGET_MAX {
            return Err(Refusal::TARGET_TOO_LONG);
        }
        // Also `*` and `http://…`: the host of such a target would have to win over the Host
        // header, and no client sends it to a server that is no proxy.
        if !target.starts_with('/') || target.contains('#') {
            return Err(Refusal::malformed("the request target must be a path"));
        }
        let mut headers = Vec::new();
        for header in &*request.headers {
            let value = std::str::from_utf8(header.value)
                .map_err(|_| Refusal::malformed("a header is not text"))?;
            headers.push((header.name, value));
        }
        let all = |name: &str| {
            let named = headers
                .iter()
                .filter(move |(known, _)| known.eq_ignore_ascii_case(name));
            named.map(|(_, value)| *value).collect::<Vec<&str>>()
        };
        if !all("Transfer-Encoding").is_empty() {
            return Err(Refusal::TRANSFER_ENCODING);
        }
        let body_length = body_length(&all("Content-Length"))?;
        if body_length > route::find(method, target).body_max() {
            return Err(Refusal::BODY_TOO_LARGE);
        }
        let n_hosts = all("Host").len();
        if n_hosts > 1 || (n_hosts == 0 && is_1_1) {
            return Err(Refusal::malformed("there must be one Host header"));
        }
        let expectations = all("Expect");
        let is_known = |value: &&str| value.eq_ignore_ascii_case("100-continue");
        if !expectations.iter().all(is_known) {
            return Err(Refusal::EXPECTATION);
        }
        // Clients of HTTP/1.0 do not know `100 Continue`.
        let expects_continue = is_1_1 && body_length > 0 && !expectations.is_empty();
        headers.retain(|(name, _)| {
            let is_ours = |ours: &&str| ours.eq_ignore_ascii_case(name);
            !NOT_PASSED_ON.iter().any(is_ours)
        });
        Ok(Head {
            method: method.to_owned(),
            target: target.to_owned(),
            is_1_1,
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body_length: usize::try_from(body_length).map_err(|_| Refusal::BODY_TOO_LARGE)?,
            expects_continue,
        })
    }

    /// The head as the server behind the guard is to read it, with nothing left to decide: one
    /// length, one request, one peer address.
    pub(super) fn rewrite(&self, peer: IpAddr) -> Vec<u8> {
        let minor = u8::from(self.is_1_1);
        let mut text = format!("{} {} HTTP/1.{minor}\r\n", self.method, self.target);
        let own = [
            ("Connection", "close".to_owned()),
            ("Content-Length", self.body_length.to_string()),
            (PEER, peer.to_canonical().to_string()),
        ];
        let passed_on = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        for (name, value) in passed_on.chain(own.iter().map(|(name, value)| (*name, value))) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Without a Content-Length there is no body, whatever the method: clients post to `…/retry`
/// without one.
fn body_length(values: &[&str]) -> Result<u64, Refusal> {
    match values {
        [] => Ok(0),
        // Only digits: no sign, list or blank, which `parse` might accept.
        [value] if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
            value.parse().map_err(|_| Refusal::BODY_TOO_LARGE)
        }
        _ => Err(Refusal::malformed(
            "there must be at most one Content-Length, and it must be a number",
        )),
    }
}
