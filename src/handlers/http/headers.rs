//! The headers of a route: `headers = { X-Tenant = "acme", X-Api-Key = { file = "…" } }`.
//!
//! A route may set any field but those that have an owner: the framing of the message and the
//! connection are the client's, as with every HTTP client that programs drive; `Host` is what the
//! URL says, since another one would lead an event past the receiver that the route names; and what
//! differs with each event is not the route's to fix.

use std::collections::BTreeSet;

use ureq::http::{HeaderName, HeaderValue};

use crate::handlers::http::masks::Masks;
use crate::handlers::http::secret::{Live, Plain, Reading, Secret};
use crate::handlers::keys::Keys;
use crate::handlers::kind::Secrets;
use crate::system::logging::quoted;

/// The headers of a route as they were configured: names and values.
pub(super) type Headers = Vec<(String, Secret)>;

/// Stands for a value that is left unread.
const UNREAD: &str = "unread";

/// Reads the table `headers`.
pub(super) fn read(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<Headers, String> {
    let Some(table) = keys.table("headers")? else {
        return Ok(Vec::new());
    };
    let reading = Reading {
        secrets,
        unread: UNREAD,
    };
    let mut seen = BTreeSet::new();
    let read = |name: &str| {
        let key = format!("headers.{name}");
        let secret = Secret::of_key(table, name, &key, Plain::Allowed, reading)?;
        Ok((name.to_owned(), secret))
    };
    for name in table.names() {
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(format!("has the header {} twice", quoted(name)));
        }
    }
    table.names().map(read).collect()
}

/// A header whose value may change.
pub(super) struct Header {
    name: HeaderName,
    value: Live,
}

impl Header {
    /// Makes a header ready to be sent.
    pub(super) fn new(name: &str, value: &Secret) -> Result<Header, String> {
        let refused = |problem: &str| format!("has the header {}, {problem}", quoted(name));
        let header: HeaderName = name
            .parse()
            .map_err(|_| refused("whose name no header can have"))?;
        if let Some(problem) = owner_of(header.as_str()) {
            return Err(refused(problem));
        }
        let value = Live::new(&format!("headers.{name}"), value, check_value)
            .map_err(|problem| refused(&problem))?;
        Ok(Header {
            name: header,
            value,
        })
    }

    /// Reads its value again where that has changed, and says whether it has.
    pub(super) fn look(&self) -> bool {
        self.value.look()
    }

    /// The name, in lower case.
    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The header as it is sent; `masks` learns what of it is to be shown nowhere.
    pub(super) fn now(&self, masks: &mut Masks) -> (HeaderName, HeaderValue) {
        let value = self.value.value();
        if self.value.is_hidden() || is_credential(self.name.as_str()) {
            masks.add(&value);
            // A scheme stands before the secret.
            value.split_once(' ').inspect(|(_, rest)| masks.add(rest));
        } else {
            masks.add_if_secret(&value);
        }
        let mut header = HeaderValue::from_str(&value).expect("the value was checked");
        header.set_sensitive(true);
        (self.name.clone(), header)
    }
}

fn check_value(value: &str) -> Result<(), String> {
    match HeaderValue::from_str(value) {
        Ok(_) => Ok(()),
        Err(_) => Err("whose value must be visible ASCII".to_owned()),
    }
}

/// Why a route may not set a header.
fn owner_of(name: &str) -> Option<&'static str> {
    match name {
        "connection"
        | "content-length"
        | "expect"
        | "keep-alive"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade" => Some("which belongs to the connection and not to the route"),
        "content-type" => Some("for which there is the key `content_type`"),
        "host" => Some("which follows from the URL"),
        "traceparent" | "tracestate" => Some("which comes from the headers of the event"),
        _ if name.starts_with("dispatchbox-") => {
            Some("but names that begin with `Dispatchbox-` are the program's own")
        }
        _ => None,
    }
}

/// Says whether a header holds a secret by its name.
fn is_credential(name: &str) -> bool {
    let words = ["auth", "cookie", "key", "password", "secret", "token"];
    words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_has_another_owner_or_cannot_be_sent_is_refused_without_its_value() {
        let check = |name: &str, part: &str| {
            let refusal = Header::new(name, &Secret::in_route("s3cr3t\u{1}"));
            let refusal = refusal.err().expect("this is refused");
            assert!(
                refusal.contains(part) && !refusal.contains("s3cr3t"),
                "{refusal}"
            );
        };

        check("Content-Length", "belongs to the connection");
        check("transfer-encoding", "belongs to the connection");
        check("CONNECTION", "belongs to the connection");
        check("Content-Type", "`content_type`");
        check("Host", "follows from the URL");
        check("Traceparent", "the headers of the event");
        check("Dispatchbox-Attempt", "the program's own");
        check("X Y", "no header can have");
        check("", "no header can have");
        check("X-Y", "must be visible ASCII");
    }

    #[test]
    fn the_value_of_a_credential_is_masked_and_an_ordinary_one_is_not() {
        let masked = |name: &str, value: &str| {
            let header = Header::new(name, &Secret::in_route(value)).expect("a header");
            let mut masks = Masks::default();
            header.now(&mut masks);
            masks.apply("Bearer s3cr3t acme")
        };

        assert_eq!(masked("Authorization", "Bearer s3cr3t"), "… acme");
        assert_eq!(masked("X-Api-Key", "s3cr3t"), "Bearer … acme");
        assert_eq!(masked("X-Tenant", "acme"), "Bearer s3cr3t acme");
    }
}
