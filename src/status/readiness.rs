//! Whether the daemon should get traffic. Pure: from the state to a fixed reason.
//!
//! Three sources describe the database. The observer asks it for everything that delivering needs.
//! Each worker reports the results of its own calls: only the worker notices that its connection
//! hangs. A worker that does not report any more cannot work at all.
//!
//! A worker's failure counts once it has lasted [`FAILING_MIN`], so that a single failed call is no
//! reason. It counts only where every worker that is up has one: as long as one worker
//! delivers, the daemon does. A worker that has just started knows nothing yet, and changes
//! nothing.

use std::fmt;
use std::time::{Duration, Instant};

use crate::domain::failure::FailureKind;
use crate::domain::protocol::DatabaseAccess;
use crate::status::state::{DaemonPhase, State, WorkerPhase, WorkerState};

/// A failure that is over sooner is no reason to send traffic elsewhere. A report may be a second
/// old, so what is over within two seconds is never reported.
pub const FAILING_MIN: Duration = Duration::from_secs(3);

/// A worker that has sent no report for this long is stopped, or starved: workers report each
/// second.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// Why the daemon should get no traffic, in words that any client may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The daemon was asked to stop.
    Draining,
    /// The database cannot be reached, or refuses the connection.
    NotConnected,
    /// The database only reads.
    NotWritable,
    /// A table, column or function is missing.
    SchemaNotUsable,
    /// The server refuses the statements that claiming and settling need, or does not answer them.
    CannotClaim,
    /// No worker is up.
    NoWorkers,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotReady::Draining => "draining",
            NotReady::NotConnected => "database not connected",
            NotReady::NotWritable => "database not writable",
            NotReady::SchemaNotUsable => "schema not usable",
            NotReady::CannotClaim => "events cannot be claimed",
            NotReady::NoWorkers => "no workers",
        })
    }
}

impl From<FailureKind> for NotReady {
    fn from(failure_kind: FailureKind) -> NotReady {
        match failure_kind {
            FailureKind::Unavailable => NotReady::NotConnected,
            FailureKind::ReadOnly => NotReady::NotWritable,
            FailureKind::Schema => NotReady::SchemaNotUsable,
            FailureKind::PermissionDenied
            | FailureKind::TableLocked
            | FailureKind::TimedOut
            | FailureKind::Refused => NotReady::CannotClaim,
        }
    }
}

impl State {
    /// Says why the daemon should get no traffic now; `None` when it should.
    pub fn not_ready(&self, now: Instant) -> Option<NotReady> {
        if self.phase == DaemonPhase::Draining {
            return Some(NotReady::Draining);
        }
        if let Some(finding) = &self.database {
            return Some(finding.failure_kind.into());
        }
        if !self.workers.iter().any(WorkerState::is_up) {
            return Some(NotReady::NoWorkers);
        }
        let failure_kinds: Option<Vec<FailureKind>> = self
            .workers
            .iter()
            .filter(|worker| worker.is_up() && worker.has_tried())
            .map(|worker| worker.failure_kind(now))
            .collect();
        failure_kinds?.into_iter().min().map(NotReady::from)
    }
}

impl State {
    /// Returns more detail about why the daemon should get no traffic, where more is known. It is
    /// shown only to clients that may use the API.
    pub fn detail(&self) -> Option<String> {
        if let Some(finding) = &self.database {
            return Some(finding.detail.clone());
        }
        if self.workers.iter().any(WorkerState::is_up) {
            return None;
        }
        let is_starting = |worker: &WorkerState| worker.phase == WorkerPhase::Starting;
        Some(
            if self.phase == DaemonPhase::Starting {
                "the daemon looks at the database before it starts its workers"
            } else if self.workers.iter().any(is_starting) {
                "the workers were just started and have not reported yet"
            } else {
                "no worker process runs; the log says why, and when one is started again"
            }
            .to_owned(),
        )
    }
}

impl WorkerState {
    /// Says whether the worker lives and has reported.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, WorkerPhase::Running | WorkerPhase::Draining)
    }

    /// Says whether the worker has called the database, so that its report is evidence.
    fn has_tried(&self) -> bool {
        !matches!(self.report, None | Some((DatabaseAccess::Untried, _)))
    }

    /// What keeps it from delivering, where that has lasted.
    pub fn failure_kind(&self, now: Instant) -> Option<FailureKind> {
        let (access, at) = self.report?;
        let age = now.saturating_duration_since(at);
        match access {
            DatabaseAccess::Failing {
                failure_kind,
                for_ms,
            } if Duration::from_millis(for_ms) + age >= FAILING_MIN => Some(failure_kind),
            DatabaseAccess::Untried | DatabaseAccess::Granted | DatabaseAccess::Failing { .. } => {
                (age >= SILENT_MAX).then_some(FailureKind::TimedOut)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::state::{Finding, Health};

    fn running(accesses: &[Option<DatabaseAccess>], reported: Instant) -> State {
        let workers = accesses.iter().map(|access| WorkerState {
            phase: match access {
                Some(_) => WorkerPhase::Running,
                None => WorkerPhase::Starting,
            },
            report: access.map(|access| (access, reported)),
            ..WorkerState::default()
        });
        State {
            phase: DaemonPhase::Running,
            workers: workers.collect(),
            ..Health::new(0).state()
        }
    }

    fn failing(failure_kind: FailureKind, for_ms: u64) -> DatabaseAccess {
        DatabaseAccess::Failing {
            failure_kind,
            for_ms,
        }
    }

    #[track_caller]
    fn check(accesses: &[Option<DatabaseAccess>], expected: Option<NotReady>) {
        let now = Instant::now();
        assert_eq!(
            running(accesses, now).not_ready(now),
            expected,
            "{accesses:?}"
        );
    }

    #[test]
    fn a_failure_counts_once_it_has_lasted_at_every_worker_that_is_up() {
        let granted = Some(DatabaseAccess::Granted);
        let denied = Some(failing(FailureKind::PermissionDenied, 60_000));
        check(&[granted], None);
        check(&[Some(DatabaseAccess::Untried)], None);
        check(&[denied], Some(NotReady::CannotClaim));
        check(&[Some(failing(FailureKind::PermissionDenied, 2999))], None);
        check(&[denied, granted], None);
        check(&[denied, None], Some(NotReady::CannotClaim));
        check(
            &[denied, Some(DatabaseAccess::Untried)],
            Some(NotReady::CannotClaim),
        );
        check(&[granted, None], None);
        check(&[None, None], Some(NotReady::NoWorkers));
        check(&[], Some(NotReady::NoWorkers));
    }

    #[test]
    fn each_failure_kind_has_its_reason_and_the_gravest_is_told() {
        let long = 60_000;
        check(
            &[Some(failing(FailureKind::Unavailable, long))],
            Some(NotReady::NotConnected),
        );
        check(
            &[Some(failing(FailureKind::ReadOnly, long))],
            Some(NotReady::NotWritable),
        );
        check(
            &[Some(failing(FailureKind::Schema, long))],
            Some(NotReady::SchemaNotUsable),
        );
        check(
            &[Some(failing(FailureKind::TableLocked, long))],
            Some(NotReady::CannotClaim),
        );
        check(
            &[
                Some(failing(FailureKind::TableLocked, long)),
                Some(failing(FailureKind::ReadOnly, long)),
            ],
            Some(NotReady::NotWritable),
        );
    }

    #[test]
    fn a_failure_goes_on_while_its_worker_is_silent_and_silence_is_one_by_itself() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let state = running(&[Some(failing(FailureKind::TableLocked, 500))], now);
        assert_eq!(state.not_ready(later(2)), None);
        assert_eq!(state.not_ready(later(3)), Some(NotReady::CannotClaim));

        let state = running(&[Some(DatabaseAccess::Granted)], now);
        assert_eq!(state.not_ready(later(9)), None);
        assert_eq!(state.not_ready(later(10)), Some(NotReady::CannotClaim));
    }

    #[test]
    fn a_daemon_without_workers_says_what_they_wait_for() {
        let now = Instant::now();
        let state = |phase, accesses: &[Option<DatabaseAccess>]| State {
            phase,
            ..running(accesses, now)
        };
        let down = State {
            workers: vec![WorkerState::default()],
            ..running(&[], now)
        };
        for (state, words) in [
            (
                state(DaemonPhase::Starting, &[]),
                Some("looks at the database"),
            ),
            (
                state(DaemonPhase::Running, &[None]),
                Some("were just started"),
            ),
            (down, Some("no worker process runs")),
            (
                state(DaemonPhase::Running, &[Some(DatabaseAccess::Untried)]),
                None,
            ),
        ] {
            let detail = state.detail();
            assert_eq!(detail.is_some(), words.is_some(), "{detail:?}");
            let said = detail.unwrap_or_default();
            assert!(said.contains(words.unwrap_or_default()), "{said}");
        }
    }

    #[test]
    fn leaving_and_the_probe_come_before_what_workers_say() {
        let now = Instant::now();
        let mut state = running(&[Some(DatabaseAccess::Granted)], now);
        state.database = Some(Finding {
            failure_kind: FailureKind::Schema,
            detail: String::new(),
        });
        assert_eq!(state.not_ready(now), Some(NotReady::SchemaNotUsable));

        state.phase = DaemonPhase::Draining;
        assert_eq!(state.not_ready(now), Some(NotReady::Draining));
    }
}
