//! The keys of a `[[route]]` table, and of a table in it. A refusal follows the name of the route.

use std::ops::RangeInclusive;

use crate::domain::nearest::did_you_mean;
use crate::system::logging::quoted;

/// A key with its line in the help.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// As it stands in the file.
    pub(crate) name: &'static str,
    /// What it says.
    pub(crate) help: &'static str,
}

/// The keys that a table has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a>(pub(crate) &'a toml::Table);

impl<'a> Keys<'a> {
    /// Refuses a table that has another key than the known ones.
    pub(crate) fn check(self, known: &[&str]) -> Result<(), String> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(format!(
                "has the unknown key {}{}; known are {}",
                quoted(key),
                did_you_mean(key, known.iter().copied()),
                known.join(", ")
            )),
            None => Ok(()),
        }
    }

    /// The value of a key, whatever its type.
    pub(crate) fn get(self, key: &str) -> Option<&'a toml::Value> {
        self.0.get(key)
    }

    /// Says whether a key holds a list.
    pub(crate) fn is_list(self, key: &str) -> bool {
        self.get(key).is_some_and(toml::Value::is_array)
    }

    /// Reads the text that a key must have.
    pub(crate) fn text(self, key: &str) -> Result<&'a str, String> {
        match self.get(key) {
            None => Err(format!("needs `{key} = \"…\"`")),
            Some(toml::Value::String(text)) => Ok(text),
            Some(value) => Err(format!(
                "has `{key}`, which must be one text in quotes, not of the type {}",
                value.type_str()
            )),
        }
    }

    /// The names of its keys, in the order of the alphabet.
    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(String::as_str)
    }

    /// Reads the table that a key may have.
    pub(crate) fn table(self, key: &str) -> Result<Option<Keys<'a>>, String> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_table()
            .map(|table| Some(Keys(table)))
            .ok_or_else(|| {
                format!(
                    "has `{key}`, which must be a table, not of the type {}",
                    value.type_str()
                )
            })
    }

    /// Reads a list of tables; `None` where the key has none, or anything else.
    pub(crate) fn tables(self, key: &str) -> Option<Vec<Keys<'a>>> {
        let tables = self.get(key)?.as_array()?.iter();
        tables.map(|table| table.as_table().map(Keys)).collect()
    }

    /// Reads a list of texts; `None` where the key has none, or anything else.
    pub(crate) fn texts(self, key: &str) -> Option<Vec<String>> {
        let texts = self.get(key)?.as_array()?.iter();
        texts.map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// Reads a list of numbers in a range; `None` where the key has none, or anything else.
    pub(crate) fn numbers(self, key: &str, allowed: &RangeInclusive<u16>) -> Option<Vec<u16>> {
        let numbers = self.get(key)?.as_array()?.iter();
        let number = |value: &toml::Value| u16::try_from(value.as_integer()?).ok();
        numbers
            .map(|value| number(value).filter(|number| allowed.contains(number)))
            .collect()
    }
}
