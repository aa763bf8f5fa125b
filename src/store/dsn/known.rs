//! Collects a connection description from its places in libpq's order: the text, the service, the
//! environment, defaults, and at last the passfile.

use std::collections::BTreeMap;
use std::path::Path;

use crate::domain::figure::counted;
use crate::store::dsn::files::{self, variable};
use crate::store::dsn::keywords::{self, KEYWORDS};
use crate::store::dsn::{Dsn, DsnError, Env, driver};

/// Where Debian's servers have their sockets, and where those built from source do.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// PostgreSQL's port unless something else is said.
const DEFAULT_PORT: &str = "5432";

/// The keyword, of ours alone, under which the directory of libpq's files is kept.
pub(super) const TLS_DIRECTORY: &str = "ssl files";

/// What is known so far, by keyword: the value, and how errors name the place where it stands. A
/// keyword that was given an empty value is known, too: it keeps the environment out, and its
/// default applies.
#[derive(Default)]
pub(super) struct Known {
    words: BTreeMap<&'static str, (String, String)>,
    /// By host, where the passfile has different ones; empty for a host that it does not name.
    passwords: Vec<String>,
}

impl Known {
    pub(super) fn set(&mut self, name: &'static str, value: String, shown: String) {
        self.words.insert(name, (value, shown));
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.words
            .get(name)
            .map(|(value, _)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Names a keyword as the place does where it stands.
    pub(super) fn shown<'a>(&'a self, name: &'a str) -> &'a str {
        self.words.get(name).map_or(name, |(_, shown)| shown)
    }

    pub(super) fn add_service(&mut self, env: &Env) -> Result<(), DsnError> {
        let Some(name) = self.get("service").or_else(|| variable(env, "PGSERVICE")) else {
            return Ok(());
        };
        let file = self
            .get("servicefile")
            .or_else(|| variable(env, "PGSERVICEFILE"));
        for (keyword, value) in files::service(name, file, env)? {
            if !self.words.contains_key(keyword.name) {
                let shown = format!("{} of the service", keyword.name);
                self.set(keyword.name, value, shown);
            }
        }
        Ok(())
    }

    pub(super) fn add_environment(&mut self, env: &Env) {
        for keyword in KEYWORDS {
            let Some((name, value)) = keyword
                .variable
                .and_then(|name| Some((name, variable(env, name)?)))
            else {
                continue;
            };
            if !self.words.contains_key(keyword.name) {
                self.set(keyword.name, value.to_owned(), name.to_owned());
            }
        }
        if variable(env, "PGREQUIRESSL").is_some_and(|value| value.starts_with('1'))
            && !self.words.contains_key("sslmode")
        {
            self.set("sslmode", "require".to_owned(), "PGREQUIRESSL".to_owned());
        }
    }

    pub(super) fn add_defaults(&mut self) -> Result<(), DsnError> {
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

    pub(super) fn check_meanings(&self) -> Result<(), DsnError> {
        for keyword in KEYWORDS {
            if let Some(value) = self.get(keyword.name) {
                keywords::check(keyword, value, self.shown(keyword.name))?;
                driver::check(keyword.name, value, self.shown(keyword.name))?;
            }
        }
        self.check_tls()
    }

    pub(super) fn add_password(&mut self, env: &Env, warnings: &mut Vec<String>) {
        if self.get("password").is_some() {
            return;
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
                // Only the directory that libpq was built with is called so; others stand in the
                // file as they are.
                host if host == SOCKET_DIRECTORIES[0] => "localhost",
                host => host,
            };
            let key = [host, port, key("dbname"), key("user")];
            let password = files::password(self.get("passfile"), env, key, warnings);
            passwords.push(password.unwrap_or_default());
        }
        let mut different: Vec<&String> = passwords.iter().filter(|one| !one.is_empty()).collect();
        different.dedup();
        match different[..] {
            [] => {}
            [password] => {
                let password = password.clone();
                self.set("password", password, "passfile".to_owned());
            }
            _ => self.passwords = passwords,
        }
    }

    /// Makes the description. Keywords that only led to others, and ignored ones, are left out.
    pub(super) fn into_dsn(self) -> Dsn {
        let params = KEYWORDS
            .iter()
            .filter(|keyword| matches!(keyword.meaning, keywords::Meaning::Used))
            .filter(|keyword| !matches!(keyword.name, "service" | "servicefile" | "passfile"))
            .map(|keyword| keyword.name)
            .chain([TLS_DIRECTORY])
            .filter_map(|name| Some((name.to_owned(), self.get(name)?.to_owned())))
            .collect();
        Dsn::new(params, self.passwords)
    }
}

fn mismatch(name: &str, n: usize, n_hosts: usize) -> DsnError {
    DsnError::new(format!(
        "{name} has {} for {}",
        counted(n, "value"),
        counted(n_hosts, "host")
    ))
}

/// libpq knows one directory, the one it was built with. Servers of either kind should be found:
/// the directory where a socket is, else Debian's if it exists (the server may start later), else
/// TCP.
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
