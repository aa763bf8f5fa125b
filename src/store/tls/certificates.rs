//! When the certificates of a connection end.

use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// When the certificates of a connection end, in seconds since 1970.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The server's; `None` without TLS. A certificate that cannot be read never ends.
    pub server: Option<i64>,
    /// The client's, where the server has asked for one.
    pub client: Option<i64>,
}

/// The end of a certificate; `None` where it cannot be decoded.
pub(super) fn end_of(certificate: &[u8]) -> Option<i64> {
    let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
    let end = certificate.validity.not_after.to_unix_duration();
    i64::try_from(end.as_secs()).ok()
}
