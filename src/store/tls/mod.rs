//! TLS to the database, with libpq's meaning of every word.
//!
//! | `sslmode` | what is tried, and what is checked |
//! |---|---|
//! | disable | without TLS |
//! | allow | without; with TLS when the server refuses that |
//! | prefer | with TLS; without when that fails before the login has succeeded |
//! | require | with TLS alone; the chain is checked where there is a root file |
//! | verify-ca | with TLS alone; the chain |
//! | verify-full | with TLS alone; the chain and the name |
//!
//! A root file that exists is used in every mode, as in libpq. Over a Unix socket there is no TLS,
//! whatever the mode. What is not there (lists of revoked certificates, encrypted keys) is refused
//! by its name where it is asked for.

mod files;
mod name;
mod verifier;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion, version};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::dsn::TlsWords;
use crate::store::tls::files::{Roots, SYSTEM, identity};
use crate::store::tls::verifier::Verifier;
use crate::system::certificate::{self, Peer};

/// The protocol's name in the handshake, which a server wants where TLS begins at once.
const ALPN: &[u8] = b"postgresql";

/// One way to open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Without TLS.
    Plain,
    /// With TLS.
    Encrypted,
}

/// How connections by TCP are encrypted; read anew for each connect.
pub(super) struct Tls {
    words: TlsWords,
    /// What TLS is made with, or why it cannot be made; `None` where it is never used.
    client: Option<Result<ClientConfig, String>>,
    /// The server has asked for the client's certificate.
    asked: Arc<AtomicBool>,
}

impl Tls {
    /// Reads the certificates that the description names.
    pub(super) fn load(words: TlsWords) -> Tls {
        let asked = Arc::default();
        let client = (words.mode != "disable").then(|| client(&words, &asked));
        Tls {
            words,
            client,
            asked,
        }
    }

    /// The way to try first, and the one to try where that fails.
    pub(super) fn ways(&self) -> (Way, Option<Way>) {
        match self.words.mode.as_str() {
            "disable" => (Way::Plain, None),
            "allow" => (Way::Plain, Some(Way::Encrypted)),
            "require" | "verify-ca" | "verify-full" => (Way::Encrypted, None),
            _ => (Way::Encrypted, Some(Way::Plain)),
        }
    }

    /// Says whether TLS begins at once, without a question in plain text.
    pub(super) fn is_direct(&self) -> bool {
        self.words.is_direct
    }

    /// Makes the TLS of one connection.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        self.asked.store(false, Ordering::Relaxed);
        match &self.client {
            Some(Ok(client)) => Ok(MakeRustlsConnect::new(client.clone())),
            Some(Err(cause)) => Err(cause.clone()),
            None => Err("sslmode=disable".to_owned()),
        }
    }

    /// Checks what can be checked only when the connection stands.
    pub(super) fn check_opened(&self) -> Result<(), String> {
        if self.words.cert_mode == "require" && !self.asked.load(Ordering::Relaxed) {
            return Err(
                "the server did not ask for a client certificate, as sslcertmode=require demands"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Says what TLS failed for, where `error` is a failure of TLS.
    pub(super) fn in_words(&self, error: &postgres::Error) -> Option<String> {
        let mut cause: &dyn std::error::Error = error;
        loop {
            let inner = cause
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
                .and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(tls) = inner.or_else(|| cause.downcast_ref()) {
                return Some(self.failure_in_words(tls));
            }
            cause = cause.source()?;
        }
    }

    fn failure_in_words(&self, error: &rustls::Error) -> String {
        let source = if self.words.root == SYSTEM {
            "the system's certificates".to_owned()
        } else {
            format!("sslrootcert `{}`", self.words.root)
        };
        certificate::in_words(
            error,
            &Peer {
                name: "the server",
                trusted: &source,
                file: "name a root file with the authority's certificate, or the server's own, in sslrootcert",
                another_name: "use such a name as host",
                no_client_certificate: "the server wants a client certificate: name one in sslcert, and its key in sslkey",
            },
        )
    }
}

fn client(words: &TlsWords, asked: &Arc<AtomicBool>) -> Result<ClientConfig, String> {
    let roots = if words.root.is_empty() {
        None
    } else {
        Roots::read(&words.root)?
    };
    if roots.is_none() && words.mode.starts_with("verify") {
        return Err(missing_root(words));
    }
    if roots.is_some() {
        refuse_revocation_lists(words)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(roots, words.mode == "verify-full", &provider)?;
    let unusable = |error: rustls::Error| format!("TLS cannot be used: {error}");
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(words)?)
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let identity = match words.cert_mode.as_str() {
        "disable" => None,
        _ => identity(&words.cert, &words.key)?,
    };
    let key = identity
        .map(|(chain, key)| CertifiedKey::from_der(chain, key, &provider))
        .transpose()
        .map_err(|error| {
            format!(
                "the certificate `{}` and the key `{}` do not fit: {error}",
                words.cert, words.key
            )
        })?;
    let mut client = builder.with_client_cert_resolver(Arc::new(ClientCertificate {
        key: key.map(Arc::new),
        asked: Arc::clone(asked),
    }));
    client.enable_sni = words.has_sni;
    if words.is_direct {
        client.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(client)
}

fn missing_root(words: &TlsWords) -> String {
    let mode = &words.mode;
    if words.root.is_empty() {
        return format!(
            "sslmode={mode} needs a root file: name it in sslrootcert, or the system's by sslrootcert=system"
        );
    }
    format!(
        "the root file `{}` does not exist, and sslmode={mode} checks the server's certificate by it; \
         name another in sslrootcert, or the system's by sslrootcert=system",
        words.root
    )
}

/// A list of revoked certificates forbids some that the chain allows, so it is never passed over.
fn refuse_revocation_lists(words: &TlsWords) -> Result<(), String> {
    let list = words
        .revocation_lists
        .iter()
        .find(|list| list.is_explicit || Path::new(&list.path).exists());
    match list {
        Some(list) => Err(format!(
            "the list of revoked certificates `{}` ({}) cannot be kept to by this version, so no connection is made",
            list.path, list.keyword
        )),
        None => Ok(()),
    }
}

/// Versions below 1.2 are older than what TLS is made with here, and not spoken.
fn versions(words: &TlsWords) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let rank = |name: &str| match name {
        "TLSv1" => 10,
        "TLSv1.1" => 11,
        "TLSv1.2" => 12,
        _ => 13,
    };
    let least = words.min_version.as_deref().map_or(12, rank);
    let most = words.max_version.as_deref().map_or(13, rank);
    let allowed: Vec<_> = [(12, &version::TLS12), (13, &version::TLS13)]
        .into_iter()
        .filter(|(rank, _)| (least..=most).contains(rank))
        .map(|(_, version)| version)
        .collect();
    if allowed.is_empty() {
        return Err("ssl_max_protocol_version must be TLSv1.2 or TLSv1.3 here".to_owned());
    }
    Ok(allowed)
}

/// Gives the client's certificate to a server that asks for one, and notes that it did.
#[derive(Debug)]
struct ClientCertificate {
    key: Option<Arc<CertifiedKey>>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        // A server that asks is answered in either case, with an empty list where there is none.
        true
    }
}
