//! Why a daemon does not start.

use crate::domain::usage::EXIT_FAILED;

/// Why the daemon does not start, and with which exit code it ends.
#[derive(Debug)]
pub struct StartFailure {
    /// The reason, for the log.
    pub reason: String,
    /// The exit code.
    pub code: u8,
}

impl StartFailure {
    /// Makes a failure that neither the configuration nor the schema causes.
    pub(super) fn failed(reason: impl Into<String>) -> StartFailure {
        StartFailure {
            reason: reason.into(),
            code: EXIT_FAILED,
        }
    }
}
