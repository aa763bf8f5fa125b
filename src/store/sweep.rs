//! Sweeping: an attempt is charged to the events of a lease whose worker is gone.
//!
//! Two sweepers do that. A worker's sweeper ends the expired leases of lost hosts and charges all
//! their events; the supervisor's ends the leases of a worker that died while its host lives, and
//! charges what was in hand. They differ in what they charge, in how long they wait and in what
//! they log. What a charge is stands here, and how charges are written one by one, so that a row
//! that is locked, refused or slow delays no other. A charged attempt comes to what any failed
//! attempt comes to ([`RetryPolicy::failed`]).

use std::collections::HashSet;
use std::slice;

use crate::domain::event::{Outcome, dead_letter_message};
use crate::domain::retry::RetryPolicy;
use crate::store::claim::attempts;
use crate::store::error::StoreError;
use crate::store::lease::Lease;
use crate::store::session::Session;
use crate::store::settle::{EACH_MAX, SettleBatch, SettleResult, Settlement, Written};
use crate::store::text::Text;

/// What a sweep has to know of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBrief {
    /// The id of the event.
    pub event_id: i64,
    /// Chooses the route, and so the retry policy.
    pub event_type: String,
    /// Attempts counted so far.
    pub attempts: u32,
    /// The column as it stands.
    pub status: String,
}

impl EventBrief {
    /// Says whether the event is neither done nor dead.
    pub fn is_waiting(&self) -> bool {
        matches!(self.status.as_str(), "pending" | "retry")
    }

    /// The attempt that a lost worker is charged for this event, by the retry policy of its route.
    pub fn charge(self, token: i64, policy: &RetryPolicy, reason: &str, random: f64) -> Charge {
        let attempt = self.attempts.saturating_add(1);
        Charge {
            event_type: self.event_type,
            attempt,
            settlement: Settlement {
                token,
                event_id: self.event_id,
                outcome: policy.failed(attempt, reason, None, random),
            },
        }
    }
}

/// An attempt that is charged for an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// Chooses the route.
    pub event_type: String,
    /// The number of the attempt.
    pub attempt: u32,
    /// What the attempt comes to.
    pub settlement: Settlement,
}

impl Charge {
    /// The log message if the attempt was the last one of its event.
    pub fn dead_letter(&self) -> Option<String> {
        match &self.settlement.outcome {
            Outcome::Dead { reason } => Some(dead_letter_message(
                self.settlement.event_id,
                self.attempt,
                reason,
            )),
            Outcome::Done | Outcome::Retry { .. } | Outcome::Released => None,
        }
    }
}

impl Lease {
    /// The batch that writes these outcomes in the name of the lease's worker; `is_ended`: the
    /// lease ends with it, `is_expired`: only if the lease is over.
    pub fn batch<'a>(
        &'a self,
        outcomes: &'a [Settlement],
        is_ended: bool,
        is_expired: bool,
    ) -> SettleBatch<'a> {
        SettleBatch {
            worker: &self.worker,
            outcomes,
            ended: if is_ended {
                slice::from_ref(&self.token)
            } else {
                &[]
            },
            expired: is_expired,
        }
    }
}

/// The result of charges that were written one by one.
#[derive(Debug, Default)]
pub struct Swept<'a> {
    /// Those that were written.
    pub written: Vec<&'a Charge>,
    /// The events that the database does not take now, with the reason. The lease still names them.
    pub refused: Vec<(i64, StoreError)>,
    /// The last call that failed; its charges were not written, nor were those behind it where the
    /// connection was lost.
    pub failed: Option<StoreError>,
}

impl Swept<'_> {
    /// The number of events whose rows, or whose lease, another session has locked.
    pub fn n_locked(&self) -> usize {
        let errors = self.refused.iter().map(|(_, error)| error);
        errors.filter(|error| error.is_lock_timeout()).count()
    }
}

/// Writes charges one by one, a few in each call of `write`, for as long as `may_go_on`. `write` is
/// told whether nothing of the lease is left behind its charges, so that the lease may end.
pub fn charge_each(
    charges: &[Charge],
    may_go_on: impl Fn(&Swept<'_>) -> bool,
    mut write: impl FnMut(&[Settlement], bool) -> Result<Vec<SettleResult>, StoreError>,
) -> Swept<'_> {
    let mut swept = Swept::default();
    let mut rest: Vec<&Charge> = charges.iter().collect();
    let mut part_max = EACH_MAX;
    while !rest.is_empty() && may_go_on(&swept) {
        let later = rest.split_off(rest.len().min(part_max));
        let part = std::mem::replace(&mut rest, later);
        let outcomes: Vec<Settlement> = part.iter().map(|one| one.settlement.clone()).collect();
        let is_last = rest.is_empty() && swept.refused.is_empty() && swept.failed.is_none();
        let results = match write(&outcomes, is_last) {
            Ok(results) => results,
            Err(error) if error.is_connection_lost() => {
                swept.failed = Some(error);
                break;
            }
            // One row may have failed all the others with it.
            Err(_) if part.len() > 1 => {
                part_max = 1;
                rest.splice(0..0, part);
                continue;
            }
            Err(error) => {
                swept.failed = Some(error);
                continue;
            }
        };
        let mut answered = Vec::new();
        let mut untried = HashSet::new();
        for result in results {
            match result {
                SettleResult::Known(written) if written.kept => {
                    let error = StoreError::kept("charge an attempt");
                    swept.refused.push((written.event_id, error));
                }
                SettleResult::Known(written) => answered.push(written),
                SettleResult::Refused { event_id, error } => swept.refused.push((event_id, error)),
                SettleResult::Untried(event_id) => drop(untried.insert(event_id)),
            }
        }
        let is_untried = |one: &&&Charge| untried.contains(&one.settlement.event_id);
        rest.extend(part.iter().filter(is_untried));
        swept.written.extend(written(part, &answered));
    }
    swept
}

/// The charges that an answer says were written.
pub fn written<'a>(
    charges: impl IntoIterator<Item = &'a Charge>,
    answer: &[Written],
) -> Vec<&'a Charge> {
    let stands: HashSet<i64> = answer
        .iter()
        .filter(|written| written.written)
        .map(|written| written.event_id)
        .collect();
    let charges = charges.into_iter();
    charges
        .filter(|one| stands.contains(&one.settlement.event_id))
        .collect()
}

impl Session {
    /// Reads what a sweep has to know of events; events that are gone are left out.
    pub fn events_brief(&mut self, ids: &[i64]) -> Result<Vec<EventBrief>, StoreError> {
        self.query(
            "read the events of a lease",
            include_str!("../../sql/events_brief.sql"),
            &[&ids],
            |row| {
                Ok(EventBrief {
                    event_id: row.try_get(0)?,
                    event_type: row.try_get::<_, Text>(1)?.into(),
                    attempts: attempts(row.try_get(2)?),
                    status: row.try_get::<_, Text>(3)?.into(),
                })
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charges(n: usize) -> Vec<Charge> {
        let charge = |event_id| Charge {
            event_type: "order.created".to_owned(),
            attempt: 1,
            settlement: Settlement {
                token: 7,
                event_id,
                outcome: Outcome::dead("gone"),
            },
        };
        (1..).take(n).map(charge).collect()
    }

    fn known(event_id: i64) -> SettleResult {
        SettleResult::Known(Written {
            event_id,
            written: true,
            kept: false,
        })
    }

    fn locked(event_id: i64) -> SettleResult {
        let error = StoreError::of_row("settle events", "55P03", "locked".to_owned());
        SettleResult::Refused { event_id, error }
    }

    #[test]
    fn what_had_no_turn_is_written_by_a_later_call() {
        let charges = charges(3);
        let mut calls = Vec::new();
        let swept = charge_each(
            &charges,
            |_| true,
            |outcomes, _| {
                let ids: Vec<i64> = outcomes.iter().map(|one| one.event_id).collect();
                calls.push(ids.clone());
                let untried = ids[1..].iter().map(|&id| SettleResult::Untried(id));
                Ok([known(ids[0])].into_iter().chain(untried).collect())
            },
        );

        assert_eq!(calls, [vec![1, 2, 3], vec![2, 3], vec![3]]);
        assert_eq!(swept.written, charges.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_lease_may_end_only_with_the_last_call_and_if_nothing_was_refused() {
        let charges = charges(EACH_MAX + 1);
        let may_end = |first: fn(i64) -> SettleResult| {
            let mut may_end = Vec::new();
            let swept = charge_each(
                &charges,
                |_| true,
                |outcomes, is_last| {
                    may_end.push(is_last);
                    let id = outcomes[0].event_id;
                    let others = outcomes[1..].iter().map(|one| known(one.event_id));
                    Ok([first(id)].into_iter().chain(others).collect())
                },
            );
            (may_end, swept.n_locked())
        };

        assert_eq!(may_end(known), (vec![false, true], 0));
        assert_eq!(may_end(locked), (vec![false, false], 2));
    }

    #[test]
    fn what_was_written_before_a_failed_call_is_known() {
        let charges = charges(EACH_MAX + 1);
        let mut n_calls = 0;
        let swept = charge_each(
            &charges,
            |_| true,
            |outcomes, _| {
                n_calls += 1;
                if n_calls == 2 {
                    return Err(StoreError::unavailable("settle events", "gone".to_owned()));
                }
                Ok(outcomes.iter().map(|one| known(one.event_id)).collect())
            },
        );

        assert_eq!(swept.written.len(), EACH_MAX);
        assert!(swept.failed.is_some());
    }

    #[test]
    fn a_row_that_fails_its_call_keeps_no_other_from_being_charged() {
        let charges = charges(EACH_MAX + 1);
        let mut may_end = Vec::new();
        let swept = charge_each(
            &charges,
            |_| true,
            |outcomes, is_last| {
                may_end.push(is_last);
                if outcomes.iter().any(|one| one.event_id == 3) {
                    let error = StoreError::of_row("settle events", "53100", "full".to_owned());
                    return Err(error);
                }
                Ok(outcomes.iter().map(|one| known(one.event_id)).collect())
            },
        );

        assert_eq!(swept.written.len(), EACH_MAX);
        assert!(swept.failed.is_some());
        assert!(!may_end.contains(&true));
    }
}
