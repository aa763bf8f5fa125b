//! `http` over TLS: whom it trusts.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::server::{Server, post_to};
use super::{Only, event, retry_reason};
use crate::support::TestDir;

/// A private authority, and a receiver at 127.0.0.1 with a certificate of it.
fn authority_and_receiver() -> (String, Server) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let receiver = Server::start(move |mut connection| {
        connection.secure(Arc::clone(&config));
        connection.answer_all("200 OK", "");
    });
    (authority.pem(), receiver)
}

#[test]
fn a_receiver_that_nobody_vouches_for_gets_nothing() {
    let (_, receiver) = authority_and_receiver();
    let url = format!("https://127.0.0.1:{}/hook", receiver.port());

    let reason = retry_reason(Only::new(post_to(&url)).run(&event("a")));

    assert_eq!(
        reason,
        format!("POST {url}: invalid peer certificate: UnknownIssuer")
    );
    assert!(receiver.requests().is_empty());
}

/// Method: this test runs itself again in a process whose environment names the authority.
#[test]
fn an_authority_that_the_host_trusts_is_trusted_for_its_names_only() {
    const INNER: &str = "DISPATCHBOX_TEST_TLS_PORT";
    if let Some(port) = std::env::var_os(INNER) {
        let port = port.into_string().unwrap();
        let named = Only::new(post_to(&format!("https://127.0.0.1:{port}/hook")));
        let misnamed = Only::new(post_to(&format!("https://localhost:{port}/hook")));

        assert_eq!(named.run(&event("a")), Ok(()));
        assert_eq!(named.run(&event("a")), Ok(()));
        let reason = retry_reason(misnamed.run(&event("a")));
        assert!(reason.contains("invalid peer certificate"), "{reason}");
        return;
    }
    let dir = TestDir::new();
    let (authority, receiver) = authority_and_receiver();
    fs::write(dir.file("authority.pem"), authority).unwrap();

    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "handler::tls::an_authority_that_the_host_trusts_is_trusted_for_its_names_only",
        ])
        .env(INNER, receiver.port().to_string())
        .env("SSL_CERT_FILE", dir.file("authority.pem"))
        .output()
        .unwrap();

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    assert_eq!(receiver.requests().len(), 2);
    // One for both events, one that was given up.
    assert_eq!(receiver.n_connections(), 2);
}
