//! Errors in what a person typed or set, and the exit codes with which the program ends.
//!
//! Other errors are defined where they happen. This one is shared because every command can meet it
//! before anything has started.

use std::fmt;

/// Something failed, or work was killed at the end of a drain.
pub const EXIT_FAILED: u8 = 1;
/// The command line or the environment is wrong.
pub const EXIT_USAGE: u8 = 2;
/// A one-shot command could not reach the database (`EX_UNAVAILABLE`).
pub const EXIT_UNAVAILABLE: u8 = 69;
/// The configuration file, the schema, the password or the database name is wrong (`EX_CONFIG`):
/// starting again cannot help.
pub const EXIT_CONFIG: u8 = 78;

/// What the person typed or set, and why it cannot be used. Its text never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct UsageError {
    text: String,
    hint: Option<String>,
    exit_code: u8,
}

impl UsageError {
    /// Blames the command line or the environment: exit code 2.
    pub fn new(text: impl Into<String>) -> UsageError {
        UsageError {
            text: text.into(),
            hint: None,
            exit_code: EXIT_USAGE,
        }
    }

    /// Blames the configuration file: exit code 78, since a service manager must not try it again
    /// and again.
    pub fn in_file(text: impl Into<String>) -> UsageError {
        UsageError {
            exit_code: EXIT_CONFIG,
            ..UsageError::new(text)
        }
    }

    /// Adds the line that says what to do about it, unless there is one.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> UsageError {
        self.hint.get_or_insert_with(|| hint.to_string());
        self
    }

    /// The exit code that fits.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Renders the lines for standard error.
    pub fn render(&self) -> String {
        match &self.hint {
            Some(hint) => format!("error: {}\nhint: {hint}\n", self.text),
            None => format!("error: {}\n", self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_is_one_line_and_a_hint() {
        let error = UsageError::new("unknown option `--x`")
            .hint("try `dispatchbox help`")
            .hint("a later hint does not replace it");
        assert_eq!(
            error.render(),
            "error: unknown option `--x`\nhint: try `dispatchbox help`\n"
        );
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_bad_file_is_a_configuration_error() {
        assert_eq!(UsageError::in_file("x").exit_code(), 78);
    }
}
