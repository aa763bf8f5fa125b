//! The results of a worker's database calls, for its reports and for the log. The log gets a line
//! when a failure begins, changes and ends.
//!
//! A database is *away* if it cannot be reached or does not accept the connection. The outage is
//! over when a call of every stage that met it has succeeded again. So the log does not alternate
//! between the two states while only some stages can connect. An idle stage notices the loss of its
//! connection only at its next call, which may be after the end of the outage. Such a loss is no
//! new outage. The loss of a connection that was opened since, or has worked since, is one.
//!
//! A call is *refused* if the connection works and the server rejects the statement: a table is
//! locked, a privilege or a function is missing. A single row that another session has locked is
//! refused each second while all others are written. Therefore a refusal is over only once a call
//! of every stage that met it has succeeded, no call has met it for a while, and no outcome is set
//! aside because of it: a call that writes outcomes one by one succeeds although it meets the
//! refusal, and the waits between two tries grow.
//!
//! Why the end of a refusal is not logged at the first success: the log would get a beginning and
//! an end each second for as long as one row is locked.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::domain::failure::FailureKind;
use crate::domain::protocol::DatabaseAccess;
use crate::store::StoreError;
use crate::system::incident::Incident;
use crate::worker::stage::Stage;

/// The same refusal is logged once in this time, because every call may fail for minutes while a
/// table is locked.
const REPEAT_AFTER: Duration = Duration::from_mins(1);

/// A refusal is over when no call has met it for this time. It is longer than the wait of a stage
/// whose whole call was refused.
const CALM: Duration = Duration::from_secs(6);

/// A call that takes longer than this is stuck: the server ends a wait for a lock sooner, and a
/// claim takes milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The results of the calls, shared by the stages.
#[derive(Debug, Default)]
pub(super) struct Outage {
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    stages: [StageState; Stage::COUNT],
    away_since: Option<Instant>,
    last: Option<EndedOutage>,
    /// The refusals by the reason that the metric shows.
    refused: HashMap<&'static str, Refusal>,
    /// The reasons for which outcomes are set aside.
    set_aside: HashSet<&'static str>,
}

/// An outage that is over.
#[derive(Debug, Clone, Copy)]
struct EndedOutage {
    began: Instant,
    ended: Instant,
}

/// The state of one stage's calls.
#[derive(Debug, Default)]
struct StageState {
    succeeded_at: Option<Instant>,
    /// The stage has met the outage, and no call of it has succeeded since.
    is_cut_off: bool,
    /// What the stage's calls fail with, and since when none has succeeded.
    failing: Option<(FailureKind, Instant)>,
}

#[derive(Debug)]
struct Refusal {
    incident: Incident,
    last: Instant,
    /// By stage: it has met the refusal, and no call of it has succeeded since.
    is_met: [bool; Stage::COUNT],
}

impl Outage {
    /// Notes a failed call; `since` is when its connection was opened, or when the attempt to open
    /// one began.
    pub(super) fn failed(&self, stage: Stage, error: &StoreError, since: Instant) {
        let now = Instant::now();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.stages[stage as usize].fails(stage, error.failure_kind(), now);
        if error.is_connection_lost() || error.is_connecting() && error.is_transient() {
            calls.note_away(stage, error, since, now);
        } else if calls.note_refusal(stage, error.reason(), now) {
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

    /// Notes for which reasons outcomes are set aside: these refusals last, although every call
    /// succeeds.
    pub(super) fn set_aside(&self, reasons: HashSet<&'static str>) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.note_set_aside(reasons, Instant::now());
    }

    /// The access to the database as reports show it; `longest_call` is the age of the oldest call
    /// under way.
    pub(super) fn access(&self, longest_call: Duration) -> DatabaseAccess {
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
                    .map_or(DatabaseAccess::Untried, |_| DatabaseAccess::Granted);
            }
        };
        let for_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        DatabaseAccess::Failing {
            failure_kind,
            for_ms,
        }
    }
}

impl Calls {
    fn note_away(&mut self, stage: Stage, error: &StoreError, since: Instant, now: Instant) {
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

    /// Notes a refusal; says whether it is to be logged.
    fn note_refusal(&mut self, stage: Stage, reason: &'static str, now: Instant) -> bool {
        let refusal = self.refused.entry(reason).or_insert_with(|| Refusal {
            incident: Incident::repeated_after(REPEAT_AFTER),
            last: now,
            is_met: [false; Stage::COUNT],
        });
        refusal.last = now;
        refusal.is_met[stage as usize] = true;
        refusal.incident.met_at((), now)
    }

    /// Notes the refusals that last because outcomes are set aside.
    fn note_set_aside(&mut self, reasons: HashSet<&'static str>, now: Instant) {
        for reason in &reasons {
            if let Some(refusal) = self.refused.get_mut(reason) {
                refusal.last = now;
            }
        }
        self.set_aside = reasons;
    }

    /// Notes that a call of this stage has succeeded, and logs the end of an outage or a refusal.
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
            let is_over = !refusal.is_met.contains(&true)
                && !self.set_aside.contains(reason)
                && now.duration_since(refusal.last) >= CALM;
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
    /// Notes that a call has failed. Only a call of the fetcher shows that the table is locked or
    /// too slow: for the other stages it may be a single row, which delays no other.
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
    fn a_refusal_is_over_when_each_stage_that_met_it_succeeded_and_no_call_met_it_for_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut calls = Calls::default();

        assert!(calls.note_refusal(Stage::Fetcher, "timeout", at(0)));
        assert!(!calls.note_refusal(Stage::Fetcher, "timeout", at(30)));
        calls.look_for_ends(Stage::Keeper, at(50));
        assert!(
            calls.refused.contains_key("timeout"),
            "the fetcher still waits"
        );

        assert!(!calls.note_refusal(Stage::Fetcher, "timeout", at(55)));
        calls.look_for_ends(Stage::Fetcher, at(58));
        assert!(calls.refused.contains_key("timeout"), "it was met just now");
        calls.look_for_ends(Stage::Keeper, at(61));
        assert!(!calls.refused.contains_key("timeout"));
    }

    #[test]
    fn a_refusal_is_not_over_while_an_outcome_is_set_aside_because_of_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut calls = Calls::default();
        calls.note_refusal(Stage::Settler, "schema", at(0));
        calls.note_set_aside(HashSet::from(["schema"]), at(1));
        calls.look_for_ends(Stage::Settler, at(60));
        assert!(calls.refused.contains_key("schema"), "it is set aside");

        calls.note_set_aside(HashSet::from(["schema"]), at(61));
        calls.note_set_aside(HashSet::new(), at(62));
        calls.look_for_ends(Stage::Settler, at(63));
        assert!(calls.refused.contains_key("schema"), "it was met just now");
        calls.look_for_ends(Stage::Settler, at(67));
        assert!(!calls.refused.contains_key("schema"));
    }

    #[test]
    fn a_refusal_that_lasts_is_told_once_a_minute() {
        let start = Instant::now();
        let mut calls = Calls::default();

        let logged_at = (0..=180).filter(|&second| {
            calls.note_refusal(
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
        assert_eq!(outage.access(Duration::ZERO), DatabaseAccess::Granted);

        outage.failed(Stage::Fetcher, &slow, Instant::now());
        assert!(matches!(
            outage.access(Duration::ZERO),
            DatabaseAccess::Failing {
                failure_kind: FailureKind::TimedOut,
                ..
            }
        ));
    }

    #[test]
    fn a_call_that_is_out_for_long_is_a_failure_and_one_that_was_never_made_is_unknown() {
        let outage = Outage::default();
        assert_eq!(outage.access(Duration::ZERO), DatabaseAccess::Untried);
        assert!(matches!(
            outage.access(STUCK_AFTER),
            DatabaseAccess::Failing { .. }
        ));
        outage.succeeded(Stage::Fetcher);
        assert_eq!(
            outage.access(Duration::from_secs(3)),
            DatabaseAccess::Granted
        );
    }
}
