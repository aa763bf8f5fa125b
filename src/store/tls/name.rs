//! Which names a server's certificate is for, by libpq's rules. Pure.
//!
//! rustls knows only names in the extension subjectAltName. libpq also takes the common name of the
//! subject where that extension has no name of the host's kind, and servers whose certificates were
//! made by hand have mostly nothing else.
//!
//! Source: `pq_verify_peer_name_matches_certificate_name` and its callers in PostgreSQL's
//! `src/interfaces/libpq/fe-secure-common.c` and `fe-secure-openssl.c`.

use std::net::IpAddr;

use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Any, Decode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The names of one certificate.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// DNS names of the subjectAltName.
    dns: Vec<String>,
    /// Addresses of the subjectAltName.
    addresses: Vec<IpAddr>,
    /// The first common name of the subject.
    common: Option<String>,
}

impl Names {
    /// Reads the names of a certificate; `None` when it cannot be decoded.
    pub(super) fn of(certificate: &[u8]) -> Option<Names> {
        let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
        let mut names = Names {
            common: certificate
                .subject
                .0
                .iter()
                .flat_map(|part| part.0.iter())
                .filter(|attribute| attribute.oid == COMMON_NAME)
                .map(|attribute| text_of(&attribute.value))
                .next()
                .flatten(),
            ..Names::default()
        };
        if let Ok(Some((_, alternatives))) = certificate.get::<SubjectAltName>() {
            for name in alternatives.0 {
                if let GeneralName::DnsName(name) = name {
                    names.dns.push(name.as_str().to_owned());
                } else if let GeneralName::IpAddress(bytes) = name {
                    names.addresses.extend(address_of(bytes.as_bytes()));
                }
            }
        }
        Some(names)
    }

    /// Says whether the certificate is for this host name or address.
    pub(super) fn include(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        if self.dns.iter().any(|name| matches(name, host))
            || address.is_some_and(|address| self.addresses.contains(&address))
        {
            return true;
        }
        let has_own_kind = if address.is_some() {
            !self.addresses.is_empty()
        } else {
            !self.dns.is_empty()
        };
        !has_own_kind && self.common.as_ref().is_some_and(|name| matches(name, host))
    }

    /// Lists the names for a person.
    pub(super) fn shown(&self) -> Vec<String> {
        let mut shown = self.dns.clone();
        shown.extend(self.addresses.iter().map(IpAddr::to_string));
        if shown.is_empty() {
            shown.extend(self.common.clone());
        }
        shown
    }
}

/// Says whether a certificate names itself as its issuer.
pub(super) fn is_self_issued(certificate: &[u8]) -> bool {
    Certificate::from_der(certificate).is_ok_and(|certificate| {
        certificate.tbs_certificate.issuer == certificate.tbs_certificate.subject
    })
}

/// The text of an attribute, in the encodings that certificates use today.
fn text_of(value: &Any) -> Option<String> {
    Utf8StringRef::try_from(value)
        .map(|text| text.as_str().to_owned())
        .or_else(|_| PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned()))
        .or_else(|_| Ia5StringRef::try_from(value).map(|text| text.as_str().to_owned()))
        .ok()
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Compares without regard to case. A star stands only for the whole first part of a name.
fn matches(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(domain) = name.strip_prefix('*').filter(|rest| rest.len() > 1) else {
        return false;
    };
    domain.starts_with('.')
        && host.split_once('.').is_some_and(|(first, rest)| {
            !first.is_empty() && rest.eq_ignore_ascii_case(&domain[1..])
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dns: &[&str], addresses: &[&str], common: Option<&str>) -> Names {
        Names {
            dns: dns.iter().map(|&name| name.to_owned()).collect(),
            addresses: addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect(),
            common: common.map(str::to_owned),
        }
    }

    #[test]
    fn names_are_compared_as_libpq_compares_them() {
        for (certificate, host, expected) in [
            (names(&["db1"], &[], None), "DB1", true),
            (names(&["db1"], &[], None), "db2", false),
            (names(&["*.example.com"], &[], None), "db.example.com", true),
            (
                names(&["*.example.com"], &[], None),
                "a.db.example.com",
                false,
            ),
            (names(&["*.example.com"], &[], None), "example.com", false),
            (names(&["*.example.com"], &[], None), ".example.com", false),
            (
                names(&["d*.example.com"], &[], None),
                "db.example.com",
                false,
            ),
            (names(&["*"], &[], None), "db", false),
            (names(&["*."], &[], None), "db.", false),
            (names(&[], &["127.0.0.1"], None), "127.0.0.1", true),
            (names(&[], &["::1"], None), "0:0::1", true),
            (names(&[], &["127.0.0.1"], None), "127.0.0.2", false),
            // A textual address among the names counts, too.
            (names(&["127.0.0.1"], &[], None), "127.0.0.1", true),
            // The common name counts where no name of the host's kind is there.
            (names(&[], &[], Some("db1")), "db1", true),
            (names(&["db2"], &[], Some("db1")), "db1", false),
            (names(&[], &["127.0.0.1"], Some("db1")), "db1", true),
            (names(&["db1"], &[], Some("127.0.0.1")), "127.0.0.1", true),
            (names(&[], &["::1"], Some("127.0.0.1")), "127.0.0.1", false),
            (names(&[], &[], None), "db1", false),
        ] {
            assert_eq!(
                certificate.include(host),
                expected,
                "{certificate:?} {host}"
            );
        }
    }
}
