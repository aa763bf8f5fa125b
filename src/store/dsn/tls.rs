//! What a description says about TLS, with libpq's defaults.

use std::path::Path;

use crate::store::dsn::driver::TLS_VERSIONS;
use crate::store::dsn::files::home;
use crate::store::dsn::known::{Known, TLS_DIRECTORY};
use crate::store::dsn::{AuthRule, Dsn, DsnError, Env};

/// What a description says about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsWords {
    /// `sslmode`.
    pub mode: String,
    /// The root file, `system`, or empty where no file can be named.
    pub root: String,
    /// The client's certificate; empty where no file can be named.
    pub cert: String,
    /// Its key.
    pub key: String,
    /// `sslcertmode`.
    pub cert_mode: String,
    /// Whether the host's name is sent in plain text, for servers of several names.
    pub has_sni: bool,
    /// Whether TLS begins at once, without a question in plain text.
    pub is_direct: bool,
    /// `ssl_min_protocol_version`.
    pub min_version: Option<String>,
    /// `ssl_max_protocol_version`.
    pub max_version: Option<String>,
    /// The ways in which the server may ask for the login; `None` for any.
    pub auth_rule: Option<AuthRule>,
    /// The lists of revoked certificates that libpq would keep to.
    pub revocation_lists: Vec<RevocationList>,
}

/// A file or directory of revoked certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// The keyword that names it.
    pub keyword: &'static str,
    /// Its path.
    pub path: String,
    /// The description names it; libpq's own file counts only where it exists.
    pub is_explicit: bool,
}

impl Dsn {
    /// What the description says about TLS.
    pub(in crate::store) fn tls(&self) -> TlsWords {
        let word = |name| Some(self.get(name)).filter(|value| !value.is_empty());
        let file = |keyword, usual: &str| {
            word(keyword).map(str::to_owned).or_else(|| {
                let path = Path::new(word(TLS_DIRECTORY)?).join(usual);
                path.to_str().map(str::to_owned)
            })
        };
        let list = |keyword, usual: Option<&str>| {
            let path = usual.map_or_else(
                || word(keyword).map(str::to_owned),
                |usual| file(keyword, usual),
            )?;
            Some(RevocationList {
                keyword,
                path,
                is_explicit: word(keyword).is_some(),
            })
        };
        TlsWords {
            mode: word("sslmode").unwrap_or("prefer").to_owned(),
            root: file("sslrootcert", "root.crt").unwrap_or_default(),
            cert: file("sslcert", "postgresql.crt").unwrap_or_default(),
            key: file("sslkey", "postgresql.key").unwrap_or_default(),
            cert_mode: word("sslcertmode").unwrap_or("allow").to_owned(),
            has_sni: self.get("sslsni") != "0",
            is_direct: self.get("sslnegotiation") == "direct",
            min_version: word("ssl_min_protocol_version").map(str::to_owned),
            max_version: word("ssl_max_protocol_version").map(str::to_owned),
            auth_rule: self.auth_rule(),
            revocation_lists: [
                // libpq's own file counts where nothing else is named.
                if word("sslcrldir").is_some() || word("sslrootcert") == Some("system") {
                    list("sslcrl", None)
                } else {
                    list("sslcrl", Some("root.crl"))
                },
                list("sslcrldir", None),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    /// Says whether the name of a host is to be checked that has only an address.
    pub(in crate::store) fn lacks_name_to_check(&self) -> bool {
        self.get("sslmode") == "verify-full" && self.hosts().any(|host| host.name.is_empty())
    }
}

impl Known {
    /// Adds the defaults: the directory of libpq's files, and the mode that the system's
    /// authorities ask for.
    pub(super) fn add_tls_defaults(&mut self, env: &Env) {
        if let Some(directory) = home(env).map(|home| home.join(".postgresql"))
            && let Some(directory) = directory.to_str()
        {
            self.set(TLS_DIRECTORY, directory.to_owned(), "HOME".to_owned());
        }
        if self.get("sslrootcert") == Some("system") && self.get("sslmode").is_none() {
            let shown = self.shown("sslrootcert").to_owned();
            self.set("sslmode", "verify-full".to_owned(), shown);
        }
    }

    /// Refuses words that contradict each other, as libpq does.
    pub(super) fn check_tls(&self) -> Result<(), DsnError> {
        let mode = self.get("sslmode").unwrap_or("prefer");
        let shown = self.shown("sslmode");
        let is_strict = matches!(mode, "require" | "verify-ca" | "verify-full");
        if self.get("sslrootcert") == Some("system") && mode != "verify-full" {
            return Err(DsnError::new(format!(
                "{shown}={mode} is too weak for sslrootcert=system: any public authority would do for any host; use verify-full"
            )));
        }
        if self.get("sslnegotiation") == Some("direct") && !is_strict {
            return Err(DsnError::new(format!(
                "{shown}={mode} is too weak for sslnegotiation=direct; use require, verify-ca or verify-full"
            )));
        }
        let rank = |keyword| {
            let value = self.get(keyword)?;
            TLS_VERSIONS.iter().position(|version| *version == value)
        };
        match (
            rank("ssl_min_protocol_version"),
            rank("ssl_max_protocol_version"),
        ) {
            (Some(least), Some(most)) if least > most => Err(DsnError::new(
                "ssl_min_protocol_version is above ssl_max_protocol_version",
            )),
            _ => Ok(()),
        }
    }
}
