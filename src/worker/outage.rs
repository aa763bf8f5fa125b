//! What comes of a worker's database calls: what its reports say of it, and what the log is told when that begins, changes and ends.
//!
//! *Away* is a database that cannot be reached or does not take our connection. That is over when every stage that met it has got
//! through again: where only some can connect, the log does not go back and forth between the two. A connection that did not survive
//! it is no new one.
//!
//! *Refused* is a call on a working connection that the server turns down: a table is locked, a privilege or a function is missing.
//! One row that somebody holds is refused each second while all others are written, so that is over only once no call has met it for a
//! while.
//!
//! Why not say the end of a refusal at the first success: the log would tell a beginning and an end each second, for as long as
//! somebody holds one row.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::report::{Access, Trouble};
use crate::store::StoreError;
use crate::worker::pulse::Stage;

/// The same complaint about a working connection is logged once in this time: a locked table fails every call for minutes.
const REPEAT_AFTER: Duration = Duration::from_mins(1);

/// A refusal is over when nothing has met it for this time: longer than any stage waits before it tries again.
const CALM: Duration = Duration::from_secs(6);

/// A call that is out for longer is not slow but stuck: the server bounds a wait for a lock below this, and a claim takes milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Knows what the calls come to.
#[derive(Debug, Default)]
pub(super) struct Outage {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    stages: [Standing; 3],
    away_since: Option<Instant>,
    back_at: Option<Instant>,
    /// By the reason that the metric names.
    refused: HashMap<&'static str, Refusal>,
}

/// How one stage stands.
#[derive(Debug, Default)]
struct Standing {
    has_succeeded: bool,
    /// It has met the outage and not got through since.
    is_cut_off: bool,
    /// What its calls fail with, and since when none has got through.
    failing: Option<(Trouble, Instant)>,
}

#[derive(Debug)]
struct Refusal {
    since: Instant,
    last: Instant,
    told: Instant,
}

impl Outage {
    /// Notes a failed call; `since` is when its connection had been opened, or when it began to open one.
    pub(super) fn failed(&self, stage: Stage, error: &StoreError, since: Instant) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.stages[stage as usize].fails(stage, error.trouble(), now);
        if error.is_connection_lost() || error.is_connecting() && error.is_transient() {
            known.is_away(stage, error, since, now);
        } else {
            known.is_refused(error, now);
        }
    }

    /// Notes a successful call.
    pub(super) fn succeeded(&self, stage: Stage) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.stages[stage as usize] = Standing {
            has_succeeded: true,
            ..Standing::default()
        };
        known.look_for_ends(now);
    }

    /// What a report says of it; `longest_call` is how long the oldest call under way has been out.
    pub(super) fn access(&self, longest_call: Duration) -> Access {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = known
            .stages
            .iter()
            .filter_map(|stage| stage.failing)
            .min_by_key(|&(trouble, _)| trouble);
        let (trouble, since) = match failing {
            Some((trouble, since)) => (trouble, since.elapsed()),
            None if longest_call >= STUCK_AFTER => (Trouble::TimedOut, longest_call),
            None if known.stages[Stage::Fetcher as usize].has_succeeded => return Access::Granted,
            None => return Access::Untried,
        };
        let for_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Access::Failing { trouble, for_ms }
    }
}

impl Known {
    fn is_away(&mut self, stage: Stage, error: &StoreError, since: Instant, now: Instant) {
        if self.back_at.is_some_and(|back| since < back) {
            // Another stage's connection, or attempt at one, was lost in the outage that is over.
            debug!("the last outage still shows: {error}");
            return;
        }
        self.stages[stage as usize].is_cut_off = true;
        if self.away_since.is_none() {
            self.away_since = Some(now);
            warn!("database is away, trying until it is back: {error}");
        }
    }

    fn is_refused(&mut self, error: &StoreError, now: Instant) {
        if let Some(refusal) = self.refused.get_mut(error.reason()) {
            refusal.last = now;
            if now.duration_since(refusal.told) < REPEAT_AFTER {
                return;
            }
            refusal.told = now;
        } else {
            let refusal = Refusal {
                since: now,
                last: now,
                told: now,
            };
            self.refused.insert(error.reason(), refusal);
        }
        warn!("{error}; trying again");
    }

    fn look_for_ends(&mut self, now: Instant) {
        if let Some(since) = self.away_since
            && self.stages.iter().all(|stage| !stage.is_cut_off)
        {
            self.away_since = None;
            self.back_at = Some(now);
            info!(
                "database is back after {:.1} s",
                now.duration_since(since).as_secs_f64()
            );
        }
        self.refused.retain(|reason, refusal| {
            let is_over = now.duration_since(refusal.last) >= CALM;
            if is_over {
                info!(
                    "no call is refused any more ({reason}): it lasted {:.1} s",
                    refusal.last.duration_since(refusal.since).as_secs_f64()
                );
            }
            !is_over
        });
    }
}

impl Standing {
    /// Only the fetcher can tell that a table is locked, or too slow: for the others it may be a single row, which keeps nobody waiting
    /// but itself.
    fn fails(&mut self, stage: Stage, trouble: Trouble, now: Instant) {
        let is_about_all = match trouble {
            Trouble::Unavailable | Trouble::ReadOnly | Trouble::Schema => true,
            Trouble::PermissionDenied
            | Trouble::TableLocked
            | Trouble::TimedOut
            | Trouble::Refused => matches!(stage, Stage::Fetcher),
        };
        if is_about_all {
            let since = self.failing.map_or(now, |(_, since)| since);
            self.failing = Some((trouble, since));
        }
    }
}
