//! Requests as the endpoints get them, and their replies: plain values, so that only `backend.rs`
//! knows the server below.

use std::net::IpAddr;
use std::time::Instant;

const JSON: &str = "application/json";

/// The header by which the guard tells the endpoints the address of the peer; a client cannot send
/// it.
pub(super) const PEER: &str = "X-Dispatchbox-Peer";

/// A whole request, its body included.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    /// The method as it was sent: methods are case-sensitive.
    pub(super) method: String,
    /// Path and query as they were sent, percent-encoded.
    pub(super) target: String,
    /// The address at the other end of the connection; `None` when it cannot be known.
    pub(super) peer: Option<IpAddr>,
    /// Names and values in their order; a name may come more than once.
    pub(super) headers: Vec<(String, String)>,
    /// The body, within the limits of the guard.
    pub(super) body: Vec<u8>,
    /// When the request was complete.
    pub(super) arrived: Instant,
}

impl Incoming {
    /// The values of all headers of this name, in whatever case.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    pub(super) body: String,
    /// Headers beside Content-Length and those that every answer has.
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// An answer whose body is JSON text already.
    pub(super) fn json(status: u16, body: impl Into<String>) -> Reply {
        Reply {
            status,
            media_type: JSON,
            body: body.into(),
            headers: Vec::new(),
        }
    }

    /// `{"error":…}`.
    pub(super) fn error(status: u16, error: &str) -> Reply {
        Reply::json(status, serde_json::json!({ "error": error }).to_string())
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}
