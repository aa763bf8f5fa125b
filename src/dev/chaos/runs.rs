//! The recorded runs, by event and attempt.

use std::collections::{BTreeMap, BTreeSet};

use crate::dev::chaos::history::{Entry, What};

/// A run beyond those that an undisturbed daemon would have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) id: i64,
    pub(super) attempt: u32,
    pub(super) worker: u32,
    /// The workers whose runs should have made it unnecessary.
    pub(super) after: Vec<u32>,
}

/// The runs of one attempt of one event.
#[derive(Debug, Clone, Default)]
struct Attempt {
    /// Workers that have begun it, in their order.
    begun: Vec<u32>,
    /// Workers that have begun it and told no verdict.
    unended: Vec<u32>,
    /// The last verdict on it.
    verdict: Option<What>,
}

/// All recorded runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    attempts: BTreeMap<(i64, u32), Attempt>,
    extra: Vec<Extra>,
    n_begun: usize,
}

impl Runs {
    /// Arranges the lines.
    pub(super) fn of(entries: &[Entry]) -> Runs {
        let mut runs = Runs::default();
        // The workers that have told a final verdict, by event.
        let mut final_by: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for &Entry {
            id,
            attempt,
            worker,
            what,
        } in entries
        {
            if what == What::Begun {
                let mut after: BTreeSet<u32> = runs
                    .attempts
                    .range((id, attempt)..=(id, u32::MAX))
                    .flat_map(|(_, other)| other.begun.iter().copied())
                    .collect();
                after.extend(final_by.get(&id).into_iter().flatten());
                if !after.is_empty() {
                    let after = after.into_iter().collect();
                    runs.extra.push(Extra {
                        id,
                        attempt,
                        worker,
                        after,
                    });
                }
                runs.n_begun += 1;
            }
            let found = runs.attempts.entry((id, attempt)).or_default();
            match what {
                What::Begun => {
                    found.begun.push(worker);
                    found.unended.push(worker);
                }
                What::Done | What::Refused | What::Failed => {
                    found.unended.retain(|&other| other != worker);
                    found.verdict = found
                        .verdict
                        .filter(|it| *it != What::Failed)
                        .or(Some(what));
                    if what != What::Failed {
                        final_by.entry(id).or_default().push(worker);
                    }
                }
            }
        }
        runs
    }

    /// Runs that have begun.
    pub(super) fn n_begun(&self) -> usize {
        self.n_begun
    }

    /// Runs beyond those of an undisturbed daemon: of an attempt that had begun already, or after a
    /// later one, or after a run had ended the event.
    pub(super) fn extra(&self) -> &[Extra] {
        &self.extra
    }

    /// The events that were run.
    pub(super) fn ids(&self) -> impl Iterator<Item = i64> {
        let mut ids: Vec<i64> = self.attempts.keys().map(|key| key.0).collect();
        ids.dedup();
        ids.into_iter()
    }

    /// Says whether the event was run.
    pub(super) fn has_begun(&self, id: i64) -> bool {
        self.of_event(id).next().is_some()
    }

    /// The verdict of a run of this attempt.
    pub(super) fn verdict(&self, id: i64, attempt: u32) -> Option<What> {
        self.attempts.get(&(id, attempt))?.verdict
    }

    /// The workers that have begun this attempt.
    pub(super) fn workers(&self, id: i64, attempt: u32) -> &[u32] {
        self.attempts
            .get(&(id, attempt))
            .map_or(&[], |found| &found.begun)
    }

    /// The attempts that workers have begun without a verdict.
    pub(super) fn unended(&self) -> impl Iterator<Item = (i64, u32, &[u32])> {
        self.attempts
            .iter()
            .filter(|(_, found)| !found.unended.is_empty())
            .map(|(&(id, attempt), found)| (id, attempt, found.unended.as_slice()))
    }

    /// The workers that have begun this attempt after that worker had.
    pub(super) fn begun_after(&self, id: i64, attempt: u32, worker: u32) -> Vec<u32> {
        let begun = self.workers(id, attempt);
        let at = begun.iter().position(|&other| other == worker);
        at.map_or_else(Vec::new, |at| begun[at + 1..].to_vec())
    }

    /// The runs of an event in words.
    pub(super) fn told(&self, id: i64) -> String {
        let attempts: Vec<String> = self
            .of_event(id)
            .map(|(attempt, found)| {
                let what = match found.verdict {
                    Some(What::Done) => "done",
                    Some(What::Failed) => "failed",
                    Some(What::Refused) => "refused",
                    Some(What::Begun) | None => "cut off",
                };
                format!("attempt {attempt} {what} by {:?}", found.begun)
            })
            .collect();
        attempts.join(", ")
    }

    fn of_event(&self, id: i64) -> impl Iterator<Item = (u32, &Attempt)> {
        self.attempts
            .range((id, 0)..=(id, u32::MAX))
            .map(|(&(_, attempt), found)| (attempt, found))
    }
}
