//! The URL of a receiver, its secrets set apart. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use ureq::http::Uri;
use ureq::http::uri::{Authority, PathAndQuery, Scheme};

use crate::handlers::http::masks::Masks;

/// What a URL says, its secrets set apart.
pub(super) struct Receiver {
    /// Where to connect and what to ask for; without user and password.
    pub(super) url: Uri,
    /// For people: scheme, host and port. Path and query are `…`, since a path may be the
    /// credential, too.
    pub(super) shown: String,
    /// The `Authorization` header that the URL asks for.
    pub(super) authorization: Option<String>,
    /// Parts of the URL that an answer may repeat: many receivers name the path that they do not
    /// know.
    pub(super) masks: Masks,
}

impl Receiver {
    /// The errors do not repeat the URL, because it may hold secrets.
    pub(super) fn parse(text: &str) -> Result<Receiver, String> {
        let refused = |problem: &str| {
            format!(
                "{problem}; it must be an http or https URL such as `https://crm.example/hooks`"
            )
        };
        let url: Uri = text
            .parse()
            .map_err(|error| refused(&format!("the URL is not valid: {error}")))?;
        let mut parts = url.into_parts();
        let scheme = match &parts.scheme {
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => scheme.clone(),
            Some(_) | None => return Err(refused("the URL has no scheme that can be used")),
        };
        let authority = parts.authority.take();
        let authority = authority.as_ref().map_or("", Authority::as_str);
        let (user, host) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(user, host)| (Some(user), host));
        let host: Authority = host
            .parse()
            .map_err(|_| refused("the URL has no valid host"))?;
        if host.host().is_empty() || host.port_u16() == Some(0) || !has_valid_port(&host) {
            return Err(refused("the URL has no valid host or port"));
        }
        let path = parts.path_and_query.as_ref().map(PathAndQuery::as_str);
        let path = if path.is_some_and(|path| path.len() > 1) {
            "…"
        } else {
            ""
        };
        let shown = format!("{scheme}://{host}/{path}");
        let authorization = user.map(basic_of_url);
        let masks = masks_of(
            parts.path_and_query.as_ref(),
            user,
            authorization.as_deref(),
        );
        parts.authority = Some(host);
        Ok(Receiver {
            url: Uri::from_parts(parts).map_err(|_| refused("the URL is not valid"))?,
            shown,
            authorization,
            masks,
        })
    }
}

/// The parts of a URL that are to be shown nowhere: long parts of path and query, the password, and
/// the header made of it.
fn masks_of(path: Option<&PathAndQuery>, user: Option<&str>, authorization: Option<&str>) -> Masks {
    let mut masks = Masks::default();
    let path = path.map_or("", PathAndQuery::as_str);
    for part in path.split(['/', '?', '&', '=', ';']) {
        masks.add_if_secret(part);
    }
    for whole in [path, path.split('?').next().unwrap_or_default()] {
        masks.add_if_long(whole);
    }
    if let Some((_, password)) = user.and_then(|user| user.split_once(':')) {
        masks.add(password);
    }
    if let Some(credentials) = authorization.and_then(|header| header.strip_prefix(BASIC)) {
        masks.add(credentials);
    }
    masks
}

/// Shows a URL without what may be secret in it: user, password, path and query.
pub(super) fn shown_url(url: &str) -> String {
    Receiver::parse(url).map_or_else(|_| "…".to_owned(), |receiver| receiver.shown)
}

/// `host:` and `host:99999` are taken by the parser, as a host without port.
fn has_valid_port(host: &Authority) -> bool {
    let after_host = &host.as_str()[host.host().len()..];
    after_host.is_empty() || host.port_u16().is_some()
}

/// The header for a URL's `user:password`, in which anything may be percent-encoded.
fn basic_of_url(user: &str) -> String {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
    basic(&decoded(name), &decoded(password))
}

/// The scheme of an `Authorization` header with user and password.
pub(super) const BASIC: &str = "Basic ";

/// The `Authorization` header for a user and a password.
pub(super) fn basic(user: &[u8], password: &[u8]) -> String {
    let plain = [user, b":", password].concat();
    format!("{BASIC}{}", BASE64_STANDARD.encode(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_used_and_never_shown() {
        let receiver =
            Receiver::parse("https://me%40x:p%3A@[::1]:8443/hook?token=t#f").expect("a valid URL");

        assert_eq!(receiver.url.to_string(), "https://[::1]:8443/hook?token=t");
        assert_eq!(receiver.shown, "https://[::1]:8443/…");
        assert_eq!(
            receiver.authorization,
            Some(format!("Basic {}", BASE64_STANDARD.encode("me@x:p:")))
        );
    }

    #[test]
    fn what_an_answer_repeats_of_a_url_is_masked() {
        let receiver =
            Receiver::parse("https://me:hunter2@host/services/T000/XyZs3cr3tXyZ?key=0123456789ab")
                .expect("a valid URL");

        for (text, masked) in [
            (
                "Cannot POST /services/T000/XyZs3cr3tXyZ?key=0123456789ab",
                "Cannot POST …",
            ),
            ("no /services/T000/XyZs3cr3tXyZ here", "no … here"),
            ("unknown hook XyZs3cr3tXyZ", "unknown hook …"),
            (
                "key 0123456789ab, Basic bWU6aHVudGVyMg==, hunter2",
                "key …, Basic …, …",
            ),
            ("no services for T000", "no services for T000"),
        ] {
            assert_eq!(receiver.masks.apply(text), masked);
        }
    }

    #[test]
    fn a_url_without_a_path_asks_for_the_root() {
        let receiver = Receiver::parse("http://host").expect("a valid URL");

        assert_eq!(receiver.shown, "http://host/");
        assert_eq!(receiver.url.path(), "/");
        assert_eq!(receiver.authorization, None);
    }

    #[test]
    fn a_url_that_leads_nowhere_is_refused_without_repeating_it() {
        for url in [
            "",
            "/hook",
            "secret",
            "http://",
            "http://secret@",
            "http:///secret",
            "http://host:0/secret",
            "http://host:/secret",
            "http://host:99999/secret",
            "ftp://host/secret",
            "http://ho st/secret",
            "http://host/\u{0}secret",
        ] {
            let problem = Receiver::parse(url)
                .err()
                .unwrap_or_else(|| panic!("{url} was taken"));
            assert!(
                problem.contains("must be an http or https URL"),
                "{problem}"
            );
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn what_is_no_percent_code_stays() {
        let plain = BASE64_STANDARD.encode("a/b%zz%4:%+1");
        assert_eq!(basic_of_url("a%2Fb%zz%4:%+1"), format!("Basic {plain}"));
    }
}
