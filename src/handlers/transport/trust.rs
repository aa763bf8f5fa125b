//! Decides which certificates of receivers are accepted, and says what is wrong with a refused one.
//!
//! The trusted certificates are those that the host trusts: the files that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name, else the system's, else, in a bare container, the Mozilla list that the
//! program carries. A receiver's own certificate that stands in one of these files is accepted as
//! curl does, also one that `openssl req -x509` made and that calls itself an authority; rustls
//! refuses such a one by itself.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::system::certificate::{self, Peer, blames_the_issuer};

/// The certificates that receivers are checked against, read once for a table of routes, where a
/// route goes to https or may come to.
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
        certificate::in_words(
            error,
            &Peer {
                name: "the receiver",
                trusted: &self.source,
                file: "name a file with the authority's certificate, or the receiver's own, in SSL_CERT_FILE",
                another_name: "use such a name in the url",
                no_client_certificate: "the receiver wants a client certificate, which http routes do not have",
            },
        )
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
