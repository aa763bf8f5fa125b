//! Where the database is, said libpq's way and resolved once, at the start.
//!
//! The driver's own parser knows fewer keywords than libpq, none of its variables and files, and no default for the host; what works
//! with `psql` must work here. So the order is libpq's: the text (keywords or URL), then the service, then the environment, then
//! defaults; then the passfile. [`Dsn::to_postgres`] makes the driver's configuration by its setters, never from a text.
//!
//! TLS is not built in yet. What asks for it (`sslmode=require` and above, `channel_binding=require`) is refused by name and never
//! quietly served without; `prefer` and below mean plaintext.
//!
//! No error shows a value: any of them may be a password in the wrong place.

mod driver;
mod files;
mod keywords;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use serde::{Deserialize, Serialize};

use files::variable;
use keywords::KEYWORDS;

/// The environment of the process.
pub type Env = BTreeMap<String, String>;

/// Where Debian's servers have their sockets, and where those built from source do.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// PostgreSQL's port unless something else is said.
const DEFAULT_PORT: &str = "5432";

/// A resolved connection description. It holds the password, so it is neither `Display` nor in any error; it travels to the workers
/// on their standard input.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dsn {
    /// libpq's keywords in libpq's order; hosts and ports as lists of equal length.
    params: Vec<(String, String)>,
}

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
    /// Resolves a text by itself, without environment and files.
    pub fn parse(text: &str) -> Result<Dsn, DsnError> {
        Dsn::resolve(Some(text), &Env::new(), &mut Vec::new())
    }

    /// Resolves a text, or nothing, with libpq's variables and files. What is odd but no error goes to `warnings`.
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
        known.check_meanings()?;
        known.add_password(env, warnings)?;
        let dsn = known.into_dsn();
        dsn.to_postgres()?;
        Ok(dsn)
    }

    /// Says whether a text holds a password that whoever sees the text can read.
    pub fn password_in_text(text: &str) -> bool {
        text::parse(text).is_ok_and(|words| {
            words
                .iter()
                .any(|(keyword, value)| keyword.name.ends_with("password") && !value.is_empty())
        })
    }

    /// Names the database without user or password, for logs and to tell databases apart: `host:port/dbname`.
    pub fn identity(&self) -> String {
        let hosts: Vec<String> = self.hosts().map(|host| host.shown()).collect();
        format!("{}/{}", hosts.join(","), self.get("dbname"))
    }

    /// Describes the connection for people: `host:port/dbname as user`.
    pub fn display(&self) -> String {
        format!("{} as {}", self.identity(), self.get("user"))
    }

    /// How many hosts are tried, one after the other.
    pub fn n_hosts(&self) -> usize {
        self.hosts().count()
    }

    /// The same description for each of its hosts alone, in the order in which they are to be tried.
    pub(super) fn each_host(&self) -> Vec<Dsn> {
        let mut each: Vec<Dsn> = self.hosts().map(|host| self.with_host(host)).collect();
        if self.get("load_balance_hosts") == "random" {
            // Where to begin is enough to spread the load.
            let random = RandomState::new().hash_one(0);
            let start = random % each.len() as u64;
            each.rotate_left(usize::try_from(start).unwrap_or(0));
        }
        each
    }

    fn with_host(&self, host: Host<'_>) -> Dsn {
        let is_one_of_several = self.n_hosts() > 1;
        let mut params = self.params.clone();
        for (keyword, value) in &mut params {
            match keyword.as_str() {
                "host" => host.name.clone_into(value),
                "hostaddr" => host.address.clone_into(value),
                "port" => host.port.clone_into(value),
                _ => {}
            }
        }
        if is_one_of_several && self.get("target_session_attrs").is_empty() {
            params.retain(|(keyword, _)| keyword != "target_session_attrs");
            params.push(("target_session_attrs".to_owned(), "read-write".to_owned()));
        }
        Dsn { params }
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

/// What is known so far, by keyword: the value, and how errors name the place where it stands. A keyword that was given an empty
/// value is known, too: it keeps the environment out, and its default applies.
#[derive(Default)]
struct Known(BTreeMap<&'static str, (String, String)>);

impl Known {
    fn set(&mut self, name: &'static str, value: String, shown: String) {
        self.0.insert(name, (value, shown));
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|(value, _)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Names a keyword as the place does where it stands.
    fn shown<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, |(_, shown)| shown)
    }

    fn add_service(&mut self, env: &Env) -> Result<(), DsnError> {
        let Some(name) = self.get("service").or_else(|| variable(env, "PGSERVICE")) else {
            return Ok(());
        };
        let file = self
            .get("servicefile")
            .or_else(|| variable(env, "PGSERVICEFILE"));
        for (keyword, value) in files::service(name, file, env)? {
            if !self.0.contains_key(keyword.name) {
                let shown = format!("{} of the service", keyword.name);
                self.set(keyword.name, value, shown);
            }
        }
        Ok(())
    }

    fn add_environment(&mut self, env: &Env) {
        for keyword in KEYWORDS {
            let Some((name, value)) = keyword
                .variable
                .and_then(|name| Some((name, variable(env, name)?)))
            else {
                continue;
            };
            if !self.0.contains_key(keyword.name) {
                self.set(keyword.name, value.to_owned(), name.to_owned());
            }
        }
        if variable(env, "PGREQUIRESSL").is_some_and(|value| value.starts_with('1'))
            && !self.0.contains_key("sslmode")
        {
            self.set("sslmode", "require".to_owned(), "PGREQUIRESSL".to_owned());
        }
    }

    fn add_defaults(&mut self) -> Result<(), DsnError> {
        if self.get("user").is_none() {
            let user = whoami::username().map_err(|_| {
                DsnError::new("no user is named, and the user of this process has no name")
            })?;
            self.set("user", user, "user".to_owned());
        }
        if self.get("dbname").is_none() {
            let user = self.get("user").unwrap_or_default().to_owned();
            self.set("dbname", user, "dbname".to_owned());
        }
        self.complete_hosts()
    }

    /// Brings hosts, addresses and ports to lists of equal length.
    fn complete_hosts(&mut self) -> Result<(), DsnError> {
        let list = |name| -> Vec<String> {
            let text = self.get(name);
            text.map_or_else(Vec::new, |text| {
                text.split(',').map(str::to_owned).collect()
            })
        };
        let (mut hosts, addresses, mut ports) = (list("host"), list("hostaddr"), list("port"));
        let n_hosts = hosts.len().max(addresses.len()).max(1);
        if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
            return Err(mismatch("hostaddr", addresses.len(), hosts.len()));
        }
        if ports.len() > 1 && ports.len() != n_hosts {
            return Err(mismatch("port", ports.len(), n_hosts));
        }
        let port = ports.first().cloned().unwrap_or_default();
        ports.resize(n_hosts, port);
        for port in &mut ports {
            if port.is_empty() {
                DEFAULT_PORT.clone_into(port);
            }
        }
        hosts.resize(n_hosts, String::new());
        for (at, host) in hosts.iter_mut().enumerate() {
            if host.is_empty() && addresses.get(at).is_none_or(String::is_empty) {
                *host = default_host(&ports[at]);
            }
        }
        for (name, list) in [("host", hosts), ("port", ports)] {
            let shown = self.shown(name).to_owned();
            self.set(name, list.join(","), shown);
        }
        Ok(())
    }

    fn check_meanings(&self) -> Result<(), DsnError> {
        for keyword in KEYWORDS {
            if let Some(value) = self.get(keyword.name) {
                keywords::check(keyword, value, self.shown(keyword.name))?;
                driver::check(keyword.name, value, self.shown(keyword.name))?;
            }
        }
        self.check_tls()
    }

    /// libpq ignores `sslmode` over a unix socket; here it is refused there, too: taking it back is easy to do, and nobody can
    /// mistake what was ignored for something that was done.
    fn check_tls(&self) -> Result<(), DsnError> {
        let asks = match self.get("sslmode") {
            Some("require" | "verify-ca" | "verify-full") => "sslmode",
            _ if self.get("channel_binding") == Some("require") => "channel_binding",
            _ if self.get("sslrootcert") == Some("system") => "sslrootcert",
            _ => return Ok(()),
        };
        let (value, shown) = (self.get(asks).unwrap_or_default(), self.shown(asks));
        Err(DsnError::new(format!(
            "{shown}={value} asks for TLS, which this version does not have, and it does not go on without; where a unix socket or \
             a trusted network makes that right, use sslmode=prefer"
        )))
    }

    fn add_password(&mut self, env: &Env, warnings: &mut Vec<String>) -> Result<(), DsnError> {
        if self.get("password").is_some() {
            return Ok(());
        }
        let key = |name| self.get(name).unwrap_or_default();
        let addresses = key("hostaddr").split(',').chain(std::iter::repeat(""));
        let mut passwords: Vec<String> = Vec::new();
        for ((host, port), address) in key("host")
            .split(',')
            .zip(key("port").split(','))
            .zip(addresses)
        {
            let host = match host {
                "" => address,
                // Only the directory that libpq was built with is called so; others stand in the file as they are.
                host if host == SOCKET_DIRECTORIES[0] => "localhost",
                host => host,
            };
            let key = [host, port, key("dbname"), key("user")];
            passwords.extend(files::password(self.get("passfile"), env, key, warnings));
        }
        passwords.dedup();
        if passwords.len() > 1 {
            return Err(DsnError::new(
                "the passfile has different passwords for the hosts, and this version takes one for all",
            ));
        }
        if let Some(password) = passwords.pop() {
            self.set("password", password, "passfile".to_owned());
        }
        Ok(())
    }

    /// What led to other keywords is done with; what is ignored need not travel.
    fn into_dsn(self) -> Dsn {
        let params = KEYWORDS
            .iter()
            .filter(|keyword| matches!(keyword.meaning, keywords::Meaning::Used))
            .filter(|keyword| {
                !matches!(
                    keyword.name,
                    "service" | "servicefile" | "passfile" | "sslrootcert"
                )
            })
            .filter_map(|keyword| {
                let value = self.get(keyword.name)?;
                Some((keyword.name.to_owned(), value.to_owned()))
            })
            .collect();
        Dsn { params }
    }
}

fn mismatch(name: &str, n: usize, n_hosts: usize) -> DsnError {
    DsnError::new(format!(
        "{name} has {n} values for {n_hosts} {}",
        if n_hosts == 1 { "host" } else { "hosts" }
    ))
}

/// libpq knows one directory, the one it was built with. Servers of either kind should be found: the directory where a socket is,
/// else Debian's if it exists (the server may start later), else TCP.
fn default_host(port: &str) -> String {
    let socket = format!(".s.PGSQL.{port}");
    SOCKET_DIRECTORIES
        .iter()
        .find(|directory| Path::new(directory).join(&socket).exists())
        .or_else(|| {
            SOCKET_DIRECTORIES[..1]
                .iter()
                .find(|directory| Path::new(directory).is_dir())
        })
        .unwrap_or(&"localhost")
        .to_string()
}
