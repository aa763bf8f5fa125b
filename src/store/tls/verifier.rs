//! Which certificates of servers are accepted: as libpq accepts them for each `sslmode`.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::store::tls::Handshake;
use crate::store::tls::certificates::end_of;
use crate::store::tls::files::Roots;
use crate::store::tls::name::{Names, is_self_issued};
use crate::system::certificate::blames_the_issuer;

/// Checks the chain of a server's certificate, and its name where that is asked for.
#[derive(Debug)]
pub(super) struct Verifier {
    /// `None` where every certificate is accepted.
    chain: Option<Chain>,
    checks_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
    handshake: Arc<Handshake>,
}

#[derive(Debug)]
struct Chain {
    usual: Arc<WebPkiServerVerifier>,
    /// A self-signed certificate of a server that is among these is accepted, as in libpq.
    trusted: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Makes the verifier, which notes the server's certificate. Without `roots` every certificate
    /// is accepted.
    pub(super) fn new(
        roots: Option<Roots>,
        checks_name: bool,
        provider: &Arc<rustls::crypto::CryptoProvider>,
        handshake: &Arc<Handshake>,
    ) -> Result<Verifier, String> {
        let chain = roots
            .map(|roots| {
                let usual = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots.store),
                    Arc::clone(provider),
                )
                .build()
                .map_err(|error| format!("TLS cannot be used: {error}"))?;
                Ok::<_, String>(Chain {
                    usual,
                    trusted: roots.certificates,
                })
            })
            .transpose()?;
        Ok(Verifier {
            chain,
            checks_name,
            algorithms: provider.signature_verification_algorithms,
            handshake: Arc::clone(handshake),
        })
    }
}

impl Chain {
    /// Checks all but the name.
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        match self
            .usual
            .verify_server_cert(end_entity, intermediates, name, &[], now)
        {
            Err(Error::InvalidCertificate(error)) if !self.is_harmless(&error, end_entity) => {
                Err(Error::InvalidCertificate(error))
            }
            Ok(_) | Err(Error::InvalidCertificate(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Chain {
    /// Says whether the chain is in order nevertheless. The name is checked when all else is, and
    /// the dates are checked before the issuer.
    fn is_harmless(&self, error: &CertificateError, end_entity: &CertificateDer<'_>) -> bool {
        matches!(
            error,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        ) || (blames_the_issuer(error)
            && is_self_issued(end_entity)
            && self.trusted.iter().any(|it| it == end_entity))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.check(end_entity, intermediates, server_name, now)?;
        }
        if self.checks_name {
            let names = Names::of(end_entity)
                .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
            if !names.include(&server_name.to_str()) {
                return Err(Error::InvalidCertificate(
                    CertificateError::NotValidForNameContext {
                        expected: server_name.to_owned(),
                        presented: names.shown(),
                    },
                ));
            }
        }
        let end = end_of(end_entity).unwrap_or(i64::MAX);
        self.handshake.note(|shown| shown.server = Some(end));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
