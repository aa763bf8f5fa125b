//! Decides which certificates of receivers are accepted, and says what is wrong with a refused one.
//!
//! The trusted certificates are those that the host trusts: the files that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name, else the system's, else, in a bare container, the Mozilla list that the
//! program carries. A receiver's own certificate that stands in one of these files is accepted as
//! curl does, also one that `openssl req -x509` made and that calls itself an authority; rustls
//! refuses such a one by itself.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

/// The certificates that receivers are checked against, read once and only when an https route is
/// there.
#[derive(Default)]
pub(in crate::handlers) struct Roots(Option<Arc<Trust>>);

impl Roots {
    /// Reads the certificates unless they have been read.
    pub(in crate::handlers) fn get(&mut self) -> Result<Arc<Trust>, String> {
        if let Some(trust) = &self.0 {
            return Ok(Arc::clone(trust));
        }
        let trust = Arc::new(Trust::load()?);
        self.0 = Some(Arc::clone(&trust));
        Ok(trust)
    }
}

/// What receivers' certificates are checked against, and how TLS is spoken. One for all routes.
#[derive(Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    /// Where the trusted certificates come from, for messages.
    source: String,
}

impl Trust {
    /// Reads the certificates that the host trusts.
    pub(in crate::handlers) fn load() -> Result<Trust, String> {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            ::log::warn!("could not read a trusted certificate: {error}");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs.iter().cloned());
        let mut source = source_of_roots();
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            "the Mozilla list, since this host has no certificates".clone_into(&mut source);
        }
        let unusable = |error: &dyn fmt::Display| format!("TLS cannot be used: {error}");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let usual =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(&error))?;
        let verifier = Verifier {
            usual,
            trusted: loaded.certs,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Trust {
            config: Arc::new(config),
            source,
        })
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Says what is wrong, and which file, name or key would set it right.
    pub(super) fn in_words(&self, error: &Error) -> String {
        if let Error::InvalidCertificate(error) = error {
            self.certificate_in_words(error)
        } else if let Error::InvalidMessage(_) = error {
            format!("the receiver does not speak TLS on this port ({error})")
        } else if let Error::AlertReceived(AlertDescription::CertificateRequired) = error {
            "the receiver wants a client certificate, which http routes do not have".to_owned()
        } else {
            error.to_string()
        }
    }

    fn certificate_in_words(&self, error: &CertificateError) -> String {
        let source = &self.source;
        if let CertificateError::UnknownIssuer = error {
            format!(
                "the receiver's certificate is signed by no authority that is trusted here (trusted: {source}); \
                 name a file with the authority's certificate, or the receiver's own, in SSL_CERT_FILE, or let the receiver \
                 send its intermediate certificates along"
            )
        } else if let CertificateError::BadSignature = error {
            format!(
                "the receiver's certificate is not signed by the trusted authority whose name it bears (trusted: {source}); \
                 where that has been renewed, name a file with the new one in SSL_CERT_FILE"
            )
        } else if let CertificateError::NotValidForNameContext {
            expected,
            presented,
        } = error
        {
            wrong_name(&expected.to_str(), presented)
        } else if let CertificateError::ExpiredContext { not_after, .. } = error {
            format!(
                "the receiver's certificate has expired on {}; it needs a new one",
                date(*not_after)
            )
        } else if let CertificateError::NotValidYetContext { not_before, .. } = error {
            format!(
                "the receiver's certificate is valid from {} on; the clock of one of the hosts may be wrong",
                date(*not_before)
            )
        } else if is_authority_as_leaf(error) {
            format!(
                "the receiver's certificate is that of an authority (basic constraints CA:TRUE), and it is not \
                 itself among the trusted ones ({source}); name a file with it in SSL_CERT_FILE, or reissue it with CA:FALSE"
            )
        } else if matches!(
            webpki_error(error),
            Some(webpki::Error::UnsupportedCertVersion)
        ) {
            "the receiver's certificate is of X.509 version 1; reissue it as version 3, with a subjectAltName".to_owned()
        } else {
            format!("the receiver's certificate is not valid: {error}")
        }
    }
}

/// As the loader of the certificates chooses them.
fn source_of_roots() -> String {
    let named: Vec<String> = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some(format!("{name}={}", value.display()))
        })
        .collect();
    if named.is_empty() {
        "the system's certificates".to_owned()
    } else {
        named.join(" and ")
    }
}

/// The names come as `DnsName("crm.example")` and `IpAddress(127.0.0.1)`.
fn wrong_name(expected: &str, presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        inner.trim_matches(['"', '(', ')']).to_owned()
    };
    let kind = if expected.parse::<std::net::IpAddr>().is_ok() {
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
        "the receiver's certificate is for {of}, not for `{expected}`; use such a name in the url, \
         or reissue it with subjectAltName={kind}:{expected}"
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
fn blames_the_issuer(error: &CertificateError) -> bool {
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

/// Checks as rustls does, and accepts a receiver's certificate that is itself trusted.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match usual {
            Err(Error::InvalidCertificate(error))
                if blames_the_issuer(&error)
                    && self.trusted.iter().any(|trusted| trusted == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let names = ["DnsName(\"crm.example\")", "IpAddress(127.0.0.1)"].map(str::to_owned);
        assert_eq!(
            wrong_name("localhost", &names),
            "the receiver's certificate is for `crm.example`, `127.0.0.1`, not for `localhost`; use such a name in the url, \
             or reissue it with subjectAltName=DNS:localhost"
        );
        assert_eq!(
            wrong_name("::1", &[]),
            "the receiver's certificate is for no name (it has no subjectAltName), not for `::1`; use such a name in the url, \
             or reissue it with subjectAltName=IP:::1"
        );
    }
}
