//! Decides which certificates of receivers are accepted, shows the certificate of ours, and says
//! what is wrong with a refused one.
//!
//! The trusted certificates are those of the route's `ca_file`, and these alone: a private
//! authority is named so that no other can vouch for the receiver. curl's manual says the same of
//! `--cacert` (some builds, Debian's among them, look into a directory of the system as well).
//! Without the key, they are those that the host trusts: the files that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name, else the system's, else, in a bare container, the Mozilla list that the
//! program carries.

use std::sync::Arc;

use rustls::{ClientConfig, Error, RootCertStore};

use crate::handlers::transport::verifier::Verifier;
use crate::system::certificate::{self, Peer};
use crate::system::pem;

/// The certificates that the host trusts, read once for a table of routes, where a route needs
/// them.
#[derive(Default)]
pub(in crate::handlers) struct Roots(Option<Arc<Authorities>>);

impl Roots {
    /// Reads the certificates unless they have been read.
    pub(super) fn get(&mut self) -> Result<Arc<Authorities>, String> {
        if let Some(authorities) = &self.0 {
            return Ok(Arc::clone(authorities));
        }
        let authorities = Arc::new(Authorities::of_host()?);
        self.0 = Some(Arc::clone(&authorities));
        Ok(authorities)
    }
}

/// The certificates that receivers are checked against.
#[derive(Debug)]
pub(super) struct Authorities {
    verifier: Arc<Verifier>,
    /// Where they come from, for messages.
    source: String,
    /// How to trust another certificate, for messages.
    remedy: &'static str,
}

impl Authorities {
    /// Reads the certificates that the host trusts.
    fn of_host() -> Result<Authorities, String> {
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
        Ok(Authorities {
            verifier: Arc::new(Verifier::new(roots, loaded.certs)?),
            source,
            remedy: "name a file with the authority's certificate, or the receiver's own, in the \
                     route's ca_file, or for all routes in SSL_CERT_FILE",
        })
    }

    /// Reads the certificates of a route's `ca_file`.
    pub(super) fn of_file(path: &str) -> Result<Authorities, String> {
        let unusable = |cause: &str| format!("the ca_file `{path}` cannot be used: {cause}");
        let pem = pem::read(path).map_err(|error| unusable(&error.to_string()))?;
        let trusted = pem::certificates(&pem).map_err(|cause| unusable(&cause))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        if roots.is_empty() {
            return Err(unusable("it holds no certificate that can be read"));
        }
        Ok(Authorities {
            verifier: Arc::new(Verifier::new(roots, trusted)?),
            source: format!("ca_file `{path}`"),
            remedy: "put the authority's certificate, or the receiver's own, into that file",
        })
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

/// The files of the certificate that a route shows to its receiver, and of its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdentityFiles<'a> {
    pub(super) certificate: &'a str,
    pub(super) key: &'a str,
}

/// How TLS is spoken on a connection, and in which words its failures are told.
#[derive(Debug)]
pub(super) struct Trust {
    config: Arc<ClientConfig>,
    authorities: Arc<Authorities>,
    /// The file of the certificate that receivers are shown.
    certificate: Option<String>,
}

impl Trust {
    /// Reads the certificate of ours, and its key, and refuses what does not fit together.
    pub(super) fn new(
        authorities: Arc<Authorities>,
        files: Option<IdentityFiles<'_>>,
    ) -> Result<Trust, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be used: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&authorities.verifier) as Arc<_>);
        let config = match files {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let IdentityFiles { certificate, key } = files;
                let chain = read(CERT_FILE, certificate, |pem| {
                    pem::certificates(pem).map_err(|cause| format!("cannot be used: {cause}"))
                })?;
                let private_key = read(KEY_FILE, key, |pem| {
                    pem::private_key(pem).map_err(str::to_owned)
                })?;
                builder
                    .with_client_auth_cert(chain, private_key)
                    .map_err(|error| do_not_fit(files, &error))?
            }
        };
        Ok(Trust {
            config: Arc::new(config),
            authorities,
            certificate: files.map(|files| files.certificate.to_owned()),
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
                trusted: &self.authorities.source,
                file: self.authorities.remedy,
                another_name: "use such a name in the url",
                no_client_certificate: "the receiver wants a client certificate: name one in the \
                                        route's client_cert_file, and its key in client_key_file",
                client_certificate: self.certificate.as_deref(),
            },
        )
    }
}

/// The key of a route that names the certificate which receivers are shown.
pub(super) const CERT_FILE: &str = "client_cert_file";

/// The key of a route that names the file of that certificate's private key.
pub(super) const KEY_FILE: &str = "client_key_file";

/// Reads what a file holds that the route names in `key`.
fn read<T>(
    key: &str,
    path: &str,
    take: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, String> {
    pem::read(path)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|pem| take(&pem))
        .map_err(|cause| format!("the {key} `{path}` {cause}"))
}

fn do_not_fit(files: IdentityFiles<'_>, error: &Error) -> String {
    let cause = if let Error::InconsistentKeys(_) = error {
        "the key is another certificate's".to_owned()
    } else {
        error.to_string()
    };
    format!(
        "the {CERT_FILE} `{}` and the {KEY_FILE} `{}` do not fit together: {cause}",
        files.certificate, files.key
    )
}
