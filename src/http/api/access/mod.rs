//! Which requests may use the API: a pure function of the settings, the peer and the headers.
//!
//! Dead events hold payloads, and requeuing or discarding them changes what is delivered. So the
//! default is narrow: without a token, only clients on this host that call it by a loopback name;
//! with a token, every client that shows it, from anywhere. `/health`, `/ready`, `/metrics` and the
//! page hold no payload and are open.
//!
//! What each rule is against:
//! - *the peer*: strangers in the network; the port listens on all addresses by default;
//! - *the forwarding headers*: a proxy on this host, behind which every client's peer is a loopback
//!   address. A proxy that adds no such header cannot be told from a local client: behind it, set a
//!   token;
//! - *the Host header*: a web page whose own name was made to lead to 127.0.0.1 (DNS rebinding);
//! - *Origin and Sec-Fetch-Site*: a web page elsewhere that makes a browser on this host post here.
//!   Other clients send neither header, and need not. No CORS header is ever sent, so no page
//!   elsewhere can read an answer, or send a token: a browser asks before it sends that header to
//!   another site, and is refused. So a request that shows the token is not refused for a Host that
//!   a proxy has replaced and that fits no Origin;
//! - *the token*: everything else.
//!
//! `--http-open-api` switches all of these rules off, those against cross-site requests included.
//! It restores the behavior of the predecessor exactly, for a port that only friends can reach.

mod bearer;
mod loopback;
mod proxy;
mod site;

use std::net::SocketAddr;

use crate::http::api::exchange::{Incoming, Reply};
use crate::http::api::token::ApiToken;

/// Which requests may use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// All requests.
    Open,
    /// Requests that show this token.
    Token(ApiToken),
    /// Requests from this host that name it by a loopback name or by one of these names.
    Local {
        /// Further names, in lower case.
        allowed_hosts: Vec<String>,
    },
}

impl Access {
    /// Returns the warning about this setting that the log gets at the start, for a listener at
    /// this address.
    pub(in crate::http) fn warning(&self, address: SocketAddr) -> Option<String> {
        let is_public = !address.ip().to_canonical().is_loopback();
        match self {
            Access::Open => Some(format!(
                "--http-open-api: every client that reaches http://{address} can read, requeue and discard dead events"
            )),
            Access::Local { .. } if is_public => Some(format!(
                "without --api-token-file the API at http://{address} answers only clients on this host"
            )),
            Access::Local { .. } | Access::Token(_) => None,
        }
    }

    /// Lets a request pass, or says what it lacks.
    pub(in crate::http) fn check(&self, request: &Incoming) -> Result<(), Reply> {
        match self {
            Access::Open => Ok(()),
            Access::Token(token) => {
                let shown = bearer::check(token, request);
                site::check(request, shown.is_ok())?;
                shown
            }
            Access::Local { allowed_hosts } => {
                site::check(request, false)?;
                loopback::check(allowed_hosts, request)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A request from this peer with these headers.
    fn request(method: &str, peer: Option<&str>, headers: &[(&str, &str)]) -> Incoming {
        Incoming {
            method: method.to_owned(),
            target: "/api/dead-events".to_owned(),
            peer: peer.map(|peer| peer.parse().expect("an address")),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: Vec::new(),
            arrived: Instant::now(),
        }
    }

    fn local() -> Access {
        Access::Local {
            allowed_hosts: vec!["outbox.internal".to_owned()],
        }
    }

    fn status(access: &Access, request: &Incoming) -> u16 {
        access
            .check(request)
            .map_or_else(|reply| reply.status, |()| 200)
    }

    #[track_caller]
    fn check_local(peer: Option<&str>, headers: &[(&str, &str)], expected: u16) {
        for method in ["GET", "POST"] {
            let request = request(method, peer, headers);
            assert_eq!(status(&local(), &request), expected, "{request:?}");
        }
    }

    #[test]
    fn without_a_token_a_loopback_peer_with_a_loopback_host_may() {
        let me = Some("127.0.0.1");
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1",
            "127.1.2.3:8080",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "outbox.internal",
            "OUTBOX.internal:80",
        ] {
            check_local(me, &[("host", host)], 200);
        }
        for peer in ["127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check_local(Some(peer), &[("Host", "localhost")], 200);
        }
    }

    #[test]
    fn without_a_token_nobody_else_may() {
        let me = Some("127.0.0.1");
        for host in [
            "",
            ":8080",
            "evil.example",
            "localhost.evil.example",
            "evil.example:127.0.0.1",
            "localhost:8080@evil.example",
            "localhost:80 80",
            "127.0.0.1.nip.io",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "10.0.0.1:8080",
            "::1",
            "[::1",
            "[::2]:8080",
            "[localhost]",
        ] {
            check_local(me, &[("Host", host)], 403);
        }
        check_local(me, &[], 403);
        check_local(me, &[("Host", "localhost"), ("Host", "localhost")], 403);
        for peer in [
            Some("10.0.0.1"),
            Some("::ffff:10.0.0.1"),
            Some("fe80::1"),
            None,
        ] {
            check_local(peer, &[("Host", "localhost")], 403);
        }
        for name in [
            "X-Forwarded-For",
            "x-forwarded-host",
            "X-Forwarded-Proto",
            "Forwarded",
            "Via",
            "X-Real-IP",
        ] {
            check_local(me, &[("Host", "localhost"), (name, "127.0.0.1")], 403);
        }
    }

    #[test]
    fn the_refusal_names_the_option() {
        let refused = local()
            .check(&request("GET", Some("10.0.0.1"), &[]))
            .expect_err("a stranger");
        assert!(refused.body.contains("--api-token-file"), "{refused:?}");
        assert_eq!(refused.media_type, "application/json");
    }

    #[test]
    fn a_page_elsewhere_cannot_make_a_browser_change_anything() {
        let me = Some("127.0.0.1");
        let host = ("Host", "localhost:8080");
        // name, value, status of a POST, status of a GET
        let cases = [
            ("Origin", "http://localhost:8080", 200, 200),
            ("Origin", "https://LOCALHOST:8080", 200, 200),
            ("Origin", "http://localhost:3000", 403, 200),
            ("Origin", "http://evil.example", 403, 200),
            ("Origin", "null", 403, 200),
            ("Origin", "", 403, 200),
            ("Sec-Fetch-Site", "same-origin", 200, 200),
            ("Sec-Fetch-Site", "none", 200, 200),
            ("Sec-Fetch-Site", "same-site", 403, 200),
            ("Sec-Fetch-Site", "cross-site", 403, 403),
            ("Sec-Fetch-Site", "new-word", 403, 403),
        ];
        for (name, value, post, get) in cases {
            for (method, expected) in [
                ("POST", post),
                ("DELETE", post),
                ("GET", get),
                ("HEAD", get),
            ] {
                let request = request(method, me, &[host, (name, value)]);
                assert_eq!(status(&local(), &request), expected, "{request:?}");
            }
        }
        let both = [
            host,
            ("Origin", "http://localhost:8080"),
            ("Origin", "null"),
        ];
        assert_eq!(status(&local(), &request("POST", me, &both)), 403);
    }

    #[test]
    fn a_token_is_asked_of_everybody_and_opens_from_everywhere() {
        let access = Access::Token(token());
        let good = ("Authorization", "Bearer 0123456789abcdef");
        let shouted = ("authorization", "BEARER 0123456789abcdef");
        let host = ("Host", "outbox.example");
        for peer in [Some("127.0.0.1"), Some("10.0.0.1"), None] {
            for header in [good, shouted] {
                let request = request(
                    "POST",
                    peer,
                    &[host, header, ("X-Forwarded-For", "1.2.3.4")],
                );
                assert_eq!(status(&access, &request), 200, "{request:?}");
            }
            let wrong: [&[(&str, &str)]; 8] = [
                &[],
                &[("Authorization", "")],
                &[("Authorization", "Bearer")],
                &[("Authorization", "Bearer ")],
                &[("Authorization", "Bearer 0123456789abcdeF")],
                &[("Authorization", "Basic 0123456789abcdef")],
                &[("Authorization", "0123456789abcdef")],
                &[good, good],
            ];
            for headers in wrong {
                let headers = [&[("Host", "localhost")], headers].concat();
                let refused = access
                    .check(&request("GET", peer, &headers))
                    .expect_err("no token");
                assert_eq!(refused.status, 401, "{headers:?}");
                let (name, value) = &refused.headers[0];
                assert_eq!(*name, "WWW-Authenticate");
                assert!(value.starts_with("Bearer"), "{value}");
            }
        }
        let elsewhere = [host, good, ("Origin", "https://evil.example")];
        assert_eq!(status(&access, &request("POST", None, &elsewhere)), 403);
    }

    #[test]
    fn with_the_token_a_proxy_may_have_replaced_the_host() {
        let access = Access::Token(token());
        let good = ("Authorization", "Bearer 0123456789abcdef");
        let wrong = ("Authorization", "Bearer 0123456789abcdeF");
        let site = |value| ("Sec-Fetch-Site", value);
        let by_tls = ("Origin", "https://outbox.example:8443");
        let plain = ("Origin", "http://outbox.example");
        let forwarded = ("X-Forwarded-For", "192.0.2.7");
        for host in ["127.0.0.1:8080", "outbox.example", "upstream"] {
            let post = |headers: &[(&str, &str)]| {
                let headers = [&[("Host", host)], headers].concat();
                status(&access, &request("POST", Some("127.0.0.1"), &headers))
            };
            assert_eq!(post(&[good, by_tls, site("same-origin"), forwarded]), 200);
            assert_eq!(post(&[good, by_tls, site("same-origin")]), 200);
            assert_eq!(post(&[good, by_tls, forwarded]), 200);
            assert_eq!(post(&[good, plain]), 200);

            assert_eq!(post(&[good, by_tls, site("cross-site"), forwarded]), 403);
            assert_eq!(post(&[good, by_tls, site("same-site"), forwarded]), 403);
            assert_eq!(post(&[good, site("same-origin"), site("cross-site")]), 403);
            assert_eq!(post(&[by_tls, forwarded]), 403);
            assert_eq!(post(&[wrong, by_tls, forwarded]), 403);
            assert_eq!(post(&[wrong, site("same-origin")]), 401);
        }
    }

    #[test]
    fn an_open_api_is_as_open_as_the_predecessor_was() {
        let headers = [("Host", "evil.example"), ("Sec-Fetch-Site", "cross-site")];
        assert_eq!(status(&Access::Open, &request("POST", None, &headers)), 200);
    }

    #[test]
    fn a_start_warns_of_what_a_network_can_reach() {
        let warning =
            |access: &Access, address: &str| access.warning(address.parse().expect("an address"));
        for public in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80"] {
            let text = warning(&local(), public).expect("a warning");
            assert!(text.contains("--api-token-file"), "{text}");
            assert_eq!(warning(&Access::Token(token()), public), None);
        }
        assert_eq!(warning(&local(), "127.0.0.1:8080"), None);
        assert_eq!(warning(&local(), "[::1]:8080"), None);
        for address in ["0.0.0.0:8080", "127.0.0.1:8080"] {
            let text = warning(&Access::Open, address).expect("a warning");
            assert!(text.starts_with("--http-open-api"), "{text}");
        }
    }

    fn token() -> ApiToken {
        ApiToken::parse("0123456789abcdef").expect("a token")
    }
}
