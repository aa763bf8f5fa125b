//! The configuration file: TOML with the names of the options (underscores for dashes) and
//! `[[route]]` tables.
//!
//! Only the form is checked here. The values are read together with flags and environment. No error
//! shows a line of the file, since it may hold the DSN.

use std::fs;
use std::io::{self, Read};

use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::setting::{Source, Texts};
use crate::cli::settings::values::{self, quoted};
use crate::domain::nearest::did_you_mean;
use crate::domain::usage::UsageError;

/// Largest file that is read: a file with a thousand routes has 200 KiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A configuration file whose keys are all known.
#[derive(Debug)]
pub(in crate::cli) struct File {
    pub(in crate::cli) path: String,
    pub(in crate::cli) values: Texts,
    pub(in crate::cli) routes: Vec<toml::Table>,
}

impl File {
    /// Reads and parses the file.
    pub(in crate::cli) fn read(path: &str) -> Result<File, UsageError> {
        let refuse = |text: String| {
            UsageError::in_file(text)
                .hint("`dispatchbox help run` lists the options; a file has `_` for their `-`")
        };
        let text = read_text(path).map_err(|error| {
            UsageError::in_file(format!(
                "could not read the configuration file `{path}`: {error}"
            ))
        })?;
        let table: toml::Table =
            toml::from_str(&text).map_err(|error| refuse(syntax_error(path, &text, &error)))?;
        File::from_table(path, &table).map_err(refuse)
    }

    fn from_table(path: &str, table: &toml::Table) -> Result<File, String> {
        let mut values = Texts::new();
        let mut routes = Vec::new();
        for (key, value) in table {
            if key == SETTINGS.route.name.key {
                routes = tables(value).ok_or_else(|| {
                    format!("`route` in `{path}` must be written as tables: [[route]]")
                })?;
                continue;
            }
            let name = SETTINGS
                .names_in(Source::File)
                .find(|name| name.key == key)
                .ok_or_else(|| unknown_key(path, key))?;
            let text = values::from_toml(value)
                .map_err(|refusal| format!("`{key}` in `{path}` {refusal}"))?;
            values.insert(name, text);
        }
        Ok(File {
            path: path.to_owned(),
            values,
            routes,
        })
    }
}

/// Reads a small text file.
pub(in crate::cli) fn read_text(path: &str) -> io::Result<String> {
    bounded(fs::File::open(path)?, FILE_BYTES_MAX)
}

/// Reads a text, and fails where it has more than `most` bytes.
pub(in crate::cli) fn bounded(source: impl Read, most: u64) -> io::Result<String> {
    let mut text = String::new();
    let n_bytes = source.take(most + 1).read_to_string(&mut text)?;
    if n_bytes as u64 > most {
        let size = values::size_text(most)
            .replace('M', " M")
            .replace('G', " G");
        return Err(io::Error::other(format!("it is larger than {size}")));
    }
    Ok(text)
}

fn unknown_key(path: &str, key: &str) -> String {
    let known = SETTINGS.names_in(Source::File).map(|name| name.key);
    let nearest = did_you_mean(key, known.chain([SETTINGS.route.name.key]));
    format!("unknown key {} in `{path}`{nearest}", quoted(key))
}

fn tables(value: &toml::Value) -> Option<Vec<toml::Table>> {
    value
        .as_array()?
        .iter()
        .map(|route| route.as_table().cloned())
        .collect()
}

/// Renders a syntax error without the line, which the parser's own rendering would show.
fn syntax_error(path: &str, text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or(1, |before| before.matches('\n').count() + 1);
    let cause = error.message().lines().next().unwrap_or("not TOML");
    // TOML's "basic string" looks like the scheme of an Authorization header, whose next word is
    // masked as a secret.
    let cause = cause.replace("basic string", "string");
    format!("could not parse the configuration file `{path}`, line {line}: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_up_to_its_bound() {
        let read = |source: &mut dyn Read, most| {
            let read = bounded(source, most);
            read.map(|text| text.len())
                .map_err(|error| error.to_string())
        };
        let larger = |than: &str| Err(format!("it is larger than {than}"));

        assert_eq!(read(&mut "abc".as_bytes(), 3), Ok(3));
        assert_eq!(read(&mut "abc".as_bytes(), 2), larger("2"));
        assert_eq!(read(&mut io::repeat(b'x'), 1 << 20), larger("1 MiB"));
    }
}
