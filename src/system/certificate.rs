//! What is wrong with a certificate, in words that name what would set it right. Shared by the way
//! to the database and the way to receivers.

use std::net::IpAddr;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// The other end of a connection, as messages speak of it.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// `the receiver`.
    pub name: &'a str,
    /// Where the trusted certificates come from.
    pub trusted: &'a str,
    /// How to trust another certificate.
    pub file: &'a str,
    /// How to call the peer by another name.
    pub another_name: &'a str,
    /// What to do where the peer wants a certificate of ours.
    pub no_client_certificate: &'a str,
    /// The file of the certificate of ours that the peer was shown.
    pub client_certificate: Option<&'a str>,
}

/// Says what is wrong, and which file, name or key would set it right.
pub fn in_words(error: &Error, peer: &Peer<'_>) -> String {
    if let Error::InvalidCertificate(error) = error {
        certificate_in_words(error, peer)
    } else if let Error::InvalidMessage(_) = error {
        format!("{} does not speak TLS on this port ({error})", peer.name)
    } else if let Error::AlertReceived(AlertDescription::CertificateRequired) = error {
        peer.no_client_certificate.to_owned()
    } else if let Error::AlertReceived(alert) = error
        && let Some(file) = peer.client_certificate
        && let Some(cause) = refusal_of_ours(*alert)
    {
        format!(
            "{} refuses the client certificate `{file}`: {cause}",
            peer.name
        )
    } else {
        error.to_string()
    }
}

/// What a peer has against a certificate of ours, where the alert says so.
fn refusal_of_ours(alert: AlertDescription) -> Option<&'static str> {
    if alert == AlertDescription::CertificateExpired {
        Some("it has expired, or is not valid yet")
    } else if alert == AlertDescription::CertificateRevoked {
        Some("it has been revoked")
    } else if alert == AlertDescription::UnknownCA {
        Some(
            "it does not trust the authority that has signed it; an intermediate certificate belongs into the same file",
        )
    } else if [
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateUnknown,
        AlertDescription::AccessDenied,
    ]
    .contains(&alert)
    {
        Some("its log says why")
    } else {
        None
    }
}

fn certificate_in_words(error: &CertificateError, peer: &Peer<'_>) -> String {
    let Peer {
        name,
        trusted,
        file,
        ..
    } = peer;
    if let CertificateError::UnknownIssuer = error {
        format!(
            "{name}'s certificate is signed by no authority that is trusted here (trusted: {trusted}); \
             {file}, or let {name} send its intermediate certificates along"
        )
    } else if let CertificateError::BadSignature = error {
        format!(
            "{name}'s certificate is not signed by the trusted authority whose name it bears (trusted: {trusted}); \
             where that has been renewed, {file}"
        )
    } else if let CertificateError::NotValidForNameContext {
        expected,
        presented,
    } = error
    {
        wrong_name(&expected.to_str(), presented, peer)
    } else if let CertificateError::ExpiredContext { not_after, .. } = error {
        format!(
            "{name}'s certificate has expired on {}; it needs a new one",
            date(*not_after)
        )
    } else if let CertificateError::NotValidYetContext { not_before, .. } = error {
        format!(
            "{name}'s certificate is valid from {} on; the clock of one of the hosts may be wrong",
            date(*not_before)
        )
    } else if is_authority_as_leaf(error) {
        format!(
            "{name}'s certificate is that of an authority (basic constraints CA:TRUE), and it is not \
             itself among the trusted ones ({trusted}); {file}, or reissue it with CA:FALSE"
        )
    } else if matches!(
        webpki_error(error),
        Some(webpki::Error::UnsupportedCertVersion)
    ) {
        format!(
            "{name}'s certificate is of X.509 version 1; reissue it as version 3, with a subjectAltName"
        )
    } else {
        format!("{name}'s certificate is not valid: {error}")
    }
}

/// The names come bare, or as `DnsName("crm.example")` and `IpAddress(127.0.0.1)`.
fn wrong_name(expected: &str, presented: &[String], peer: &Peer<'_>) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        inner.trim_matches(['"', '(', ')']).to_owned()
    };
    let kind = if expected.parse::<IpAddr>().is_ok() {
        "IP"
    } else {
        "DNS"
    };
    let names: Vec<String> = presented.iter().map(bare).collect();
    let of = if names.is_empty() {
        "no name (it has no subjectAltName)".to_owned()
    } else {
        format!("`{}`", names.join("`, `"))
    };
    format!(
        "{}'s certificate is for {of}, not for `{expected}`; {}, \
         or reissue it with subjectAltName={kind}:{expected}",
        peer.name, peer.another_name
    )
}

fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "an unknown day".to_owned(), |time| time.to_string())
}

/// Says whether only the way from an authority to the certificate is what fails. This is said of a
/// certificate after its dates have been checked and before its name is (a test holds that).
pub fn blames_the_issuer(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    ) || is_authority_as_leaf(error)
}

fn is_authority_as_leaf(error: &CertificateError) -> bool {
    matches!(webpki_error(error), Some(webpki::Error::CaUsedAsEndEntity))
}

/// The error of the library under rustls, for which rustls has no name.
fn webpki_error(error: &CertificateError) -> Option<&webpki::Error> {
    if let CertificateError::Other(other) = error {
        other.0.downcast_ref()
    } else {
        None
    }
}
