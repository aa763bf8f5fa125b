//! Could events be delivered now? One look a second, shared by all who ask.
//!
//! A thread of its own looks, because a call to a stuck server cannot be ended by the caller: who asks waits a bounded time and
//! then gets "not connected". Nobody asks, nobody looks: an idle daemon without a load balancer costs its database nothing.
//!
//! A look does to no row what workers do to many, so it meets what they would meet, also while they have nothing to do. A database
//! that cannot be reached is told at once; what a working connection refuses, a table that is locked for instance, only when it has
//! lasted as long as a worker's trouble has to.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::debug;

use crate::health::Health;
use crate::health::readiness::FAILING_MIN;
use crate::report::Trouble;
use crate::store::dsn::Dsn;
use crate::store::{self, Lack, Session, StoreError, Timeouts};

/// An answer is shared for this long.
const FRESH: Duration = Duration::from_secs(1);

/// Bounds the connect, and again the query, of one look.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Who asks waits at most this long for a look under way.
const ASK_MAX: Duration = Duration::from_millis(4500);

/// What a look found in the way of delivering, if anything.
type Finding = Option<Trouble>;

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
    looked_at: Option<Instant>,
    looking_since: Option<Instant>,
    verdict: Verdict,
}

/// What the looks have come to. Pure.
#[derive(Debug, Default)]
struct Verdict {
    /// What is told; `None` before the first look.
    told: Option<Finding>,
    /// Since when looks find trouble.
    since: Option<Instant>,
}

impl Verdict {
    /// Takes in what a look found that began and ended at these times; returns what to tell.
    fn found(&mut self, finding: Finding, began: Instant, ended: Instant) -> Finding {
        if finding.is_none() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(began);
        }
        let has_lasted = self
            .since
            .is_none_or(|since| ended.duration_since(since) >= FAILING_MIN);
        let is_new = self.told == Some(None) && finding != Some(Trouble::Unavailable);
        let told = if is_new && !has_lasted { None } else { finding };
        self.told = Some(told);
        told
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
        thread::Builder::new()
            .name("probe".into())
            .spawn(move || run(&dsn, &looks, &looked))?;
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
                state.verdict.told = Some(Some(Trouble::Unavailable));
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
        let finding = state.verdict.told.flatten();
        self.health.update(|health| health.database = finding);
    }
}

fn run(dsn: &Dsn, looks: &Receiver<()>, shared: &Shared) {
    let mut session = None;
    for () in looks {
        let began = Instant::now();
        let finding = look(dsn, &mut session);
        let ended = Instant::now();
        let mut state = shared.lock();
        state.verdict.found(finding, began, ended);
        state.looked_at = Some(ended);
        state.looking_since = None;
        shared.tell(&state);
        shared.changed.notify_all();
    }
}

fn look(dsn: &Dsn, session: &mut Option<Session>) -> Finding {
    // An idle connection may have died unnoticed: a second try on a fresh one tells that from a database that is away.
    loop {
        let was_idle = session.is_some();
        match try_look(dsn, session) {
            Ok(finding) => return finding,
            Err(error) => {
                debug!("readiness: {error}");
                if error.is_connection_lost() {
                    *session = None;
                    if was_idle {
                        continue;
                    }
                }
                return Some(error.trouble());
            }
        }
    }
}

fn try_look(dsn: &Dsn, session: &mut Option<Session>) -> Result<Finding, StoreError> {
    let timeouts = Timeouts {
        connect: LOOK_MAX,
        query: LOOK_MAX,
    };
    let session = match session {
        Some(session) => session,
        None => session.insert(store::connect(dsn, &timeouts, "dispatchbox ready")?),
    };
    match session.lack()? {
        Some(Lack::Schema(_) | Lack::Types(_)) => Ok(Some(Trouble::Schema)),
        Some(Lack::Privileges { .. }) => Ok(Some(Trouble::PermissionDenied)),
        None => session.rehearse().map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told after looks at these seconds.
    #[track_caller]
    fn check(looks: &[(u64, Finding)], told: &[Finding]) {
        let start = Instant::now();
        let mut verdict = Verdict::default();
        let after: Vec<Finding> = looks
            .iter()
            .map(|&(second, finding)| {
                let at = start + Duration::from_secs(second);
                verdict.found(finding, at, at)
            })
            .collect();
        assert_eq!(after, told, "{looks:?}");
    }

    #[test]
    fn a_refusal_is_told_when_it_has_lasted_and_its_end_at_once() {
        let locked = Some(Trouble::TableLocked);
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
        let away = Some(Trouble::Unavailable);
        check(&[(0, None), (1, away), (2, None)], &[None, away, None]);
    }

    #[test]
    fn a_first_look_and_another_trouble_are_told_at_once() {
        let (locked, schema) = (Some(Trouble::TableLocked), Some(Trouble::Schema));
        check(&[(0, locked), (1, schema)], &[locked, schema]);
    }
}
