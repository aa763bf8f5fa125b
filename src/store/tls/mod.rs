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
//!
//! Direct TLS names the protocol in the handshake (ALPN), as PostgreSQL 17 demands. libpq also
//! refuses a server that then agrees on none, such as a proxy in front that ends TLS; what the
//! driver is connected by does not tell that, so it is left to the certificate here.

mod certificates;
mod files;
mod name;
mod verifier;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion, version};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::dsn::{AuthRule, TlsWords};
use crate::store::tap::Encryption;
pub use crate::store::tls::certificates::Certificates;
use crate::store::tls::certificates::end_of;
use crate::store::tls::files::{Roots, SYSTEM, identity, refusal_of_key};
use crate::store::tls::verifier::Verifier;
use crate::system::certificate::{self, Peer};

/// The protocol's name in the handshake, which a server wants where TLS begins at once.
const ALPN: &[u8] = b"postgresql";

/// A server that does not know direct TLS takes its first byte for a broken packet.
const NO_DIRECT: &str = "the server closed the connection where TLS should begin; \
                         sslnegotiation=direct needs PostgreSQL 17 or newer, with ssl = on";

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
    /// What the description demands and this version does not have.
    refusal: Option<String>,
    handshake: Arc<Handshake>,
}

/// What the last handshake has shown: whether the server has asked for the client's certificate,
/// and got one, and the certificates of both.
#[derive(Debug, Default)]
struct Handshake {
    is_asked: AtomicBool,
    is_sent: AtomicBool,
    certificates: Mutex<Certificates>,
}

impl Handshake {
    fn forget(&self) {
        self.is_asked.store(false, Ordering::Relaxed);
        self.is_sent.store(false, Ordering::Relaxed);
        self.note(|certificates| *certificates = Certificates::default());
    }

    fn note(&self, change: impl FnOnce(&mut Certificates)) {
        change(
            &mut self
                .certificates
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

impl Tls {
    /// Reads the certificates that the description names.
    pub(super) fn load(words: TlsWords) -> Tls {
        let handshake = Arc::default();
        let is_used = words.mode != "disable";
        Tls {
            client: is_used.then(|| client(&words, &handshake)),
            refusal: if is_used { refusal(&words) } else { None },
            words,
            handshake,
        }
    }

    /// Why no connection by TCP is made, with TLS or without: the description demands what this
    /// version does not have.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Why no connection by Unix socket is made: nobody sees there in which way the server asks for
    /// the login.
    pub(super) fn refusal_of_socket(&self) -> Option<&'static str> {
        self.words.auth_rule.is_some().then_some(
            "require_auth cannot be kept to over a Unix socket by this version, so no connection is made; use TCP (host=localhost)",
        )
    }

    /// The ways in which the server may ask for the login.
    pub(super) fn auth_rule(&self) -> Option<AuthRule> {
        self.words.auth_rule.clone()
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

    /// Forgets the last handshake, before a connection is opened that may have none.
    pub(super) fn forget(&self) {
        self.handshake.forget();
    }

    /// The certificates of the last handshake; none where there was none.
    pub(super) fn certificates(&self) -> Certificates {
        let mut shown = Certificates::default();
        self.handshake
            .note(|certificates| shown = certificates.clone());
        shown
    }

    /// Makes the TLS of one connection.
    pub(super) fn encryption(&self) -> Result<Encryption, String> {
        let tls = match &self.client {
            Some(Ok(client)) => MakeRustlsConnect::new(client.clone()),
            Some(Err(cause)) => return Err(cause.clone()),
            None => return Err("sslmode=disable".to_owned()),
        };
        Ok(if self.words.is_direct {
            Encryption::Direct(tls)
        } else {
            let or_plain = self.ways() == (Way::Encrypted, Some(Way::Plain));
            Encryption::Asked { tls, or_plain }
        })
    }

    /// Checks what can be checked only when the connection stands.
    pub(super) fn check_opened(&self) -> Result<(), String> {
        if self.words.cert_mode != "require" {
            return Ok(());
        }
        if !self.handshake.is_asked.load(Ordering::Relaxed) {
            return Err(
                "the server did not ask for a client certificate, as sslcertmode=require demands"
                    .to_owned(),
            );
        }
        if !self.handshake.is_sent.load(Ordering::Relaxed) {
            return Err(
                "the server took the connection without a client certificate, which sslcertmode=require demands"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Says what TLS failed for, where `error` is a failure of TLS, or, before the handshake is
    /// complete, the end of the connection.
    pub(super) fn in_words(&self, error: &postgres::Error, is_complete: bool) -> Option<String> {
        let mut cause: &dyn std::error::Error = error;
        loop {
            let io = cause.downcast_ref::<io::Error>();
            let inner = io
                .and_then(io::Error::get_ref)
                .and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(tls) = inner.or_else(|| cause.downcast_ref()) {
                return Some(self.failure_in_words(tls));
            }
            if self.words.is_direct && !is_complete && io.is_some_and(is_end) {
                return Some(NO_DIRECT.to_owned());
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
                client_certificate: self
                    .handshake
                    .is_sent
                    .load(Ordering::Relaxed)
                    .then_some(self.words.cert.as_str()),
            },
        )
    }
}

/// Says whether the other side has closed the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn client(words: &TlsWords, handshake: &Arc<Handshake>) -> Result<ClientConfig, String> {
    let roots = if words.root.is_empty() {
        None
    } else {
        Roots::read(&words.root)?
    };
    if roots.is_none() && words.mode.starts_with("verify") {
        return Err(missing_root(words));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(roots, words.mode == "verify-full", &provider, handshake)?;
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
        handshake: Arc::clone(handshake),
    }));
    client.enable_sni = words.has_sni;
    // A resumed session asks for no certificate.
    client.resumption = Resumption::disabled();
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

/// What the description demands and this version does not have. A list of revoked certificates
/// forbids some that the chain allows, where a chain is checked, so it is never passed over.
fn refusal(words: &TlsWords) -> Option<String> {
    let checks_chain = words.root == SYSTEM || Path::new(&words.root).exists();
    let list = words
        .revocation_lists
        .iter()
        .filter(|_| checks_chain)
        .find(|list| list.is_explicit || Path::new(&list.path).exists());
    if let Some(list) = list {
        return Some(format!(
            "the list of revoked certificates `{}` ({}) cannot be kept to by this version, so no connection is made",
            list.path, list.keyword
        ));
    }
    if words.cert_mode != "disable"
        && let Some(refusal) = refusal_of_key(&words.cert, &words.key)
    {
        return Some(refusal);
    }
    versions(words).err()
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
    handshake: Arc<Handshake>,
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.handshake.is_asked.store(true, Ordering::Relaxed);
        let is_sent = self.key.is_some();
        let own = self.key.as_ref().and_then(|key| key.cert.first());
        let end = own.and_then(|own| end_of(own));
        self.handshake
            .note(|certificates| certificates.client = end);
        self.handshake.is_sent.store(is_sent, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        // A server that asks is answered in either case, with an empty list where there is none.
        true
    }
}
