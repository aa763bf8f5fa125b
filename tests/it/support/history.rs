//! The runs of handlers, compared with those that should have happened.

use std::collections::BTreeMap;

/// The runs of handlers in their order: (event id, attempt).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    runs: Vec<(i64, u32)>,
}

impl History {
    /// Takes the runs in their order.
    pub fn new(runs: impl IntoIterator<Item = (i64, u32)>) -> History {
        History {
            runs: runs.into_iter().collect(),
        }
    }

    /// Reads the lines `id attempt`.
    pub fn parse(text: &str) -> History {
        History::new(text.lines().map(|line| {
            let (id, attempt) = line.split_once(' ').expect("a line is `id attempt`");
            (id.parse().unwrap(), attempt.parse().unwrap())
        }))
    }

    /// All runs in their order.
    pub fn runs(&self) -> &[(i64, u32)] {
        &self.runs
    }

    /// Number of runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Runs per event.
    pub fn counts(&self) -> BTreeMap<i64, usize> {
        let mut counts = BTreeMap::new();
        for &(id, _) in &self.runs {
            *counts.entry(id).or_default() += 1;
        }
        counts
    }

    /// Runs of one event.
    pub fn count(&self, id: i64) -> usize {
        self.runs.iter().filter(|run| run.0 == id).count()
    }

    /// Which of the events were never handled.
    pub fn lost(&self, ids: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let counts = self.counts();
        ids.into_iter()
            .filter(|id| !counts.contains_key(id))
            .collect()
    }

    /// Runs beyond the first of the same attempt of the same event; 0 as long as there is no fault.
    pub fn duplicates(&self) -> usize {
        let mut attempts = self.runs.clone();
        attempts.sort_unstable();
        attempts.dedup();
        self.runs.len() - attempts.len()
    }

    /// Fails unless every event was handled and at most `duplicates_max` runs were duplicates.
    #[track_caller]
    pub fn assert_complete(&self, ids: impl IntoIterator<Item = i64>, duplicates_max: usize) {
        let lost = self.lost(ids);
        assert!(lost.is_empty(), "never handled: {lost:?}");
        let duplicates = self.duplicates();
        assert!(
            duplicates <= duplicates_max,
            "{duplicates} duplicate runs, at most {duplicates_max} are allowed"
        );
    }
}
