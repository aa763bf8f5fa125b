//! Where a connection description came from, so that it can be read again: a password that was
//! changed is picked up while the program runs.
//!
//! The source is read again only when the database refuses the login. A source that cannot be used,
//! such as an empty or half-written file, changes nothing: the last good description stays in use.
//! The same holds for a description of another database, because the leases in hand belong to this
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{info, warn};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::store::dsn::files::read;
use crate::store::dsn::keywords::KEYWORDS;
use crate::store::dsn::{Dsn, DsnError, Env};

/// Variables beside those of the keywords that a resolution reads.
const FURTHER_VARIABLES: [&str; 3] = ["HOME", "PGSYSCONFDIR", "PGREQUIRESSL"];

/// Where a description came from. It may hold the password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Source {
    /// How messages name it: ``--dsn-file `/run/secrets/dsn` ``.
    name: String,
    place: Place,
    env: Env,
}

/// The place that holds the text of a description.
#[derive(Clone, Serialize, Deserialize)]
pub enum Place {
    /// There is no text; the environment variables are enough.
    Nowhere,
    /// An option, a variable or a setting; the service file and the passfile complete it.
    Text(String),
    /// A file of its own.
    File(PathBuf),
}

impl Source {
    /// Remembers of the environment what a resolution reads.
    pub fn new(name: String, place: Place, env: &Env) -> Source {
        let names: BTreeSet<&str> = KEYWORDS
            .iter()
            .filter_map(|keyword| keyword.variable)
            .chain(FURTHER_VARIABLES)
            .collect();
        let env = env
            .iter()
            .filter(|(name, _)| names.contains(name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Source { name, place, env }
    }

    fn read(&self) -> Result<Dsn, DsnError> {
        let text = match &self.place {
            Place::Nowhere => None,
            Place::Text(text) => Some(text.clone()),
            Place::File(path) => Some(file_text(path)?),
        };
        let text = text.as_deref().map(str::trim);
        if text.is_some_and(str::is_empty) {
            return Err(DsnError::new("it is empty"));
        }
        let mut warnings = Vec::new();
        let dsn = Dsn::resolve(text, &self.env, &mut warnings)?;
        match warnings.pop() {
            Some(warning) => Err(DsnError::new(warning)),
            None => Ok(dsn),
        }
    }
}

/// A pipe, as a shell's `<(…)` makes one, gives its text once; to open it again may wait for ever.
fn file_text(path: &Path) -> Result<String, DsnError> {
    let metadata = fs::metadata(path).map_err(|error| DsnError::new(error.to_string()))?;
    if !metadata.is_file() {
        return Err(DsnError::new(
            "it is no plain file, so it cannot be read a second time",
        ));
    }
    read(path).map_err(|error| DsnError::new(error.to_string()))
}

/// What connections of one process have shown, shared by the copies of a description. A worker is
/// told which servers were good.
#[derive(Clone, Default)]
pub(super) struct Learned(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    /// The description that was read last and that the database accepted.
    newest: Option<Dsn>,
    /// The last logged reason why the source could not be used.
    complaint: Option<String>,
    good: Good,
}

/// The servers that served last.
#[derive(Default, Serialize, Deserialize)]
struct Good {
    /// A host with its port.
    host: Option<String>,
    /// By host and port: one of its addresses.
    addresses: BTreeMap<String, IpAddr>,
}

impl Learned {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serialize for Learned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.facts().good.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Learned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Learned, D::Error> {
        let facts = Facts {
            good: Good::deserialize(deserializer)?,
            ..Facts::default()
        };
        Ok(Learned(Arc::new(Mutex::new(facts))))
    }
}

impl Dsn {
    /// Says where it came from, so that it can be read again.
    #[must_use]
    pub fn with_source(mut self, source: Source) -> Dsn {
        self.source = Some(source);
        self
    }

    /// The description as it was good last in this process.
    #[must_use]
    pub fn newest(&self) -> Dsn {
        let newest = self.learned.facts().newest.clone();
        newest.map_or_else(|| self.clone(), |newest| self.succeeded_by(newest))
    }

    /// Another description of the same place.
    fn succeeded_by(&self, dsn: Dsn) -> Dsn {
        Dsn {
            source: self.source.clone(),
            learned: self.learned.clone(),
            ..dsn
        }
    }

    /// Reads the description again after a refused login; `None` where that leads to nothing new.
    pub(in crate::store) fn read_again(&self) -> Option<Dsn> {
        let source = self.source.as_ref()?;
        let read = source.read().and_then(|dsn| self.check_successor(dsn));
        let complaint = match read {
            Ok(dsn) => {
                self.learned.facts().complaint = None;
                return (dsn != *self).then(|| self.succeeded_by(dsn));
            }
            Err(error) => Some(error.to_string()),
        };
        let mut facts = self.learned.facts();
        if facts.complaint != complaint {
            facts.complaint.clone_from(&complaint);
            warn!(
                "the database refuses the login, and {} could not be used again: {}; trying on with what it said before",
                source.name,
                complaint.unwrap_or_default()
            );
        }
        None
    }

    fn check_successor(&self, dsn: Dsn) -> Result<Dsn, DsnError> {
        if dsn.identity() != self.identity() {
            return Err(DsnError::new(format!(
                "it leads to another database now, {}: that needs a restart",
                dsn.identity()
            )));
        }
        let has_password = |dsn: &Dsn| !dsn.get("password").is_empty() || !dsn.passwords.is_empty();
        if has_password(self) && !has_password(&dsn) {
            return Err(DsnError::new("it has no password any more"));
        }
        Ok(dsn)
    }

    /// Notes that what was read again is good.
    pub(in crate::store) fn adopt(&self, newest: Dsn) {
        // Without the learned state, which would own itself otherwise.
        let newest = Dsn::new(newest.params, newest.passwords);
        self.learned.facts().newest = Some(newest);
        if let Some(source) = &self.source {
            info!("{} was read again: the login has changed", source.name);
        }
    }

    /// Says whether this host served last.
    pub(in crate::store) fn is_good_host(&self, host: &str) -> bool {
        self.learned.facts().good.host.as_deref() == Some(host)
    }

    /// Which of a host's addresses served last.
    pub(in crate::store) fn good_address(&self, host: &str) -> Option<IpAddr> {
        self.learned.facts().good.addresses.get(host).copied()
    }

    /// Notes the server that has served.
    pub(in crate::store) fn note_good(&self, host: &str, address: Option<IpAddr>) {
        let good = &mut self.learned.facts().good;
        good.host = Some(host.to_owned());
        if let Some(address) = address {
            good.addresses.insert(host.to_owned(), address);
        }
    }
}
