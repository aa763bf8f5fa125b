//! How long the calls of a session may take.

use std::time::Duration;

use crate::store::dsn::Dsn;

/// The most time between the time limit of a statement and the cutting of its line, in which the
/// server ends the statement and its answer arrives.
const MARGIN_MAX: Duration = Duration::from_secs(3);

/// The least such time, for statements that are meant to be short.
const MARGIN_MIN: Duration = Duration::from_secs(1);

/// How long database calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Bounds a connection attempt, for each host of the DSN.
    pub connect: Duration,
    /// Bounds each statement.
    pub query: Duration,
}

impl Timeouts {
    /// Bounds a connection attempt that tries every host of the DSN.
    pub fn connect_all(&self, dsn: &Dsn) -> Duration {
        let n_hosts = u32::try_from(dsn.n_hosts()).unwrap_or(u32::MAX);
        self.connect.saturating_mul(n_hosts)
    }

    /// The time after which no answer is expected any more.
    pub(super) fn answer(&self) -> Duration {
        self.query + self.query.clamp(MARGIN_MIN, MARGIN_MAX)
    }
}

/// How long the calls of a session wait from now on; `None` means the usual limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// For a lock.
    pub lock: Option<Duration>,
    /// For a statement to end.
    pub statement: Option<Duration>,
}
