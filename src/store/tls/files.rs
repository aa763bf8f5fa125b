//! The certificate files: authorities, the client's certificate and its key. They are read at each
//! connect, so a renewed one needs no restart.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::store::error::io_cause;
use crate::system::pem::{ENCRYPTED, certificates, is_encrypted, private_key, read};

/// The word that stands in place of a root file for the authorities that the host trusts.
pub(super) const SYSTEM: &str = "system";

/// Trusted certificates.
pub(super) struct Roots {
    /// For the check of a chain.
    pub(super) store: RootCertStore,
    /// All of them, for the comparison with a server's own certificate.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Reads a root file, or the host's authorities for [`SYSTEM`]; `None` when there is no such
    /// file.
    pub(super) fn read(path: &str) -> Result<Option<Roots>, String> {
        if path != SYSTEM && fs::metadata(path).is_err() {
            return Ok(None);
        }
        let certificates = if path == SYSTEM {
            let loaded = rustls_native_certs::load_native_certs();
            if loaded.certs.is_empty() {
                let errors = loaded.errors.iter().map(ToString::to_string);
                return Err(format!(
                    "this host has no trusted certificates, which sslrootcert=system means: {}",
                    errors.collect::<Vec<_>>().join("; ")
                ));
            }
            loaded.certs
        } else {
            let pem = read(path).map_err(|error| {
                format!(
                    "could not read the root file `{path}`: {}",
                    io_cause(&error)
                )
            })?;
            certificates(&pem)
                .map_err(|cause| format!("the root file `{path}` cannot be used: {cause}"))?
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.iter().cloned());
        if store.is_empty() {
            return Err(format!(
                "the root file `{path}` holds no certificate that can be used"
            ));
        }
        Ok(Some(Roots {
            store,
            certificates,
        }))
    }
}

/// The client's certificate with its chain, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads the client's certificate and key; `None` where there is no certificate, as in libpq.
pub(super) fn identity(cert: &str, key: &str) -> Result<Option<Identity>, String> {
    let pem = match read(cert) {
        Ok(pem) => pem,
        Err(error) if cert.is_empty() || is_missing(&error) => return Ok(None),
        Err(error) => {
            return Err(format!(
                "could not read the certificate file `{cert}` (sslcert): {}",
                io_cause(&error)
            ));
        }
    };
    let chain = certificates(&pem).map_err(|cause| {
        format!("the certificate file `{cert}` (sslcert) cannot be used: {cause}")
    })?;
    let unusable = |cause: &str| format!("the key file `{key}` (sslkey) {cause}");
    let metadata = fs::metadata(key).map_err(|error| {
        if is_missing(&error) {
            format!("there is the certificate `{cert}`, but not its key file `{key}` (sslkey)")
        } else {
            unusable(&format!("cannot be read: {}", io_cause(&error)))
        }
    })?;
    if !is_private(&metadata) {
        return Err(unusable(
            "may be read by others; it must have permissions u=rw (0600) or less if it belongs to this user, \
             or u=rw,g=r (0640) or less if it belongs to root",
        ));
    }
    let pem =
        read(key).map_err(|error| unusable(&format!("cannot be read: {}", io_cause(&error))))?;
    let key = private_key(&pem).map_err(unusable)?;
    Ok(Some((chain, key)))
}

/// Says why a key is refused whatever else could be tried: it is encrypted.
pub(super) fn refusal_of_key(cert: &str, key: &str) -> Option<String> {
    let is_used = fs::metadata(cert).is_ok();
    (is_used && read(key).is_ok_and(|pem| is_encrypted(&pem)))
        .then(|| format!("the key file `{key}` (sslkey) {ENCRYPTED}"))
}

/// A path through something that is no directory leads to no file either.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// libpq's rule: only the owner may read a key, or root's group where it belongs to root.
fn is_private(metadata: &Metadata) -> bool {
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    metadata.permissions().mode() & others == 0
}
