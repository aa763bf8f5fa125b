//! Why a daemon does not start.

use crate::error::EXIT_FAILED;

/// Why the daemon does not start, and with which exit code it ends.
#[derive(Debug)]
pub struct Refusal {
    /// For the log.
    pub reason: String,
    /// The exit code.
    pub code: u8,
}

impl Refusal {
    /// For what is neither the configuration's nor the schema's fault.
    pub(super) fn failed(reason: impl Into<String>) -> Refusal {
        Refusal {
            reason: reason.into(),
            code: EXIT_FAILED,
        }
    }
}
