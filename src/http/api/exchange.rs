//! Requests as the endpoints get them, and their replies: plain values, so that only `backend.rs`
//! knows the server below.

use std::net::IpAddr;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

const JSON: &str = "application/json";

/// The header by which the guard tells the endpoints the address of the peer; a client cannot send
/// it.
pub(in crate::http) const PEER: &str = "X-Dispatchbox-Peer";

/// A whole request, its body included.
#[derive(Debug, Clone)]
pub(in crate::http) struct Incoming {
    /// The method as it was sent: methods are case-sensitive.
    pub(in crate::http) method: String,
    /// Path and query as they were sent, percent-encoded.
    pub(in crate::http) target: String,
    /// The address at the other end of the connection; `None` when it cannot be known.
    pub(in crate::http) peer: Option<IpAddr>,
    /// Names and values in their order; a name may come more than once.
    pub(in crate::http) headers: Vec<(String, String)>,
    /// The body, within the limits of the guard.
    pub(in crate::http) body: Vec<u8>,
    /// When the request was complete.
    pub(in crate::http) arrived: Instant,
}

impl Incoming {
    /// The values of all headers of this name, in whatever case.
    pub(in crate::http) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The header of this name, if there is exactly one: of two, it is not known which one counts.
    pub(in crate::http) fn only<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct Reply {
    pub(in crate::http) status: u16,
    pub(in crate::http) media_type: &'static str,
    pub(in crate::http) body: String,
    /// Headers beside Content-Length and those that every answer has.
    pub(in crate::http) headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// An answer whose body is JSON text already.
    pub(in crate::http) fn json(status: u16, body: impl Into<String>) -> Reply {
        Reply {
            status,
            media_type: JSON,
            body: body.into(),
            headers: Vec::new(),
        }
    }

    /// An answer with this value, whose keys keep the order of its fields.
    pub(in crate::http) fn of(status: u16, value: &impl Serialize) -> Reply {
        let body = serde_json::to_string(value).expect("an answer has no keys but texts");
        Reply::json(status, body)
    }

    /// `{"error":…}`.
    pub(in crate::http) fn error(status: u16, error: &str) -> Reply {
        Reply::of(status, &json!({ "error": error }))
    }

    /// Adds a header.
    pub(in crate::http) fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}
