//! Certificates made on the spot.

use std::net::Ipv4Addr;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};

pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// A private authority.
pub fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a certificate is made for.
pub struct Wanted<'a> {
    pub common: &'a str,
    pub dns: &'a [&'a str],
    pub addresses: &'a [Ipv4Addr],
    pub years: (i32, i32),
}

/// Long enough for any test.
pub const YEARS: (i32, i32) = (2020, 2100);

impl Wanted<'_> {
    pub fn params(&self) -> CertificateParams {
        let dns = self.dns.iter().map(|&name| name.to_owned());
        let mut params = CertificateParams::new(dns.collect::<Vec<_>>()).unwrap();
        let addresses = self.addresses.iter().copied();
        let addresses = addresses.map(|address| SanType::IpAddress(address.into()));
        params.subject_alt_names.extend(addresses);
        params
            .distinguished_name
            .push(DnType::CommonName, self.common);
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        params
    }

    /// Certificate and key in PEM, signed by an authority.
    pub fn signed_by(&self, authority: &Authority) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = self.params().signed_by(&key, authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Certificate and key as `openssl req -x509` makes them.
    pub fn self_signed(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = self.params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}
