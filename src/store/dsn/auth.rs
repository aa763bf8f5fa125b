//! `require_auth`: by which methods a server may ask for the login, with libpq's meaning.
//!
//! It keeps a password from a server that asks for it in plain text, and a connection from a server
//! that asks for nothing and so has proved nothing.

use crate::store::dsn::{Dsn, DsnError};

/// libpq's names of the methods; `none` is a login for which the server asks for nothing.
const METHODS: [&str; 7] = [
    "password",
    "md5",
    "gss",
    "sspi",
    "scram-sha-256",
    "oauth",
    NO_AUTH,
];

/// A login for which the server asks for nothing.
pub(in crate::store) const NO_AUTH: &str = "none";

/// The methods by which the server may ask for the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRule {
    allowed: Vec<&'static str>,
}

impl AuthRule {
    /// Reads a list of methods that are allowed, or, each with `!` before it, of those that are
    /// not.
    pub(super) fn parse(value: &str, shown: &str) -> Result<AuthRule, DsnError> {
        let is_negative = value.starts_with('!');
        let mut named: Vec<&str> = Vec::new();
        for word in value.split(',') {
            let name = word.strip_prefix('!');
            if name.is_some() != is_negative {
                return Err(DsnError::new(format!(
                    "{shown} names either what is allowed or, each with `!` before it, what is not"
                )));
            }
            let name = name.unwrap_or(word);
            if !METHODS.contains(&name) {
                return Err(DsnError::new(format!(
                    "{shown} must be a list of {}, without blanks",
                    METHODS.join(", ")
                )));
            }
            if named.contains(&name) {
                return Err(DsnError::new(format!("{shown} names a method twice")));
            }
            named.push(name);
        }
        let is_allowed = |method: &&str| named.contains(method) != is_negative;
        Ok(AuthRule {
            allowed: METHODS.into_iter().filter(is_allowed).collect(),
        })
    }

    /// Says whether a server may ask in this way.
    pub(in crate::store) fn allows(&self, method: &str) -> bool {
        self.allowed.contains(&method)
    }
}

impl Dsn {
    /// The methods by which the server may ask for the login; `None` for any.
    pub(in crate::store) fn auth_rule(&self) -> Option<AuthRule> {
        let value = Some(self.get("require_auth")).filter(|value| !value.is_empty())?;
        let rule = AuthRule::parse(value, "require_auth");
        Some(rule.expect("it was checked when the description was resolved"))
    }
}
