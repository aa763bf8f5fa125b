//! Files of certificates and keys in PEM. Shared by the way to the database and the way to
//! receivers.

use std::fs;
use std::io::{self, Read as _};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Largest file that is read: the certificates of all public authorities take 250 KiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why an encrypted key cannot be used. Follows the name of its file.
pub const ENCRYPTED: &str =
    "is encrypted, which this version cannot read; `openssl pkey` writes it without a passphrase";

/// Reads a file up to a limit far above what such files have.
pub fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The certificates in a file; at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("it holds no certificate in PEM".to_owned());
    }
    Ok(certificates)
}

/// Says whether a file holds a key that cannot be read without a passphrase.
pub fn is_encrypted(pem: &[u8]) -> bool {
    pem.windows(9).any(|word| word == b"ENCRYPTED")
}

/// The private key in a file. An error follows the file's name.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    if is_encrypted(pem) {
        return Err(ENCRYPTED);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM")
}
