//! What comes of a worker's database calls: what its reports say of it, and what the log is told when that begins, changes and ends.
//!
//! *Away* is a database that cannot be reached or does not take our connection. That is over when every stage that met it has got
//! through again: where only some can connect, the log does not go back and forth between the two. What it has cost shows later: an
//! idle stage finds its connection gone only when it calls. That is no new outage; the loss of a connection that was opened in the
//! meantime, or has worked since, is one.
//!
//! *Refused* is a call on a working connection that the server turns down: a table is locked, a privilege or a function is missing.
//! One row that somebody holds is refused each second while all others are written, so that is over only once every stage that met it
//! has got through again, and no call has met it for a while.
//!
//! Why not say the end of a refusal at the first success: the log would tell a beginning and an end each second, for as long as
//! somebody holds one row.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::incident::Incident;
use crate::report::{Access, FailureKind};
use crate::store::StoreError;
use crate::worker::stage::Stage;

/// The same complaint about a working connection is logged once in this time: a locked table fails every call for minutes.
const REPEAT_AFTER: Duration = Duration::from_mins(1);

/// A refusal is over when nothing has met it for this time: longer than a stage waits that tries again what it was refused as a whole.
const CALM: Duration = Duration::from_secs(6);

/// A call that is out for longer is not slow but stuck: the server bounds a wait for a lock below this, and a claim takes milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Knows what the calls come to.
#[derive(Debug, Default)]
pub(super) struct Outage {
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    stages: [StageState; Stage::COUNT],
    away_since: Option<Instant>,
    last: Option<EndedOutage>,
    /// By the reason that the metric names.
    refused: HashMap<&'static str, Refusal>,
}

/// An outage that is over.
#[derive(Debug, Clone, Copy)]
struct EndedOutage {
    began: Instant,
    ended: Instant,
}

/// How one stage stands.
#[derive(Debug, Default)]
struct StageState {
    succeeded_at: Option<Instant>,
    /// It has met the outage and not got through since.
    is_cut_off: bool,
    /// What its calls fail with, and since when none has got through.
    failing: Option<(FailureKind, Instant)>,
}

#[derive(Debug)]
struct Refusal {
    incident: Incident,
    last: Instant,
    /// By stage: it has met it and not got through since.
    is_met: [bool; Stage::COUNT],
}

impl Outage {
    /// Notes a failed call; `since` is when its connection had been opened, or when it began to open one.
    pub(super) fn failed(&self, stage: Stage, error: &StoreError, since: Instant) {
        let now = Instant::now();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.stages[stage as usize].fails(stage, error.failure_kind(), now);
        if error.is_connection_lost() || error.is_connecting() && error.is_transient() {
            calls.is_away(stage, error, since, now);
        } else if calls.is_refused(stage, error.reason(), now) {
            warn!("{error}; trying again");
        }
    }

    /// Notes a successful call.
    pub(super) fn succeeded(&self, stage: Stage) {
        let now = Instant::now();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.stages[stage as usize] = StageState {
            succeeded_at: Some(now),
            ..StageState::default()
        };
        calls.look_for_ends(stage, now);
    }

    /// What a report says of it; `longest_call` is how long the oldest call under way has been out.
    pub(super) fn access(&self, longest_call: Duration) -> Access {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = calls
            .stages
            .iter()
            .filter_map(|stage| stage.failing)
            .min_by_key(|&(failure_kind, _)| failure_kind);
        let (failure_kind, since) = match failing {
            Some((failure_kind, since)) => (failure_kind, since.elapsed()),
            None if longest_call >= STUCK_AFTER => (FailureKind::TimedOut, longest_call),
            None => {
                let fetcher = &calls.stages[Stage::Fetcher as usize];
                return fetcher
                    .succeeded_at
                    .map_or(Access::Untried, |_| Access::Granted);
            }
        };
        let for_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Access::Failing {
            failure_kind,
            for_ms,
        }
    }
}

impl Calls {
    fn is_away(&mut self, stage: Stage, error: &StoreError, since: Instant, now: Instant) {
        let stage = &mut self.stages[stage as usize];
        let is_of_last = self.last.is_some_and(|last| {
            let is_older = if error.is_connecting() {
                since < last.ended
            } else {
                since < last.began
            };
            is_older && stage.succeeded_at.is_none_or(|at| at < last.ended)
        });
        if is_of_last {
            debug!("the last outage still shows: {error}");
            return;
        }
        stage.is_cut_off = true;
        if self.away_since.is_none() {
            self.away_since = Some(now);
            warn!("database is away, trying until it is back: {error}");
        }
    }

    /// Says whether that is news.
    fn is_refused(&mut self, stage: Stage, reason: &'static str, now: Instant) -> bool {
        let refusal = self.refused.entry(reason).or_insert_with(|| Refusal {
            incident: Incident::repeated_after(REPEAT_AFTER),
            last: now,
            is_met: [false; Stage::COUNT],
        });
        refusal.last = now;
        refusal.is_met[stage as usize] = true;
        refusal.incident.met_at((), now)
    }

    /// This stage has got through.
    fn look_for_ends(&mut self, stage: Stage, now: Instant) {
        if let Some(since) = self.away_since
            && self.stages.iter().all(|stage| !stage.is_cut_off)
        {
            self.away_since = None;
            self.last = Some(EndedOutage {
                began: since,
                ended: now,
            });
            info!(
                "database is back after {:.1} s",
                now.duration_since(since).as_secs_f64()
            );
        }
        self.refused.retain(|reason, refusal| {
            refusal.is_met[stage as usize] = false;
            let is_over =
                !refusal.is_met.contains(&true) && now.duration_since(refusal.last) >= CALM;
            if is_over && let Some(lasted) = refusal.incident.over_at(refusal.last) {
                info!(
                    "no call is refused any more ({reason}): it lasted {:.1} s",
                    lasted.as_secs_f64()
                );
            }
            !is_over
        });
    }
}

impl StageState {
    /// Only the fetcher can tell that a table is locked, or too slow: for the others it may be a single row, which keeps nobody waiting
    /// but itself.
    fn fails(&mut self, stage: Stage, failure_kind: FailureKind, now: Instant) {
        let is_about_all = match failure_kind {
            FailureKind::Unavailable | FailureKind::ReadOnly | FailureKind::Schema => true,
            FailureKind::PermissionDenied
            | FailureKind::TableLocked
            | FailureKind::TimedOut
            | FailureKind::Refused => matches!(stage, Stage::Fetcher),
        };
        if is_about_all {
            let since = self.failing.map_or(now, |(_, since)| since);
            self.failing = Some((failure_kind, since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> StoreError {
        StoreError::unavailable("settle events", "connection closed".to_owned())
    }

    fn is_away(outage: &Outage) -> bool {
        let calls = outage.calls.lock().expect("no test panics with it");
        calls.away_since.is_some()
    }

    /// An outage that the fetcher met and that is over; returns when it had begun.
    fn after_an_outage() -> (Outage, Instant) {
        let outage = Outage::default();
        let opened = Instant::now();
        outage.succeeded(Stage::Settler);
        outage.failed(Stage::Fetcher, &lost(), opened);
        assert!(is_away(&outage));
        outage.succeeded(Stage::Fetcher);
        assert!(!is_away(&outage));
        (outage, opened)
    }

    #[test]
    fn an_idle_connection_that_an_outage_cost_is_no_new_outage() {
        let (outage, before) = after_an_outage();

        outage.failed(Stage::Settler, &lost(), before);

        assert!(!is_away(&outage));
    }

    #[test]
    fn a_connection_that_was_opened_since_can_begin_the_next_outage() {
        let (outage, _) = after_an_outage();

        outage.failed(Stage::Settler, &lost(), Instant::now());

        assert!(is_away(&outage));
    }

    #[test]
    fn a_connection_that_survived_an_outage_can_begin_the_next() {
        let (outage, before) = after_an_outage();
        outage.succeeded(Stage::Settler);

        outage.failed(Stage::Settler, &lost(), before);

        assert!(is_away(&outage));
    }

    #[test]
    fn a_refusal_is_over_when_who_met_it_got_through_and_nobody_met_it_for_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut calls = Calls::default();

        assert!(calls.is_refused(Stage::Fetcher, "timeout", at(0)));
        assert!(!calls.is_refused(Stage::Fetcher, "timeout", at(30)));
        calls.look_for_ends(Stage::Keeper, at(50));
        assert!(
            calls.refused.contains_key("timeout"),
            "the fetcher still waits"
        );

        assert!(!calls.is_refused(Stage::Fetcher, "timeout", at(55)));
        calls.look_for_ends(Stage::Fetcher, at(58));
        assert!(calls.refused.contains_key("timeout"), "it was met just now");
        calls.look_for_ends(Stage::Keeper, at(61));
        assert!(!calls.refused.contains_key("timeout"));
    }

    #[test]
    fn a_refusal_that_lasts_is_told_once_a_minute() {
        let start = Instant::now();
        let mut calls = Calls::default();

        let logged_at = (0..=180).filter(|&second| {
            calls.is_refused(
                Stage::Settler,
                "lock_timeout",
                start + Duration::from_secs(second),
            )
        });

        assert_eq!(logged_at.collect::<Vec<_>>(), [0, 60, 120, 180]);
    }

    #[test]
    fn a_row_that_is_refused_says_nothing_about_all_others() {
        let outage = Outage::default();
        outage.succeeded(Stage::Fetcher);
        let slow = StoreError::timed_out("settle events", "statement timeout".to_owned());

        outage.failed(Stage::Settler, &slow, Instant::now());
        assert_eq!(outage.access(Duration::ZERO), Access::Granted);

        outage.failed(Stage::Fetcher, &slow, Instant::now());
        assert!(matches!(
            outage.access(Duration::ZERO),
            Access::Failing {
                failure_kind: FailureKind::TimedOut,
                ..
            }
        ));
    }

    #[test]
    fn a_call_that_is_out_for_long_is_a_failure_and_one_that_was_never_made_is_unknown() {
        let outage = Outage::default();
        assert_eq!(outage.access(Duration::ZERO), Access::Untried);
        assert!(matches!(outage.access(STUCK_AFTER), Access::Failing { .. }));
        outage.succeeded(Stage::Fetcher);
        assert_eq!(outage.access(Duration::from_secs(3)), Access::Granted);
    }
}
