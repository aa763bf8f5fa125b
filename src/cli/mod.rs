//! The command line: what was typed, one file per subcommand, and its conversion into settings.
//!
//! Arguments are parsed in one place ([`front`]) and interpreted in another ([`settings`]); nothing here delivers events. Every
//! command writes through [`print`] and [`complain`], which ignore a reader that has gone away.

mod database;
mod file;
pub mod front;
mod help;
mod layers;
mod names;
mod routes;
pub mod settings;
mod values;

pub mod bench;
pub mod config;
pub mod demo;
pub mod migrate;
pub mod run;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::settings::Env;
use crate::error::UsageError;
use crate::logging;

/// What our variables and libpq's begin with.
const OUR_PREFIXES: [&str; 3] = ["DISPATCHBOX_", "PG", "DATABASE_URL"];

/// Takes the environment as a map. A variable that is not UTF-8 is an error where we would read it, and nobody's business
/// elsewhere.
pub fn environment(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Env, UsageError> {
    let mut env = Env::new();
    for (name, value) in vars {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                env.insert(name, value);
            }
            Err(_) if OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => {
                return Err(UsageError::new(format!(
                    "the variable {name} is not valid UTF-8"
                )));
            }
            Err(_) => {}
        }
    }
    Ok(env)
}

/// Writes to standard output; whoever closed it does not want to know.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes the lines of an error to standard error and gives its exit code.
pub fn complain(err: &UsageError) -> ExitCode {
    say(&err.render());
    ExitCode::from(err.exit_code())
}

/// Writes the warnings of a one-shot command to standard error; `run` logs its own.
fn warn(warnings: &[String]) {
    for warning in warnings {
        say(&format!("warning: {warning}\n"));
    }
}

/// Writes lines to standard error, as the log would: no secret, no control character but the ends of the lines.
fn say(text: &str) {
    let mut err = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(err, "{}", logging::escape(&logging::redact(line)));
    }
}
