//! The kinds of failure that keep events from being claimed or settled.

use serde::{Deserialize, Serialize};

/// What keeps events from being claimed or settled, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is no connection, or it is lost.
    Unavailable,
    /// The server only reads: a standby, or the old primary after a failover.
    ReadOnly,
    /// A table, column or function is missing.
    Schema,
    /// The role lacks a privilege.
    PermissionDenied,
    /// Another session holds a lock on the table.
    TableLocked,
    /// The server has not answered within the time that a statement has.
    TimedOut,
    /// The server refuses for another reason.
    Refused,
}

impl FailureKind {
    /// A few words for a table or a page.
    pub fn text(self) -> &'static str {
        match self {
            FailureKind::Unavailable => "unavailable",
            FailureKind::ReadOnly => "read-only",
            FailureKind::Schema => "schema",
            FailureKind::PermissionDenied => "permission denied",
            FailureKind::TableLocked => "table locked",
            FailureKind::TimedOut => "timed out",
            FailureKind::Refused => "refused",
        }
    }
}
