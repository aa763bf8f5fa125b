//! `http` over TLS: whom it trusts.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::server::{Connection, Server, post_to};
use super::{Only, event, retry_reason};
use crate::support::TestDir;

/// A certificate and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Identity {
    /// One as `openssl req -x509` makes it: self-signed, and an authority.
    fn self_signed(name: &str, last_year: i32) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Identity {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key,
        }
    }

    /// One for 127.0.0.1 of a private authority, whose certificate comes with it.
    fn issued(last_year: i32) -> (Identity, String) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "receiver");
        params.not_after = date_time_ymd(last_year, 1, 1);
        let certificate = params.signed_by(&key, &authority).unwrap();
        let identity = Identity {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key,
        };
        (identity, authority.pem())
    }

    /// A receiver that shows this certificate, and goes on as the test wants.
    fn receiver(self, serve: impl Fn(Connection) + Send + Sync + 'static) -> Server {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate], key)
            .unwrap();
        let config = Arc::new(config);
        Server::start(move |mut connection| {
            connection.secure(Arc::clone(&config));
            serve(connection);
        })
    }
}

/// A private authority, and a receiver at 127.0.0.1 with a certificate of it.
fn authority_and_receiver() -> (String, Server) {
    let (identity, authority) = Identity::issued(2100);
    let receiver = identity.receiver(|connection| connection.answer_all("200 OK", ""));
    (authority, receiver)
}

/// Sends an event of this size to the receiver from a process that trusts `pem`, and gives what
/// came of it.
///
/// Method: the test runs itself again in a process whose environment names the file; there, this
/// function sends and does not return.
fn sent_trusting(test: &str, pem: &str, host: &str, receiver: &Server, n_bytes: usize) -> String {
    let dir = TestDir::new();
    fs::write(dir.file("trusted.pem"), pem).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(
            "DISPATCHBOX_TEST_URL",
            format!("https://{host}:{}/hook", receiver.port()),
        )
        .env("DISPATCHBOX_TEST_BYTES", n_bytes.to_string())
        .env("DISPATCHBOX_TEST_SAID", dir.file("said"))
        .env("SSL_CERT_FILE", dir.file("trusted.pem"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    fs::read_to_string(dir.file("said")).unwrap()
}

/// The other half of `sent_trusting`: sends, where this process is the inner one.
fn is_sender() -> bool {
    let Some(url) = std::env::var_os("DISPATCHBOX_TEST_URL") else {
        return false;
    };
    let variable = |name| std::env::var(name).unwrap();
    let mut event = event("a");
    let n_bytes = variable("DISPATCHBOX_TEST_BYTES").parse().unwrap();
    event.payload = format!("\"{}\"", "x".repeat(n_bytes));
    let result = Only::new(post_to(url.to_str().unwrap())).run(&event);
    let said = result.map_or_else(|err| err.to_string(), |()| "done".to_owned());
    fs::write(variable("DISPATCHBOX_TEST_SAID"), said).unwrap();
    true
}

#[test]
fn a_receivers_own_certificate_among_the_trusted_ones_is_accepted_with_its_name_and_in_its_time() {
    if is_sender() {
        return;
    }
    let check = |identity: Identity, host: &str, expected: &str| {
        let pem = identity.pem.clone();
        let receiver = identity.receiver(|connection| connection.answer_all("200 OK", ""));
        let test = "handler::tls::a_receivers_own_certificate_among_the_trusted_ones_is_accepted_with_its_name_and_in_its_time";
        let said = sent_trusting(test, &pem, host, &receiver, 10);
        assert!(said.contains(expected), "{said}");
        assert_eq!(receiver.requests().len(), usize::from(expected == "done"));
    };

    // Self-signed and an authority; and one that an unknown authority signed.
    check(
        Identity::self_signed("127.0.0.1", 2100),
        "127.0.0.1",
        "done",
    );
    check(
        Identity::self_signed("localhost", 2100),
        "localhost",
        "done",
    );
    check(Identity::issued(2100).0, "127.0.0.1", "done");
    let of_another = "is for `127.0.0.1`, not for `localhost`; use such a name in the url, or reissue it with subjectAltName=DNS:localhost";
    check(
        Identity::self_signed("127.0.0.1", 2100),
        "localhost",
        of_another,
    );
    check(Identity::issued(2100).0, "localhost", of_another);
    let expired = "has expired on 2020-01-01T00:00:00Z";
    check(
        Identity::self_signed("127.0.0.1", 2020),
        "127.0.0.1",
        expired,
    );
    check(Identity::issued(2020).0, "127.0.0.1", expired);
}

#[test]
fn a_certificate_that_is_not_accepted_is_told_with_what_would_mend_it() {
    if is_sender() {
        return;
    }
    let check = |identity: Identity, trusted: &str, expected: &str| {
        let receiver = identity.receiver(|connection| connection.answer_all("200 OK", ""));
        let test =
            "handler::tls::a_certificate_that_is_not_accepted_is_told_with_what_would_mend_it";
        let said = sent_trusting(test, trusted, "127.0.0.1", &receiver, 10);
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("SSL_CERT_FILE=/"), "{said}");
        assert!(receiver.requests().is_empty());
    };

    let other = Identity::self_signed("127.0.0.1", 2100).pem;
    check(
        Identity::self_signed("127.0.0.1", 2100),
        &other,
        "is that of an authority (basic constraints CA:TRUE), and it is not itself among the trusted ones",
    );
    check(
        Identity::issued(2100).0,
        &other,
        "signed by no authority that is trusted here",
    );
    let (_, namesake) = Identity::issued(2100);
    check(
        Identity::issued(2100).0,
        &namesake,
        "not signed by the trusted authority whose name it bears",
    );
}

#[test]
fn a_receiver_that_ends_tls_without_notice_has_answered_all_the_same() {
    if is_sender() {
        return;
    }
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let identity = Identity::self_signed("127.0.0.1", 2100);
        let pem = identity.pem.clone();
        let receiver = identity.receiver(move |mut connection| {
            connection.read_request();
            connection.write(answer);
        });
        let test =
            "handler::tls::a_receiver_that_ends_tls_without_notice_has_answered_all_the_same";
        assert_eq!(
            sent_trusting(test, &pem, "127.0.0.1", &receiver, 10),
            "done"
        );
    }
}

/// More than all buffers between two sockets hold.
const N_BYTES: usize = 8_000_000;

#[test]
fn an_early_answer_over_tls_decides_and_a_large_event_arrives_whole() {
    if is_sender() {
        return;
    }
    let send = |serve: fn(Connection)| {
        let identity = Identity::self_signed("127.0.0.1", 2100);
        let pem = identity.pem.clone();
        let receiver = identity.receiver(serve);
        let test = "handler::tls::an_early_answer_over_tls_decides_and_a_large_event_arrives_whole";
        sent_trusting(test, &pem, "127.0.0.1", &receiver, N_BYTES)
    };

    let refused = send(|mut connection| {
        connection.read_head();
        connection.answer("413 Too Large", "at most 1 MB");
        connection.wait_hung_up();
    });
    let taken = send(|mut connection| {
        let request = connection.read_request().unwrap();
        let status = if request.body.len() > N_BYTES {
            "200 OK"
        } else {
            "400 Short"
        };
        connection.answer(status, "");
    });

    assert!(
        refused.ends_with(": 413 Payload Too Large: at most 1 MB"),
        "{refused}"
    );
    assert_eq!(taken, "done");
}

#[test]
fn a_receiver_that_nobody_vouches_for_gets_nothing() {
    let (_, receiver) = authority_and_receiver();
    let url = format!("https://127.0.0.1:{}/hook", receiver.port());

    let reason = retry_reason(Only::new(post_to(&url)).run(&event("a")));

    assert!(
        reason.contains("signed by no authority that is trusted here")
            && reason.contains("SSL_CERT_FILE"),
        "{reason}"
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
        assert!(
            reason.contains("is for `127.0.0.1`, not for `localhost`")
                && reason.contains("subjectAltName=DNS:localhost"),
            "{reason}"
        );
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
