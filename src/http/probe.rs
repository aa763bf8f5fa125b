//! Could events be delivered now? A look a second where somebody asks, shared by all who do, and one now and then where nobody does, so that
//! the log tells what is wrong, and who asks seldom is told the truth at once.
//!
//! A thread of its own looks, because a call to a stuck server cannot be ended by the caller: who asks waits a bounded time and
//! then gets "not connected".
//!
//! A look does to no row what workers do to many, so it meets what they would meet, also while they have nothing to do. A database
//! that cannot be reached is told at once; what a working connection refuses, a table that is locked for instance, only when it has
//! lasted as long as a worker's failure has to. The latter is told to the log here, with its remedy where one is known: workers that have
//! nothing to settle never meet it. That the database is away they notice by themselves, and tell.

use std::io;
use std::num::NonZeroU16;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{debug, info, warn};

use crate::health::readiness::{FAILING_MIN, NotReady};
use crate::health::{self, DaemonPhase, Finding, Health, WorkerState};
use crate::incident::Incident;
use crate::report::{Access, FailureKind};
use crate::store::dsn::Dsn;
use crate::store::{MissingPrerequisite, Pool, StoreError, Timeouts};
use crate::threads;

/// An answer is shared for this long.
const FRESH: Duration = Duration::from_secs(1);

/// Time between two looks that nobody asked for: a few quick queries.
const UNASKED: Duration = Duration::from_secs(5);

/// Bounds the connect, and again the query, of one look.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Who asks waits at most this long for a look under way.
const ASK_MAX: Duration = Duration::from_millis(4500);

/// The way to ask. Cheap to clone.
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
    /// What the log has been told of, by its remedy.
    complaint: Incident<(FailureKind, Option<String>)>,
    looked_at: Option<Instant>,
    looking_since: Option<Instant>,
    verdict: Verdict,
}

/// What the looks have come to. Pure.
#[derive(Debug, Default)]
struct Verdict {
    /// There was a look.
    has_looked: bool,
    /// What is told.
    told: Option<Finding>,
    /// Since when looks find a failure.
    since: Option<Instant>,
}

impl Verdict {
    /// Takes in what a look found that began and ended at these times; returns what to tell.
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
        let is_new = self.has_looked && self.told.is_none() && !is_away;
        self.has_looked = true;
        self.told = finding.filter(|_| has_lasted || !is_new);
        self.told.clone()
    }

    /// Says whether something was found that has to last a while to be told.
    fn is_open(&self) -> bool {
        self.since.is_some() && self.told.is_none()
    }
}

impl Probe {
    /// Starts the thread; it ends when the last `Probe` is dropped and its look, if it is in one, has returned.
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

    /// Sees to it that the health state tells what the database is like now, or was within the last second.
    pub(super) fn ask(&self) {
        let deadline = Instant::now() + ASK_MAX;
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let is_late = state
                .looking_since
                .is_some_and(|since| now.duration_since(since) >= ASK_MAX);
            if is_late || now >= deadline {
                // A look that is out this long will not become good news for this asker.
                state.verdict.has_looked = true;
                state.verdict.told = Some(Finding {
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
            // The channel is empty: only who sets `looking_since` sends.
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
        let finding = state.verdict.told.clone();
        self.health.update(|health| health.database = finding);
    }

    /// Says whether a look that nobody asked for is to be made now: none is under way, and the daemon runs.
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
        let wait = if shared.lock().verdict.is_open() {
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
        let told = state.verdict.found(finding, began, ended);
        state.complain(told.as_ref(), began, &shared.health);
        state.looked_at = Some(ended);
        state.looking_since = None;
        shared.tell(&state);
        shared.changed.notify_all();
    }
}

impl State {
    /// Tells the log where something begins that is refused on a working connection, and where it ends.
    fn complain(&mut self, told: Option<&Finding>, began: Instant, health: &Health) {
        let Some(finding) = told else {
            if let Some(lasted) = self.complaint.over() {
                info!(
                    "nothing is refused any more: that lasted {:.0} s",
                    lasted.as_secs_f64()
                );
            }
            return;
        };
        let since = self.verdict.since.unwrap_or(began);
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
    /// What a person would do about it: one remedy may uncover the need of another.
    fn remedy(&self) -> (FailureKind, Option<String>) {
        let has_remedy = matches!(
            self.failure_kind,
            FailureKind::Schema | FailureKind::PermissionDenied
        );
        (self.failure_kind, has_remedy.then(|| self.detail.clone()))
    }

    /// Says whether the log is to hear of it from here: workers that meet it have told it, but know no remedy.
    fn is_ours_to_tell(&self, state: &health::State) -> bool {
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
    // A connection may have died in the middle: a second try on a fresh one tells that from a database that is away.
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

    /// What is told after looks at these seconds.
    #[track_caller]
    fn check(looks: &[(u64, Option<FailureKind>)], told: &[Option<FailureKind>]) {
        let start = Instant::now();
        let mut verdict = Verdict::default();
        let finding = |failure_kind| Finding {
            failure_kind,
            detail: String::new(),
        };
        let after: Vec<Option<FailureKind>> = looks
            .iter()
            .map(|&(second, failure_kind)| {
                let at = start + Duration::from_secs(second);
                let told = verdict.found(failure_kind.map(finding), at, at);
                told.map(|told| told.failure_kind)
            })
            .collect();
        assert_eq!(after, told, "{looks:?}");
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
