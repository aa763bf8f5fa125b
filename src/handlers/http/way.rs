//! The way to a route's receiver: whose certificates are trusted, which of ours is shown, and which
//! addresses it may lead to. Its keys, and what connections are made with.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ureq::http::Uri;

use crate::handlers::keys::{Key, Keys};
use crate::handlers::transport::{
    CertificateFiles, Connections, Credentials, LIFE, Roots, refusal,
};
use crate::system::logging::quoted;

pub(super) const CA_FILE: Key = Key {
    name: "ca_file",
    help: "file of the certificates that alone are trusted for the receiver: its authority's, or its \
           own; read again when it changes [default: those that the host trusts]",
};

pub(super) const CLIENT_CERT_FILE: Key = Key {
    name: "client_cert_file",
    help: "file of the certificate, with its chain, that the receiver is shown (mTLS); read again \
           when it changes",
};

pub(super) const CLIENT_KEY_FILE: Key = Key {
    name: "client_key_file",
    help: "file of that certificate's key, without passphrase [default: client_cert_file]",
};

pub(super) const PRIVATE_ADDRESSES: Key = Key {
    name: "private_addresses",
    help: "allow, or deny: no connection to a loopback, private, link-local or otherwise inner \
           address, whatever the host is called [default: allow]",
};

/// What the keys of a route say.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct WaySettings {
    files: CertificateFiles,
    denies_private: bool,
}

impl WaySettings {
    pub(super) fn from_table(keys: Keys<'_>) -> Result<WaySettings, String> {
        let text = |key: &Key| {
            let given = keys.get(key.name).map(|_| keys.text(key.name));
            given.transpose().map(|text| text.map(str::to_owned))
        };
        let files = CertificateFiles {
            ca: text(&CA_FILE)?,
            certificate: text(&CLIENT_CERT_FILE)?,
            key: text(&CLIENT_KEY_FILE)?,
        };
        if files.key.is_some() && files.certificate.is_none() {
            return Err("has `client_key_file` without `client_cert_file`".to_owned());
        }
        let private = text(&PRIVATE_ADDRESSES)?;
        let denies_private = match private.as_deref() {
            None | Some("allow") => false,
            Some("deny") => true,
            Some(other) => {
                return Err(format!(
                    "has `private_addresses`, which must be allow or deny, not {}",
                    quoted(other)
                ));
            }
        };
        Ok(WaySettings {
            files,
            denies_private,
        })
    }

    /// Says whether nothing is configured.
    pub(super) fn is_usual(&self) -> bool {
        *self == WaySettings::default()
    }

    /// Makes ready the connections. `is_https` says whether the URL is, or can become, one of
    /// https.
    pub(super) fn build(
        &self,
        url: &Uri,
        is_https: bool,
        roots: &mut Roots,
    ) -> Result<Way, String> {
        let CertificateFiles {
            ca, certificate, ..
        } = &self.files;
        let given = ca.as_ref().map(|_| CA_FILE.name);
        if let Some(key) = given.or(certificate.as_ref().map(|_| CLIENT_CERT_FILE.name))
            && !is_https
        {
            return Err(format!("has `{key}`, which only an https URL has use for"));
        }
        let credentials = is_https
            .then(|| Credentials::read(self.files.clone(), roots).map(Arc::new))
            .transpose()?;
        if self.denies_private
            && let Ok(address) = bare_host(url).parse::<IpAddr>()
            && let Some(kind) = refusal(address)
        {
            return Err(format!(
                "has private_addresses = \"deny\" and the {kind} address {address} in its URL"
            ));
        }
        Ok(Way {
            credentials,
            denies_private: self.denies_private,
        })
    }

    /// The settings that are not the usual ones, each as `key value`.
    pub(super) fn unusual(&self) -> Vec<String> {
        let CertificateFiles {
            ca,
            certificate,
            key,
        } = &self.files;
        let named = [
            (CA_FILE, ca),
            (CLIENT_CERT_FILE, certificate),
            (CLIENT_KEY_FILE, key),
        ];
        let shown =
            |(key, path): (Key, &Option<String>)| Some(format!("{} {}", key.name, path.as_ref()?));
        let denies = self.denies_private;
        let private = denies.then(|| format!("{} deny", PRIVATE_ADDRESSES.name));
        named.into_iter().filter_map(shown).chain(private).collect()
    }
}

/// The host of a URL without the brackets of an IPv6 address.
fn bare_host(url: &Uri) -> &str {
    let host = url.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The way, ready to be gone.
pub(super) struct Way {
    /// What https is spoken with.
    credentials: Option<Arc<Credentials>>,
    denies_private: bool,
}

impl Way {
    /// Makes the connections to one receiver.
    pub(super) fn connections(&self) -> Connections {
        let connections = Connections::new(self.credentials.clone(), LIFE);
        if self.denies_private {
            connections.guarded()
        } else {
            connections
        }
    }
}
