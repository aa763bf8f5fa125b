//! Keeps to `require_auth`: looks at the way in which the server asks for the login.
//!
//! The driver answers whatever the server asks, in its first message, and does not tell what that
//! was. So the stream that the driver reads is looked at before it: where the server asks in a way
//! that is not allowed, the read fails, and no password has been sent. Where the way is allowed,
//! the driver itself insists that it is gone to its end.
//!
//! The stream is ours over TCP alone, with TLS or without; see [`line`](crate::store::line) for the
//! Unix socket, over which a description with `require_auth` is refused.

use std::io;

use crate::store::dsn::{AuthRule, NO_AUTH};

/// The kind of a message, its length, and the number of the way.
const HEAD_BYTES: usize = 9;

/// The kinds of message with which a server answers the startup packet: it asks for the login, or
/// refuses the connection.
const AUTHENTICATION: u8 = b'R';
const ERROR: u8 = b'E';

/// Looks at what comes from the server until it is known how it asks for the login.
#[derive(Debug, Default)]
pub(super) struct LoginWatch {
    /// `None` where every way is allowed, or where it is known already.
    rule: Option<AuthRule>,
    head: Vec<u8>,
}

impl LoginWatch {
    pub(super) fn new(rule: Option<AuthRule>) -> LoginWatch {
        LoginWatch {
            rule,
            head: Vec::new(),
        }
    }

    /// Looks at the next bytes, in whatever pieces they come.
    pub(super) fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(rule) = &self.rule else {
            return Ok(());
        };
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend(bytes.iter().take(missing));
        match self.head[..] {
            [ERROR, ..] => {
                self.rule = None;
                Ok(())
            }
            [AUTHENTICATION, _, _, _, _, a, b, c, d] => {
                check(rule, u32::from_be_bytes([a, b, c, d]))?;
                self.rule = None;
                Ok(())
            }
            [] | [AUTHENTICATION, ..] => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server does not say how it asks for the login",
            )),
        }
    }
}

/// Checks the number of a way to ask; the names are those of `require_auth`.
fn check(rule: &AuthRule, number: u32) -> io::Result<()> {
    let method = match number {
        0 => NO_AUTH,
        3 => "password",
        5 => "md5",
        7 => "gss",
        9 => "sspi",
        // The only one of its kind that the driver speaks.
        10 => "scram-sha-256",
        _ => "",
    };
    if rule.allows(method) {
        return Ok(());
    }
    Err(io::Error::other(match method {
        NO_AUTH => "the server asks for no authentication, which require_auth does not allow".to_owned(),
        "" => "the server asks for an authentication that is unknown here, which require_auth does not allow".to_owned(),
        _ => format!("the server asks for authentication by {method}, which require_auth does not allow"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dsn::Dsn;

    /// Why a server is refused that says this; empty where it is not.
    fn refusal(rule: &str, pieces: &[&[u8]]) -> String {
        let dsn = Dsn::parse(&format!("host=h user=u require_auth={rule}"));
        let dsn = dsn.expect("the rule is one of libpq's");
        let mut watch = LoginWatch::new(dsn.auth_rule());
        let looked = pieces.iter().try_for_each(|piece| watch.look(piece));
        looked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn the_way_is_known_in_whatever_pieces_it_comes() {
        let asks = b"R\0\0\0\x08\0\0\0\x03";
        for size in 1..=asks.len() {
            let pieces: Vec<&[u8]> = asks.chunks(size).collect();
            assert_eq!(refusal("password", &pieces), "", "{size}");
            let refusal = refusal("md5", &pieces);
            assert!(refusal.contains("by password, which"), "{refusal}");
        }
    }

    #[test]
    fn what_comes_after_the_way_is_not_looked_at() {
        let asks = b"R\0\0\0\x0c\0\0\0\x05saltR\0\0\0\x08\0\0\0\x03";
        assert_eq!(refusal("md5", &[asks, b"R\0\0\0\x08\0\0\0\0"]), "");
    }

    #[test]
    fn a_server_says_how_it_asks_or_refuses_the_connection() {
        assert_eq!(refusal("md5", &[b"", b"E\0\0\0\x09Sx\0\0"]), "");
        let unknown = refusal("!md5", &[b"R\0\0\0\x08\0\0\0\x2a"]);
        assert!(unknown.contains("unknown here"), "{unknown}");
        for first in ["N", "Z", "v", "HTTP/1.1"] {
            let refusal = refusal("!md5", &[first.as_bytes()]);
            assert!(refusal.contains("does not say"), "{refusal}");
        }
    }
}
