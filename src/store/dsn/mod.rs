//! The connection description in libpq's form. It is resolved at the start, and again when the
//! login is refused.
//!
//! The driver's own parser knows fewer keywords than libpq, none of its variables and files, and no
//! default for the host; what works with `psql` must work here. So the order is libpq's: the text
//! (keywords or URL), then the service, then the environment, then defaults; then the passfile.
//! [`Dsn::to_postgres`] makes the driver's configuration by its setters, never from a text.
//!
//! What is said about TLS is checked here and carried out in `store/tls`.
//!
//! No error shows a value: any of them may be a password in the wrong place. Only the name of a
//! service that is not there is shown, and that of the file of services.

mod auth;
mod driver;
mod files;
#[cfg(test)]
mod fuzz;
mod keywords;
mod known;
mod source;
mod text;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use serde::{Deserialize, Serialize};

pub use auth::AuthRule;
pub(in crate::store) use auth::NO_AUTH;
use known::Known;
use source::Learned;
pub use source::{Place, Source};
pub use tls::{RevocationList, TlsWords};

/// The environment of the process.
pub type Env = BTreeMap<String, String>;

/// A resolved connection description. It holds the password, so it is neither `Display` nor in any
/// error; it travels to the workers on their standard input.
#[derive(Clone, Serialize, Deserialize)]
pub struct Dsn {
    /// libpq's keywords in libpq's order; hosts and ports as lists of equal length.
    params: Vec<(String, String)>,
    /// By host, where the passfile has different ones.
    passwords: Vec<String>,
    /// The source from which it can be read again.
    source: Option<Source>,
    /// What connections have shown since, shared by all copies in this process.
    learned: Learned,
}

impl PartialEq for Dsn {
    fn eq(&self, other: &Dsn) -> bool {
        self.params == other.params && self.passwords == other.passwords
    }
}

impl Eq for Dsn {}

/// Why a connection description was refused; never shows a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DsnError(String);

impl DsnError {
    fn new(text: impl Into<String>) -> DsnError {
        DsnError(text.into())
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({})", self.display())
    }
}

impl Dsn {
    fn new(params: Vec<(String, String)>, passwords: Vec<String>) -> Dsn {
        Dsn {
            params,
            passwords,
            source: None,
            learned: Learned::default(),
        }
    }

    /// Resolves a text by itself, without environment and files.
    pub fn parse(text: &str) -> Result<Dsn, DsnError> {
        Dsn::resolve(Some(text), &Env::new(), &mut Vec::new())
    }

    /// Resolves a text, or nothing, with libpq's variables and files. Oddities that are no errors
    /// go to `warnings`.
    pub fn resolve(
        text: Option<&str>,
        env: &Env,
        warnings: &mut Vec<String>,
    ) -> Result<Dsn, DsnError> {
        let mut known = Known::default();
        for (keyword, value) in text::parse(text.unwrap_or_default())? {
            known.set(keyword.name, value, keyword.name.to_owned());
        }
        known.add_service(env)?;
        known.add_environment(env);
        known.add_defaults()?;
        known.add_tls_defaults(env);
        known.check_meanings()?;
        known.add_password(env, warnings);
        let dsn = known.into_dsn();
        dsn.to_postgres()?;
        Ok(dsn)
    }

    /// Says whether a text holds a password in readable form.
    pub fn password_in_text(text: &str) -> bool {
        text::parse(text).is_ok_and(|words| {
            words
                .iter()
                .any(|(keyword, value)| keyword.name.ends_with("password") && !value.is_empty())
        })
    }

    /// Names the database without user or password, for logs and to tell databases apart:
    /// `host:port/dbname`.
    pub fn identity(&self) -> String {
        let hosts: Vec<String> = self.hosts().map(|host| host.shown()).collect();
        format!("{}/{}", hosts.join(","), self.get("dbname"))
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        self.get("dbname")
    }

    /// Describes the connection for people: `host:port/dbname as user`.
    pub fn display(&self) -> String {
        format!("{} as {}", self.identity(), self.get("user"))
    }

    /// How many hosts are tried, one after the other.
    pub fn n_hosts(&self) -> usize {
        self.hosts().count()
    }

    /// The same description for each of its hosts alone, in the order in which they are to be
    /// tried.
    pub(super) fn each_host(&self) -> Vec<Dsn> {
        let hosts = self.hosts().enumerate();
        let mut each: Vec<Dsn> = hosts.map(|(at, host)| self.with_host(at, host)).collect();
        self.balance(&mut each);
        each
    }

    /// Says whether the load is to be spread over several servers.
    pub(super) fn is_balanced(&self) -> bool {
        self.get("load_balance_hosts") == "random"
    }

    /// Begins a list anywhere, where that is asked for: enough to spread the load.
    pub(super) fn balance<T>(&self, list: &mut [T]) {
        if self.is_balanced() && !list.is_empty() {
            let random = RandomState::new().hash_one(0);
            let start = random % list.len() as u64;
            list.rotate_left(usize::try_from(start).unwrap_or(0));
        }
    }

    /// The kind of server that is required.
    pub(super) fn wanted(&self) -> Wanted {
        match self.get("target_session_attrs") {
            "any" => Wanted::Any,
            "" if self.n_hosts() == 1 => Wanted::WritableFirst,
            _ => Wanted::Writable,
        }
    }

    fn with_host(&self, at: usize, host: Host<'_>) -> Dsn {
        let mut params = self.params.clone();
        for (keyword, value) in &mut params {
            match keyword.as_str() {
                "host" => host.name.clone_into(value),
                "hostaddr" => host.address.clone_into(value),
                "port" => host.port.clone_into(value),
                _ => {}
            }
        }
        if let Some(password) = self.passwords.get(at).filter(|one| !one.is_empty()) {
            params.push(("password".to_owned(), password.clone()));
        }
        Dsn::new(params, Vec::new())
    }

    /// The settings that a server takes in its startup packet, in the server's words.
    pub(super) fn options(&self) -> &str {
        self.get("options")
    }

    /// The description without its options, which the session sets itself, because a pooler does
    /// not accept them in the startup packet.
    pub(super) fn without_options(&self) -> Dsn {
        let mut dsn = self.clone();
        dsn.params.retain(|(keyword, _)| keyword != "options");
        dsn
    }

    fn get(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(keyword, _)| keyword == name)
            .map_or("", |(_, value)| value)
    }

    /// The hosts in their order.
    fn hosts(&self) -> impl Iterator<Item = Host<'_>> {
        let names = self.get("host").split(',');
        let addresses = self.get("hostaddr").split(',').chain(std::iter::repeat(""));
        let ports = self.get("port").split(',').chain(std::iter::repeat(""));
        names
            .zip(addresses)
            .zip(ports)
            .map(|((name, address), port)| Host {
                name,
                address,
                port,
            })
    }
}

/// The kind of server that is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The first server that answers.
    Any,
    /// A server that can be written to, and no other.
    Writable,
    /// A server that can be written to, or, if there is none, one that answers. That one may become
    /// writable later, and until then the error of a call is more helpful than the failure to
    /// connect.
    WritableFirst,
}

/// One host of a connection description; name or address may be empty, not both.
#[derive(Debug, Clone, Copy)]
struct Host<'a> {
    name: &'a str,
    address: &'a str,
    port: &'a str,
}

impl Host<'_> {
    fn is_socket(&self) -> bool {
        self.address.is_empty() && self.name.starts_with('/')
    }

    fn shown(&self) -> String {
        let name = if self.name.is_empty() {
            self.address
        } else {
            self.name
        };
        if name.contains(':') && !self.is_socket() {
            format!("[{name}]:{}", self.port)
        } else {
            format!("{name}:{}", self.port)
        }
    }
}
