//! Readiness: finds out whether events could be delivered now.
//!
//! While requests ask, there is at most one look per second, whose result all of them share. While
//! no request asks, there is a look every `UNASKED`: so the log tells what is wrong, and the first
//! request after a pause gets a current answer at once.
//!
//! Looks have a thread of their own, because a call to a stuck server cannot be ended by its
//! caller: a request waits a bounded time and then gets "not connected".
//!
//! A look does to no row what workers do to many, so it meets the errors that they would meet, also
//! while they have nothing to do. A database that cannot be reached is reported at once. A refusal
//! on a working connection, such as a locked table, is reported only when it has lasted as long as
//! a worker's trouble has to. The probe logs such a refusal, with its remedy where one is known,
//! because workers that have nothing to settle never meet it. That the database is away the workers
//! notice and log by themselves.

use std::io;
use std::num::NonZeroU16;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{debug, info, warn};

use crate::domain::failure::FailureKind;
use crate::domain::protocol::Access;
use crate::status::readiness::{FAILING_MIN, NotReady};
use crate::status::state::{self, DaemonPhase, Finding, Health, WorkerState};
use crate::store::dsn::Dsn;
use crate::store::{MissingPrerequisite, Pool, StoreError, Timeouts};
use crate::system::incident::Incident;
use crate::system::threads;

/// An answer is shared for this long.
const FRESH: Duration = Duration::from_secs(1);

/// Time between two looks while no request asks for one: a look is a few quick queries.
const UNASKED: Duration = Duration::from_secs(5);

/// Bounds the connect, and again the query, of one look.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// A request waits at most this long for a look under way.
const ASK_MAX: Duration = Duration::from_millis(4500);

/// Asks for looks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Probe {
    shared: Arc<Shared>,
    look: Sender<()>,
}

struct Shared {
    health: Health,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The refusal that was logged, by its remedy.
    complaint: Incident<(FailureKind, Option<String>)>,
    looked_at: Option<Instant>,
    looking_since: Option<Instant>,
    findings: Findings,
}

/// What the looks have found so far. Pure.
#[derive(Debug, Default)]
struct Findings {
    /// There was a look.
    has_looked: bool,
    /// The finding that is reported.
    reported: Option<Finding>,
    /// Since when looks find trouble.
    since: Option<Instant>,
}

impl Findings {
    /// Takes in the finding of a look that began and ended at these times; returns the finding to
    /// report.
    fn found(
        &mut self,
        finding: Option<Finding>,
        began: Instant,
        ended: Instant,
    ) -> Option<Finding> {
        if finding.is_none() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(began);
        }
        let has_lasted = self
            .since
            .is_none_or(|since| ended.duration_since(since) >= FAILING_MIN);
        let is_away = finding.as_ref().is_some_and(Finding::is_away);
        let is_new = self.has_looked && self.reported.is_none() && !is_away;
        self.has_looked = true;
        self.reported = finding.filter(|_| has_lasted || !is_new);
        self.reported.clone()
    }

    /// Says whether a look has found trouble that is reported only if it lasts.
    fn is_open(&self) -> bool {
        self.since.is_some() && self.reported.is_none()
    }
}

impl Probe {
    /// Starts the thread; it ends when the last `Probe` is dropped and its look, if it is in one,
    /// has returned.
    pub(super) fn start(dsn: Dsn, health: Health) -> io::Result<Probe> {
        let shared = Arc::new(Shared {
            health,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (look, looks) = bounded(1);
        let looked = Arc::clone(&shared);
        threads::detach("probe", move || run(dsn, &looks, &looked))?;
        Ok(Probe { shared, look })
    }

    /// Waits until the health state says whether the database works now, or worked within the last
    /// second.
    pub(super) fn ask(&self) {
        let deadline = Instant::now() + ASK_MAX;
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let is_late = state
                .looking_since
                .is_some_and(|since| now.duration_since(since) >= ASK_MAX);
            if is_late || now >= deadline {
                // A look that has taken this long cannot give this request a good answer in time.
                state.findings.has_looked = true;
                state.findings.reported = Some(Finding {
                    failure_kind: FailureKind::Unavailable,
                    detail: "no answer in time".to_owned(),
                });
                self.shared.tell(&state);
                return;
            }
            if !self.look_unless_fresh(&mut state, now) {
                return;
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, deadline.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Begins a look unless there was one within the last second, and does not wait for it.
    pub(super) fn glance(&self) {
        self.look_unless_fresh(&mut self.shared.lock(), Instant::now());
    }

    /// Says whether a look is under way.
    fn look_unless_fresh(&self, state: &mut State, now: Instant) -> bool {
        let is_fresh = |at| now.duration_since(at) < FRESH;
        if state.looked_at.is_some_and(is_fresh) {
            return false;
        }
        if state.looking_since.is_none() {
            state.looking_since = Some(now);
            // The channel is empty: only the thread that sets `looking_since` sends.
            let _ = self.look.try_send(());
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &State) {
        let finding = state.findings.reported.clone();
        self.health.update(|health| health.database = finding);
    }

    /// Says whether to make a look now that no request has asked for: none is under way, and the
    /// daemon runs.
    fn begin_unasked(&self) -> bool {
        let mut state = self.lock();
        let is_wanted =
            state.looking_since.is_none() && self.health.state().phase == DaemonPhase::Running;
        if is_wanted {
            state.looking_since = Some(Instant::now());
        }
        is_wanted
    }
}

fn run(dsn: Dsn, looks: &Receiver<()>, shared: &Shared) {
    let timeouts = Timeouts {
        connect: LOOK_MAX,
        query: LOOK_MAX,
    };
    let pool = Pool::new(dsn, timeouts, NonZeroU16::MIN, "dispatchbox ready");
    loop {
        let wait = if shared.lock().findings.is_open() {
            FRESH
        } else {
            UNASKED
        };
        match looks.recv_timeout(wait) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) if shared.begin_unasked() => {}
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let began = Instant::now();
        let finding = look(&pool);
        let ended = Instant::now();
        let mut state = shared.lock();
        let reported = state.findings.found(finding, began, ended);
        state.complain(reported.as_ref(), began, &shared.health);
        state.looked_at = Some(ended);
        state.looking_since = None;
        shared.tell(&state);
        shared.changed.notify_all();
    }
}

impl State {
    /// Logs when a refusal on a working connection begins, and when it ends.
    fn complain(&mut self, reported: Option<&Finding>, began: Instant, health: &Health) {
        let Some(finding) = reported else {
            if let Some(lasted) = self.complaint.over() {
                info!(
                    "nothing is refused any more: that lasted {:.0} s",
                    lasted.as_secs_f64()
                );
            }
            return;
        };
        let since = self.findings.since.unwrap_or(began);
        if finding.is_ours_to_tell(&health.state())
            && self.complaint.met_since(finding.remedy(), since)
        {
            warn!(
                "not ready: {}: {}",
                NotReady::from(finding.failure_kind),
                finding.detail
            );
        }
    }
}

impl Finding {
    /// The remedy of the finding. A finding with another remedy is logged again: one remedy may
    /// uncover the need of another.
    fn remedy(&self) -> (FailureKind, Option<String>) {
        let has_remedy = matches!(
            self.failure_kind,
            FailureKind::Schema | FailureKind::PermissionDenied
        );
        (self.failure_kind, has_remedy.then(|| self.detail.clone()))
    }

    /// Says whether the probe logs the finding: workers that meet the trouble have logged it
    /// already, but know no remedy for the schema or a privilege.
    fn is_ours_to_tell(&self, state: &state::State) -> bool {
        let is_failing =
            |worker: &WorkerState| matches!(worker.report, Some((Access::Failing { .. }, _)));
        match self.failure_kind {
            FailureKind::Unavailable => false,
            FailureKind::Schema | FailureKind::PermissionDenied => true,
            FailureKind::ReadOnly
            | FailureKind::TableLocked
            | FailureKind::TimedOut
            | FailureKind::Refused => !state.workers.iter().any(is_failing),
        }
    }
}

fn look(pool: &Pool) -> Option<Finding> {
    // A connection may have been broken: a second attempt on a fresh one tells that from a database
    // that is away.
    let found = try_look(pool).or_else(|error| {
        if error.is_connecting() || !error.is_connection_lost() {
            return Err(error);
        }
        debug!("readiness: {error}");
        try_look(pool)
    });
    found.unwrap_or_else(|error| {
        debug!("readiness: {error}");
        Some(Finding {
            failure_kind: error.failure_kind(),
            detail: error.to_string(),
        })
    })
}

fn try_look(pool: &Pool) -> Result<Option<Finding>, StoreError> {
    let mut session = pool.get()?;
    let Some(missing) = session.missing_prerequisite()? else {
        return session.rehearse().map(|()| None);
    };
    let failure_kind = match missing {
        MissingPrerequisite::Schema(_)
        | MissingPrerequisite::OutOfReach(_)
        | MissingPrerequisite::Types(_) => FailureKind::Schema,
        MissingPrerequisite::Privileges { .. } | MissingPrerequisite::RowSecurity(_) => {
            FailureKind::PermissionDenied
        }
    };
    Ok(Some(Finding {
        failure_kind,
        detail: missing.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the trouble that is reported after looks at these seconds.
    #[track_caller]
    fn check(looks: &[(u64, Option<FailureKind>)], reported: &[Option<FailureKind>]) {
        let start = Instant::now();
        let mut findings = Findings::default();
        let finding = |failure_kind| Finding {
            failure_kind,
            detail: String::new(),
        };
        let after: Vec<Option<FailureKind>> = looks
            .iter()
            .map(|&(second, failure_kind)| {
                let at = start + Duration::from_secs(second);
                let reported = findings.found(failure_kind.map(finding), at, at);
                reported.map(|reported| reported.failure_kind)
            })
            .collect();
        assert_eq!(after, reported, "{looks:?}");
    }

    #[test]
    fn a_refusal_is_told_when_it_has_lasted_and_its_end_at_once() {
        let locked = Some(FailureKind::TableLocked);
        check(
            &[
                (0, None),
                (1, locked),
                (3, locked),
                (4, locked),
                (5, None),
                (6, locked),
            ],
            &[None, None, None, locked, None, None],
        );
    }

    #[test]
    fn a_database_that_is_away_is_told_at_once() {
        let away = Some(FailureKind::Unavailable);
        check(&[(0, None), (1, away), (2, None)], &[None, away, None]);
    }

    #[test]
    fn a_first_look_and_another_failure_kind_are_told_at_once() {
        let (locked, schema) = (Some(FailureKind::TableLocked), Some(FailureKind::Schema));
        check(&[(0, locked), (1, schema)], &[locked, schema]);
    }
}
