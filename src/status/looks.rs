//! Looks at the database: requests ask for them, and the supervisor's observer makes them.
//!
//! While requests ask, there is at most one look per second, whose result all of them share. While
//! no request asks and the daemon runs, a look is due every `UNASKED`, and each second while a
//! failure is not reported yet: so the log tells what is
//! wrong, and the first request after a pause gets a current answer at once.
//!
//! This is where both sides meet, and it holds no connection. The observer has a thread for looks
//! alone, because a call to a stuck server cannot be ended by its caller: a request waits a bounded
//! time and then gets "not connected".

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::status::findings::Findings;
use crate::status::state::{DaemonPhase, Finding, Health, lock};

/// An answer is shared for this long.
const FRESH: Duration = Duration::from_secs(1);

/// Time between two looks while no request asks for one: a look is a few quick queries.
const UNASKED: Duration = Duration::from_secs(5);

/// A request waits at most this long for a look under way.
const ASK_MAX: Duration = Duration::from_millis(4500);

/// The looks at the database, as both sides know them. Cheap to clone.
#[derive(Clone)]
pub struct Looks {
    health: Health,
    progress: Arc<Mutex<LookProgress>>,
    changed: Arc<Condvar>,
}

#[derive(Default)]
struct LookProgress {
    looked_at: Option<Instant>,
    /// Since when a look is under way, or asked for.
    looking_since: Option<Instant>,
    findings: Findings,
    /// No look will be made any more.
    is_closed: bool,
}

impl Looks {
    /// Makes looks whose findings are published in `health`.
    pub fn new(health: Health) -> Looks {
        Looks {
            health,
            progress: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Waits until the health state says whether the database works now, or worked within the last
    /// second.
    pub fn ask(&self) {
        let deadline = Instant::now() + ASK_MAX;
        let mut progress = lock(&self.progress);
        while !progress.is_closed {
            let now = Instant::now();
            let is_late = progress
                .looking_since
                .is_some_and(|since| now.duration_since(since) >= ASK_MAX);
            if is_late || now >= deadline {
                // A look that has taken this long cannot give this request a good answer in time.
                progress.findings.late();
                self.publish(&progress);
                return;
            }
            if !self.begin_unless_fresh(&mut progress, now) {
                return;
            }
            progress = self.wait(progress, deadline - now);
        }
    }

    /// Begins a look unless there was one within the last second, and does not wait for it.
    pub fn glance(&self) {
        self.begin_unless_fresh(&mut lock(&self.progress), Instant::now());
    }

    /// Asks for a look unless there was one lately; says whether one is under way.
    fn begin_unless_fresh(&self, progress: &mut LookProgress, now: Instant) -> bool {
        let is_fresh = |at| now.duration_since(at) < FRESH;
        if progress.looked_at.is_some_and(is_fresh) {
            return false;
        }
        if progress.looking_since.is_none() {
            progress.looking_since = Some(now);
            self.changed.notify_all();
        }
        true
    }

    /// Waits until a look is to be made, by the only thread that makes them; returns `false` once
    /// there are to be no more. [`Looks::conclude`] ends the look.
    pub fn next(&self) -> bool {
        let mut progress = lock(&self.progress);
        let mut due = Instant::now() + progress.interval();
        while !progress.is_closed {
            if progress.looking_since.is_some() {
                return true;
            }
            let now = Instant::now();
            if now < due {
                progress = self.wait(progress, due - now);
            } else if self.health.state().phase == DaemonPhase::Running {
                progress.looking_since = Some(now);
            } else {
                due = now + progress.interval();
            }
        }
        false
    }

    /// Ends the look under way, which began at `began`, with its finding. Before the finding is
    /// published, `tell` gets what will be reported, and since when that has lasted.
    pub fn conclude(
        &self,
        finding: Option<Finding>,
        began: Instant,
        tell: impl FnOnce(Option<(&Finding, Instant)>),
    ) {
        let ended = Instant::now();
        let mut progress = lock(&self.progress);
        progress.findings.found(finding, began, ended);
        let since = progress.findings.since().unwrap_or(began);
        tell(progress.findings.reported().map(|finding| (finding, since)));
        progress.looked_at = Some(ended);
        progress.looking_since = None;
        self.publish(&progress);
        self.changed.notify_all();
    }

    /// Ends all waits, and lets no look begin any more.
    pub fn close(&self) {
        lock(&self.progress).is_closed = true;
        self.changed.notify_all();
    }

    fn publish(&self, progress: &LookProgress) {
        let finding = progress.findings.reported().cloned();
        self.health.update(|health| health.database = finding);
    }

    fn wait<'a>(
        &self,
        progress: MutexGuard<'a, LookProgress>,
        limit: Duration,
    ) -> MutexGuard<'a, LookProgress> {
        self.changed
            .wait_timeout(progress, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

impl LookProgress {
    /// The time from a look to the next one while no request asks.
    fn interval(&self) -> Duration {
        if self.findings.is_open() {
            FRESH
        } else {
            UNASKED
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::failure::FailureKind;
    use crate::system::threads;

    use super::*;

    fn away() -> Finding {
        Finding {
            failure_kind: FailureKind::Unavailable,
            detail: "connection refused".to_owned(),
        }
    }

    #[test]
    fn requests_share_a_look_and_a_fresh_answer_needs_none() {
        let looks = Looks::new(Health::new(1));
        let asking: Vec<threads::Thread> = (0..2)
            .map(|_| {
                let looks = looks.clone();
                threads::start("ask", move || looks.ask()).expect("a thread starts")
            })
            .collect();

        assert!(looks.next(), "the daemon starts, and a request asks");
        let began = Instant::now();
        looks.conclude(Some(away()), began, |reported| {
            assert_eq!(reported, Some((&away(), began)));
        });
        for thread in asking {
            assert!(thread.join().is_ok());
        }
        assert_eq!(looks.health.state().database, Some(away()));

        looks.glance();
        assert_eq!(lock(&looks.progress).looking_since, None);
    }

    #[test]
    fn a_look_that_is_not_answered_in_time_leaves_the_database_not_connected() {
        let health = Health::new(1);
        let looks = Looks::new(health.clone());
        lock(&looks.progress).looking_since = Instant::now().checked_sub(ASK_MAX);

        looks.ask();

        let reported = health.state().database;
        assert_eq!(
            reported.map(|finding| finding.detail).as_deref(),
            Some("no answer in time")
        );
    }

    #[test]
    fn the_end_ends_the_wait_of_both_sides() {
        for wait in [Looks::ask as fn(&Looks), |looks| assert!(!looks.next())] {
            let looks = Looks::new(Health::new(1));
            let waiting = looks.clone();
            let thread = threads::start("wait", move || wait(&waiting)).expect("a thread starts");

            looks.close();

            assert!(thread.join().is_ok());
            assert_eq!(looks.health.state().database, None);
        }
    }
}
