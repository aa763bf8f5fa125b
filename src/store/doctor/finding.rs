//! What a check has found.

use serde_json::{Value, json};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// Events are delivered, but something will go wrong, or does already.
    Warning,
    /// Events are lost or not delivered.
    Error,
}

impl Level {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Unknown => "unknown",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    /// The level of that word; another word is not known.
    pub(super) fn of(name: &str) -> Level {
        match name {
            "ok" => Level::Ok,
            "warning" => Level::Warning,
            "error" => Level::Error,
            _ => Level::Unknown,
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is, in words.
    pub message: String,
    /// The statement or the option that mends it.
    pub remedy: Option<String>,
    /// Names and figures of the message, for programs: an object.
    pub data: Value,
}

impl Finding {
    /// A finding without remedy and data.
    pub fn new(level: Level, message: impl Into<String>) -> Finding {
        Finding {
            level,
            message: message.into(),
            remedy: None,
            data: json!({}),
        }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Finding {
        Finding {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// Adds the data.
    #[must_use]
    pub fn data(self, data: Value) -> Finding {
        Finding { data, ..self }
    }
}
