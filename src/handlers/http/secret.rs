//! A value of a route that may be a secret: where it stands, how it is read, and how it changes.
//!
//! A secret is `{ file = "…" }` or `{ env = "…" }`. It goes to the receiver and nowhere else: what
//! shows a route names the place, no refusal repeats the value, and what an answer repeats of it is
//! masked ([`super::masks`]).

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::handlers::http::secret_file::{self, SecretFile};
use crate::handlers::keys::Keys;
use crate::handlers::kind::Secrets;
use crate::system::logging::quoted;

/// A value as it was at the start, and where it stands.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Secret {
    pub(super) value: String,
    pub(super) source: Source,
}

/// Where a value stands.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// In the route itself.
    Route,
    /// In a variable of the environment: it is secret.
    Environment,
    /// In a file, which is read again when it changes: it is secret.
    File(String),
}

/// What a key may hold beside `{ file }` and `{ env }`.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Plain {
    /// A text, because the value need not be a secret.
    Allowed,
    /// Nothing: the value is always a secret, which does not belong into the file of the routes.
    Refused,
}

/// How to read a secret.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) secrets: Secrets<'a>,
    /// Stands for a value that is left unread.
    pub(super) unread: &'a str,
}

impl Secret {
    /// A value that stands in the route itself.
    pub(super) fn in_route(value: &str) -> Secret {
        Secret {
            value: value.to_owned(),
            source: Source::Route,
        }
    }

    /// Reads the file at `path`; a refusal shows nothing of it.
    pub(super) fn in_file(path: &str, reading: Reading<'_>) -> Result<Secret, String> {
        let value = match reading.secrets {
            Secrets::Unread => Ok(reading.unread.to_owned()),
            Secrets::Read(_) => secret_file::read(path),
        };
        Ok(Secret {
            value: value.map_err(|error| format!("{} cannot be used: {error}", quoted(path)))?,
            source: Source::File(path.to_owned()),
        })
    }

    /// Reads the variable `name`.
    pub(super) fn in_environment(name: &str, reading: Reading<'_>) -> Result<Secret, String> {
        let value = match reading.secrets {
            Secrets::Unread => Some(reading.unread),
            Secrets::Read(environment) => environment.get(name).map(|value| value.trim()),
        };
        let value = value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("the variable {} is not set", quoted(name)))?;
        Ok(Secret {
            value: value.to_owned(),
            source: Source::Environment,
        })
    }

    /// Reads a key; `name` is the key as a refusal names it.
    pub(super) fn of_key(
        keys: Keys<'_>,
        key: &str,
        name: &str,
        plain: Plain,
        reading: Reading<'_>,
    ) -> Result<Secret, String> {
        if let Ok(text) = keys.text(key)
            && plain == Plain::Allowed
        {
            return Ok(Secret::in_route(text));
        }
        match keys.table(key) {
            Ok(Some(table)) => Secret::of_table(table, name, reading),
            Ok(None) | Err(_) => Err(must_be(name, plain)),
        }
    }

    /// Reads `{ file = "…" }` or `{ env = "…" }`.
    pub(super) fn of_table(
        keys: Keys<'_>,
        name: &str,
        reading: Reading<'_>,
    ) -> Result<Secret, String> {
        let text = |key| keys.text(key).map_err(|_| must_be(name, Plain::Refused));
        let read = match keys.names().collect::<Vec<_>>().as_slice() {
            ["file"] => Secret::in_file(text("file")?, reading),
            ["env"] => Secret::in_environment(text("env")?, reading),
            _ => return Err(must_be(name, Plain::Refused)),
        };
        read.map_err(|problem| format!("has `{name}`, but {problem}"))
    }

    /// Says whether the value must be shown nowhere.
    pub(super) fn is_hidden(&self) -> bool {
        self.source != Source::Route
    }
}

fn must_be(name: &str, plain: Plain) -> String {
    let text = match plain {
        Plain::Allowed => "a text, ",
        Plain::Refused => "",
    };
    format!("has `{name}`, which must be {text}{{ file = \"…\" }} or {{ env = \"…\" }}")
}

/// Refuses a value that cannot stand where it would; the refusal does not repeat it.
pub(super) type Check = fn(&str) -> Result<(), String>;

/// A value as it is now.
pub(super) struct Live {
    value: Mutex<String>,
    file: Option<SecretFile>,
    check: Check,
    is_hidden: bool,
}

impl Live {
    /// Follows `secret`, which is called `name`; each of its values has to pass `check`.
    pub(super) fn new(name: &str, secret: &Secret, check: Check) -> Result<Live, String> {
        check(&secret.value)?;
        let file = match &secret.source {
            Source::File(path) => Some(SecretFile::new(name, path)),
            Source::Route | Source::Environment => None,
        };
        Ok(Live {
            value: Mutex::new(secret.value.clone()),
            file,
            check,
            is_hidden: secret.is_hidden(),
        })
    }

    /// Reads its file again where that has changed, and says whether the value has.
    pub(super) fn look(&self) -> bool {
        let Some(file) = &self.file else {
            return false;
        };
        let mut is_changed = false;
        file.look(|text| {
            (self.check)(text)?;
            let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            if *value != text {
                text.clone_into(&mut value);
                is_changed = true;
            }
            Ok(())
        });
        is_changed
    }

    /// The value.
    pub(super) fn value(&self) -> String {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        value.clone()
    }

    /// Says whether the value must be shown nowhere.
    pub(super) fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    /// Says whether the value may change.
    pub(super) fn may_change(&self) -> bool {
        self.file.is_some()
    }
}
