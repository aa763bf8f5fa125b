//! A batch of outcomes: what of it is sent to the database, and what the answer says about each.

use std::collections::{HashMap, HashSet};

use crate::domain::event::Outcome;
use crate::store::StoreError;
use crate::store::settle::{EventState, SettleResult, Settlement, Written};
use crate::worker::aside::bare;
use crate::worker::claim::Finished;

/// The outcomes of a batch that was written one by one, by their results.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Those about which the answer says whether they were written, and those that it leaves out.
    pub(super) known: Vec<Finished>,
    /// What the answer says about them.
    pub(super) written: Vec<Written>,
    /// Those that the database refuses.
    pub(super) refused: Vec<(Finished, StoreError)>,
    /// Those that have no result yet.
    pub(super) untried: Vec<Finished>,
}

/// The outcomes as they are written.
pub(super) fn settlements(batch: &[Finished]) -> Vec<Settlement> {
    let settlement = |finished: &Finished| Settlement {
        token: finished.lease.token,
        event_id: finished.event_id,
        outcome: if finished.is_bare {
            bare(&finished.outcome)
        } else {
            finished.outcome.clone()
        },
    };
    batch.iter().map(settlement).collect()
}

/// The leases that have no events left once this batch is written.
pub(super) fn ended_by(batch: &[Finished]) -> Vec<i64> {
    by_token(batch)
        .into_iter()
        .filter(|(_, part)| part.len() >= part[0].lease.open())
        .map(|(token, _)| token)
        .collect()
}

/// The outcomes by the lease that names their events.
pub(super) fn by_token(batch: &[Finished]) -> HashMap<i64, Vec<&Finished>> {
    let mut parts: HashMap<i64, Vec<&Finished>> = HashMap::new();
    for finished in batch {
        parts
            .entry(finished.lease.token)
            .or_default()
            .push(finished);
    }
    parts
}

/// Sorts the outcomes of a batch by the results of writing them one by one.
pub(super) fn answered(batch: Vec<Finished>, results: Vec<SettleResult>) -> Answered {
    let mut answered = Answered::default();
    let mut refused = HashMap::new();
    let mut untried = HashSet::new();
    for result in results {
        match result {
            SettleResult::Known(written) => answered.written.push(written),
            SettleResult::Refused { event_id, error } => drop(refused.insert(event_id, error)),
            SettleResult::Untried(event_id) => drop(untried.insert(event_id)),
        }
    }
    for finished in batch {
        if let Some(error) = refused.remove(&finished.event_id) {
            answered.refused.push((finished, error));
        } else if untried.contains(&finished.event_id) {
            answered.untried.push(finished);
        } else {
            answered.known.push(finished);
        }
    }
    answered
}

/// Finds out by the state of events in the table which of them were written by a call that had no
/// answer.
pub(super) fn written_before(doubted: &[&Finished], states: Vec<EventState>) -> Vec<i64> {
    let states: HashMap<i64, EventState> = states
        .into_iter()
        .map(|state| (state.event_id, state))
        .collect();
    let is_written = |finished: &&&Finished| {
        match (&finished.outcome, states.get(&finished.event_id)) {
            // A release writes nothing to the row. The event was given back if the lease no longer
            // names it.
            (Outcome::Released, _) => true,
            (outcome, Some(state)) => {
                state.status == outcome.name() && state.attempts == finished.attempt
            }
            (_, None) => false,
        }
    };
    doubted
        .iter()
        .filter(is_written)
        .map(|finished| finished.event_id)
        .collect()
}
