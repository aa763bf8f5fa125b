//! libpq's two files: the service file, which names connections, and the passfile, which holds
//! passwords.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::store::dsn::keywords::{self, Keyword};
use crate::store::dsn::{DsnError, Env};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where Debian's libpq looks for the service file of the whole host, unless `PGSYSCONFDIR` says
/// otherwise.
const SYSTEM_DIRECTORY: &str = "/etc/postgresql-common";

/// Finds what a service means: in the user's file first, then in the host's.
pub(super) fn service(
    name: &str,
    file: Option<&str>,
    env: &Env,
) -> Result<Vec<(&'static Keyword, String)>, DsnError> {
    let own = match file {
        Some(path) => Some(PathBuf::from(path)),
        None => home(env)
            .map(|home| home.join(".pg_service.conf"))
            .filter(|path| path.exists()),
    };
    let system = variable(env, "PGSYSCONFDIR").unwrap_or(SYSTEM_DIRECTORY);
    let system = Path::new(system).join("pg_service.conf");
    for path in own.into_iter().chain(system.exists().then_some(system)) {
        let text = read(&path).map_err(|error| {
            DsnError::new(format!(
                "could not read the service file `{}`: {error}",
                path.display()
            ))
        })?;
        let found = section(&text, name).map_err(|(line, error)| {
            DsnError::new(format!(
                "service file `{}`, line {line}: {error}",
                path.display()
            ))
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(DsnError::new(format!(
        "there is no definition of the service `{name}`"
    )))
}

type Section = Option<Vec<(&'static Keyword, String)>>;

/// Reads the section of a service. Broken lines in other sections are ignored.
fn section(text: &str, name: &str) -> Result<Section, (usize, DsnError)> {
    let mut found: Section = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(name) {
                found = Some(Vec::new());
            }
        } else if let Some(words) = &mut found {
            let word = setting(line).map_err(|error| (at + 1, error))?;
            // As in libpq, the first line of a keyword counts.
            if !words.iter().any(|(keyword, _)| keyword.name == word.0.name) {
                words.push(word);
            }
        }
    }
    Ok(found)
}

fn setting(line: &str) -> Result<(&'static Keyword, String), DsnError> {
    if line.starts_with("ldap") {
        return Err(DsnError::new("services from LDAP are not supported"));
    }
    let (name, value) = line
        .split_once('=')
        .ok_or_else(|| DsnError::new("it must look like keyword=value"))?;
    if matches!(name, "service" | "servicefile") {
        return Err(DsnError::new("a service cannot name another one"));
    }
    Ok((keywords::find(name)?, value.to_owned()))
}

/// Finds the password for one host, as libpq does: fields may be `*`, the first line that fits
/// counts, and a file that others may read is not used.
pub(super) fn password(
    path: Option<&str>,
    env: &Env,
    key: [&str; 4],
    warnings: &mut Vec<String>,
) -> Option<String> {
    let path = path.map_or_else(
        || home(env).map(|home| home.join(".pgpass")),
        |path| Some(PathBuf::from(path)),
    )?;
    let metadata = fs::metadata(&path).ok()?;
    let refusal = if !metadata.is_file() {
        "is not a plain file"
    } else if metadata.mode() & 0o077 != 0 {
        "can be read by others; its permissions should be u=rw (0600) or less"
    } else {
        let text = read(&path).ok()?;
        return text.lines().find_map(|line| password_in(line, key));
    };
    let warning = format!(
        "the passfile `{}` is not used: it {refusal}",
        path.display()
    );
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
    None
}

/// Reads a line `host:port:database:user:password`.
fn password_in(line: &str, key: [&str; 4]) -> Option<String> {
    let mut rest = line.trim_end_matches('\r');
    if rest.starts_with('#') {
        return None;
    }
    for wanted in key {
        rest = after_field(rest, wanted)?;
    }
    // Here a backslash escapes what follows it, too; the password ends with the line.
    Some(unescaped(rest))
}

/// Matches one field and gives what follows its colon.
fn after_field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut chars = line.char_indices();
    let mut field = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => field.extend(chars.next().map(|(_, escaped)| escaped)),
            ':' => return (field == wanted).then(|| &line[at + 1..]),
            c => field.push(c),
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        // A backslash at the very end stands for itself.
        plain.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
        });
    }
    plain
}

pub(super) fn read(path: &Path) -> std::io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

pub(super) fn home(env: &Env) -> Option<PathBuf> {
    variable(env, "HOME").map(PathBuf::from)
}

/// A variable that is set to nothing is not set.
pub(super) fn variable<'a>(env: &'a Env, name: &str) -> Option<&'a str> {
    env.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}
