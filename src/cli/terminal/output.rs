//! Standard output: what a command writes there, and what happens when that fails.
//!
//! A broken pipe is no failure: the reader has closed it because it wants no more. Anything else (a
//! full disk behind a redirection) is a failure: a script would take half an answer for a whole
//! one. No work is broken off for it, since what a command does in the database matters more than
//! what it prints: the failure is reported at the end.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::terminal::message::say;
use crate::domain::usage::EXIT_FAILED;
use crate::store::io_cause;

/// Standard output did not take what was written.
#[derive(Debug, thiserror::Error)]
#[error("could not write to standard output: {0}")]
pub struct Unwritten(String);

impl Unwritten {
    /// Turns a failed write into an error; `None` when only the reader has gone away.
    pub(in crate::cli) fn of(error: &io::Error) -> Option<Unwritten> {
        (error.kind() != io::ErrorKind::BrokenPipe).then(|| Unwritten(io_cause(error)))
    }

    /// Adds what would be lost with the output: "requeued 3 events".
    pub(in crate::cli) fn but(self, what: &str) -> Unwritten {
        Unwritten(format!("{}; {what}", self.0))
    }

    /// Reports the failure, and gives the exit code.
    pub fn complain(&self) -> ExitCode {
        say(&format!("error: {self}\n"));
        ExitCode::from(EXIT_FAILED)
    }
}

/// Writes to standard output, and fails also when the reader has closed it.
pub(in crate::cli) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes to standard output. That the reader has closed it is no failure.
pub(in crate::cli) fn print(text: &str) -> Result<(), Unwritten> {
    write(text).or_else(|error| Unwritten::of(&error).map_or(Ok(()), Err))
}

/// Writes the last text of a command, and gives its exit code: `code`, unless the text could not be
/// written.
pub fn finish(text: &str, code: ExitCode) -> ExitCode {
    match print(text) {
        Ok(()) => code,
        Err(error) => error.complain(),
    }
}
