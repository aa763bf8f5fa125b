//! The laws, checked on what was recorded. Pure: from evidence to verdicts.
//!
//! A run is known by its event, its attempt and its worker, so a run too many is not merely
//! counted: it must follow from a fault that hit the worker of one of the two runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::dev::chaos::history::{Entry, What};
use crate::dev::chaos::kind::{Fate, Kind};
use crate::dev::chaos::runs::{Extra, Runs};

/// Name of the law that each crash costs an attempt.
pub(super) const CHARGED: &str = "charged";

/// Outcomes that a worker may have finished and not yet settled.
const UNSETTLED_MAX: usize = 500;

/// Events that a worker may have claimed: what one claim takes, and what waits to be settled.
const CLAIMED_MAX: usize = 1000;

/// The most examples that are kept of each broken law.
const EXAMPLES_MAX: usize = 3;

/// What faults did to a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hit {
    /// It was killed.
    pub(super) is_killed: bool,
    /// It was frozen for longer than its leases.
    pub(super) is_frozen: bool,
    /// The record of what it had in hand is gone.
    pub(super) is_lost: bool,
}

/// One row of the table at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: i64,
    /// `None` for an event of another origin, which no run is about.
    pub(super) kind: Option<Kind>,
    pub(super) status: String,
    pub(super) attempts: u32,
}

/// Everything that was recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// The lines of the handlers, in their order.
    pub(super) entries: Vec<Entry>,
    /// The table.
    pub(super) rows: Vec<Row>,
    /// Events whose commit was answered.
    pub(super) committed: Vec<i64>,
    /// Events whose transaction was rolled back.
    pub(super) rolled_back: Vec<i64>,
    /// The workers that a fault has hit, by process id.
    pub(super) hit: BTreeMap<u32, Hit>,
    /// Runners of a worker.
    pub(super) max_parallel: usize,
    /// Leases in the table.
    pub(super) leases: usize,
    /// Processes and files that outlived the daemons.
    pub(super) left: Vec<String>,
    /// How daemons ended that should have ended well.
    pub(super) bad_ends: Vec<String>,
}

/// One law, and whether it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Law {
    /// Its name.
    pub(super) name: &'static str,
    /// What it says.
    pub(super) text: &'static str,
    /// What was found, in numbers.
    pub(super) found: String,
    /// How often it was broken.
    pub(super) n_broken: usize,
    /// Some of the cases.
    pub(super) examples: Vec<String>,
}

impl Law {
    fn new(name: &'static str, text: &'static str) -> Law {
        Law {
            name,
            text,
            found: String::new(),
            n_broken: 0,
            examples: Vec::new(),
        }
    }

    fn broken(&mut self, example: String) {
        self.n_broken += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example);
        }
    }

    fn found(mut self, found: String) -> Law {
        self.found = found;
        self
    }
}

impl Evidence {
    /// Adds the workers that a poison event has killed to those that a fault has hit.
    pub(super) fn note_crashes(&mut self) {
        let poisoned: BTreeSet<i64> = self
            .rows
            .iter()
            .filter(|row| row.kind == Some(Kind::Poison))
            .map(|row| row.id)
            .collect();
        for entry in &self.entries {
            if entry.what == What::Begun && poisoned.contains(&entry.id) {
                self.hit.entry(entry.worker).or_default().is_killed = true;
            }
        }
    }

    /// Checks all laws.
    pub(super) fn check(&self) -> Vec<Law> {
        let runs = Runs::of(&self.entries);
        vec![
            self.lost(&runs),
            self.rolled_back(&runs),
            self.fate(),
            self.attempts(),
            self.fenced(&runs),
            self.charged(&runs),
            self.spared(&runs),
            self.duplicates(&runs),
            self.left(),
        ]
    }

    fn lost(&self, runs: &Runs) -> Law {
        let mut law = Law::new("lost", "every committed event is run, and ends");
        let ids: BTreeSet<i64> = self.rows.iter().map(|row| row.id).collect();
        for id in self.committed.iter().filter(|id| !ids.contains(id)) {
            law.broken(format!("event {id} was committed and is not in the table"));
        }
        for row in &self.rows {
            if !matches!(row.status.as_str(), "done" | "dead") {
                law.broken(format!(
                    "event {} is {} after {} attempts",
                    row.id, row.status, row.attempts
                ));
            } else if !runs.has_begun(row.id) {
                law.broken(format!(
                    "event {} is {} and was never run",
                    row.id, row.status
                ));
            }
        }
        let n = law.n_broken;
        law.found(format!("{n} of {}", self.rows.len()))
    }

    fn rolled_back(&self, runs: &Runs) -> Law {
        let mut law = Law::new("rolled back", "no event is seen that was not committed");
        let ids: BTreeSet<i64> = self.rows.iter().map(|row| row.id).collect();
        for id in runs.ids().filter(|id| !ids.contains(id)) {
            law.broken(format!("event {id} was run and is not in the table"));
        }
        for id in self.rolled_back.iter().filter(|id| ids.contains(id)) {
            law.broken(format!("event {id} was rolled back and is in the table"));
        }
        let n = law.n_broken;
        law.found(format!("{n} of {}", self.rolled_back.len()))
    }

    fn fate(&self) -> Law {
        let mut law = Law::new(
            "fate",
            "exactly the refused, hopeless and poison events are dead",
        );
        let mut n_dead = 0;
        for row in &self.rows {
            let Some(kind) = row.kind else { continue };
            let due = if kind.fate() == Fate::Done {
                "done"
            } else {
                "dead"
            };
            let has_ended = matches!(row.status.as_str(), "done" | "dead");
            n_dead += usize::from(row.status == "dead");
            if has_ended && row.status != due {
                law.broken(format!(
                    "event {} ({}) is {} after {} attempts",
                    row.id,
                    kind.event_type(),
                    row.status,
                    row.attempts
                ));
            }
        }
        law.found(format!("{n_dead} dead"))
    }

    fn attempts(&self) -> Law {
        let mut law = Law::new("attempts", "never above the maximum");
        let mut kinds = BTreeMap::new();
        let mut most = 0;
        for row in &self.rows {
            let Some(kind) = row.kind else { continue };
            kinds.insert(row.id, kind);
            if kind.fate() != Fate::Exhausted {
                most = most.max(row.attempts);
            }
            if row.attempts > kind.attempts_max() {
                law.broken(format!("event {} has {} attempts", row.id, row.attempts));
            }
        }
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.what == What::Begun)
        {
            if kinds
                .get(&entry.id)
                .is_some_and(|kind| entry.attempt > kind.attempts_max())
            {
                law.broken(format!(
                    "event {} was run as attempt {}",
                    entry.id, entry.attempt
                ));
            }
        }
        law.found(format!("{most} at most where one succeeds"))
    }

    /// An outcome that was written under a lost lease counts an attempt that no run was.
    fn fenced(&self, runs: &Runs) -> Law {
        let mut law = Law::new(
            "fenced",
            "an event ends by its last attempt, and by no stale one",
        );
        let mut n = 0;
        for row in &self.rows {
            let Some(kind) = row.kind else { continue };
            let ends = match (row.status.as_str(), kind.fate()) {
                ("done", Fate::Done) => runs.verdict(row.id, row.attempts) == Some(What::Done),
                ("dead", Fate::Refused) => {
                    runs.verdict(row.id, row.attempts) == Some(What::Refused)
                }
                ("dead", Fate::Exhausted) => row.attempts == kind.attempts_max(),
                _ => continue,
            };
            n += 1;
            if !ends {
                law.broken(format!(
                    "event {} ({}) is {} with {} attempts, and {}",
                    row.id,
                    kind.event_type(),
                    row.status,
                    row.attempts,
                    runs.told(row.id)
                ));
            }
        }
        let broken = law.n_broken;
        law.found(format!("{broken} of {n} ends stale"))
    }

    fn charged(&self, runs: &Runs) -> Law {
        let mut law = Law::new(CHARGED, "what a dead worker had in hand costs an attempt");
        let is_dead = |worker: &u32| self.hit.get(worker).is_some_and(|hit| hit.is_killed);
        let was_frozen = |worker: &u32| self.hit.get(worker).is_some_and(|hit| hit.is_frozen);
        let mut n = 0;
        for (id, attempt, workers) in runs.unended() {
            n += workers.iter().filter(|worker| is_dead(worker)).count();
            let Some(first) = workers.iter().position(is_dead) else {
                continue;
            };
            for again in runs.begun_after(id, attempt, workers[first]) {
                if !was_frozen(&again) {
                    law.broken(format!(
                        "event {id}: worker {} died in attempt {attempt}, and worker {again} ran it again under the same number",
                        workers[first]
                    ));
                }
            }
        }
        law.found(format!("{n} runs cut off"))
    }

    fn spared(&self, runs: &Runs) -> Law {
        let mut law = Law::new("spared", "what no dead or frozen worker held costs none");
        let (mut n_in_hand, mut n_claimed) = (0, 0);
        for row in &self.rows {
            for attempt in 1..=row.attempts {
                if runs.verdict(row.id, attempt).is_some() {
                    continue;
                }
                let workers = runs.workers(row.id, attempt);
                if workers.is_empty() {
                    n_claimed += 1;
                } else if workers.iter().any(|worker| self.hit.contains_key(worker)) {
                    n_in_hand += 1;
                } else {
                    law.broken(format!(
                        "attempt {attempt} of event {} was charged, and worker {} lives",
                        row.id, workers[0]
                    ));
                }
            }
        }
        // Between the note of what is in hand and the record of the run a worker may die; what a
        // lost or frozen worker had claimed is charged whole.
        let claimed_max: usize = self
            .hit
            .values()
            .map(|hit| match hit {
                Hit {
                    is_frozen: true, ..
                }
                | Hit { is_lost: true, .. } => CLAIMED_MAX,
                Hit {
                    is_killed: true, ..
                } => self.max_parallel,
                Hit { .. } => 0,
            })
            .sum();
        if n_claimed > claimed_max {
            law.broken(format!(
                "{n_claimed} attempts without a run, at most {claimed_max} by the faults"
            ));
        }
        law.found(format!("{n_in_hand} charged in hand, {n_claimed} claimed"))
    }

    fn duplicates(&self, runs: &Runs) -> Law {
        let mut law = Law::new(
            "duplicates",
            "a run too many follows from a killed or frozen worker",
        );
        let mut by_worker: BTreeMap<u32, usize> = BTreeMap::new();
        for extra in runs.extra() {
            let Extra {
                id,
                attempt,
                worker,
                after,
            } = extra;
            match after.iter().chain([worker]).find(|worker| self.hit.contains_key(worker)) {
                Some(&culprit) => *by_worker.entry(culprit).or_default() += 1,
                None => law.broken(format!(
                    "worker {worker} ran attempt {attempt} of event {id} after workers {after:?}, and no fault hit them"
                )),
            }
        }
        let most = self.max_parallel + UNSETTLED_MAX;
        for (worker, n) in by_worker.iter().filter(|(_, n)| **n > most) {
            law.broken(format!(
                "{n} follow from worker {worker}, at most {most} may"
            ));
        }
        law.found(format!(
            "{} of {} runs, from {} of {} hit workers",
            runs.extra().len(),
            runs.n_begun(),
            by_worker.len(),
            self.hit.len()
        ))
    }

    fn left(&self) -> Law {
        let mut law = Law::new(
            "left",
            "daemons end well, and no lease, process or file is left",
        );
        for end in &self.bad_ends {
            law.broken(end.clone());
        }
        if self.leases > 0 {
            law.broken(format!("{} leases", self.leases));
        }
        for left in &self.left {
            law.broken(left.clone());
        }
        let found = format!("{} leases, {} else", self.leases, self.left.len());
        law.found(found)
    }
}

#[cfg(test)]
mod tests;
