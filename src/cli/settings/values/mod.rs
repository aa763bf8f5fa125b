//! Reads single values, and shows them. Every refusal says what is allowed, and its text follows
//! the name of the option: ``must be at least 1, not `0` ``.

mod host;
mod number;
mod size;
mod time;

use std::fmt::Display;

use crate::domain::config::{LogLevel, Unrouted};
use crate::domain::usage::UsageError;
pub(in crate::cli) use crate::system::logging::quoted;

pub(in crate::cli) use crate::cli::settings::values::host::{host, host_names};
pub(in crate::cli) use crate::cli::settings::values::number::{
    count, decimal, event_id, positive, whole,
};
pub(in crate::cli) use crate::cli::settings::values::size::{size, size_text};
pub(in crate::cli) use crate::cli::settings::values::time::{
    Moment, age, moment, seconds, seconds_text,
};

/// Reads a value of this name; a refusal names it.
pub(in crate::cli) fn named<T>(
    name: &str,
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, UsageError> {
    read(text).map_err(|refusal| UsageError::new(format!("{name} {refusal}")))
}

/// Reads the option of this name, if it was typed.
pub(in crate::cli) fn option<T>(
    name: &str,
    typed: Option<&str>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, UsageError> {
    typed.map(|text| named(name, text, read)).transpose()
}

/// Refuses an empty text: a variable that a script forgot to set would otherwise widen the set that
/// the command works on.
pub(in crate::cli) fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a yes or no.
pub(in crate::cli) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("must be `true` or `false`, not {}", quoted(text))),
    }
}

/// Reads what becomes of events that no route takes.
pub(in crate::cli) fn unrouted(text: &str) -> Result<Unrouted, String> {
    match text {
        "fail" => Ok(Unrouted::Fail),
        "leave" => Ok(Unrouted::Leave),
        _ => Err(format!("must be fail or leave, not {}", quoted(text))),
    }
}

/// Reads the threshold of the log.
pub(in crate::cli) fn log_level(text: &str) -> Result<LogLevel, String> {
    LogLevel::parse(text).ok_or_else(|| {
        format!(
            "must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {}",
            quoted(text)
        )
    })
}

/// Takes a value of the configuration file as the text that a flag would have.
pub(in crate::cli) fn from_toml(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(yes) => Ok(yes.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => Err(format!(
            "must be a single value, not of the type {}",
            value.type_str()
        )),
    }
}

fn too_small(least: impl Display, text: &str) -> String {
    format!("must be at least {least}, not {}", quoted(text))
}

fn too_large(most: impl Display, text: &str) -> String {
    format!("must be at most {most}, not {}", quoted(text))
}
