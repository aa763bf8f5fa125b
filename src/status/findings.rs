//! What the looks at the database have found so far, and which of it is reported. Pure.

use std::time::Instant;

use crate::domain::failure::FailureKind;
use crate::status::readiness::FAILING_MIN;
use crate::status::state::Finding;

/// The findings of the looks up to now.
///
/// A database that cannot be reached is reported at once. A refusal on a working connection, such
/// as a locked table, is reported only when it has lasted as long as a worker's failure has to.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// There was a look.
    has_looked: bool,
    /// The finding that is reported.
    reported: Option<Finding>,
    /// Since when looks find a failure.
    since: Option<Instant>,
}

impl Findings {
    /// Takes in the finding of a look that began and ended at these times.
    pub(super) fn found(&mut self, finding: Option<Finding>, began: Instant, ended: Instant) {
        if finding.is_none() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(began);
        }
        let has_lasted = self
            .since
            .is_none_or(|since| ended.duration_since(since) >= FAILING_MIN);
        let is_away = finding.as_ref().is_some_and(Finding::is_away);
        let is_new = self.has_looked && self.reported.is_none() && !is_away;
        self.has_looked = true;
        self.reported = finding.filter(|_| has_lasted || !is_new);
    }

    /// Takes in that a look is not answered in time.
    pub(super) fn late(&mut self) {
        self.has_looked = true;
        self.reported = Some(Finding {
            failure_kind: FailureKind::Unavailable,
            detail: "no answer in time".to_owned(),
        });
    }

    /// The finding to report.
    pub(super) fn reported(&self) -> Option<&Finding> {
        self.reported.as_ref()
    }

    /// Since when looks find a failure; `None` if the last look found none.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Says whether a look has found a failure that is reported only if it lasts.
    pub(super) fn is_open(&self) -> bool {
        self.since.is_some() && self.reported.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Compares the failures that are reported after looks at these seconds.
    #[track_caller]
    fn check(looks: &[(u64, Option<FailureKind>)], reported: &[Option<FailureKind>]) {
        let start = Instant::now();
        let mut findings = Findings::default();
        let finding = |failure_kind| Finding {
            failure_kind,
            detail: String::new(),
        };
        let after: Vec<Option<FailureKind>> = looks
            .iter()
            .map(|&(second, failure_kind)| {
                let at = start + Duration::from_secs(second);
                findings.found(failure_kind.map(finding), at, at);
                findings.reported().map(|reported| reported.failure_kind)
            })
            .collect();
        assert_eq!(after, reported, "{looks:?}");
    }

    #[test]
    fn a_refusal_is_told_when_it_has_lasted_and_its_end_at_once() {
        let locked = Some(FailureKind::TableLocked);
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
        let away = Some(FailureKind::Unavailable);
        check(&[(0, None), (1, away), (2, None)], &[None, away, None]);
    }

    #[test]
    fn a_first_look_and_another_failure_kind_are_told_at_once() {
        let (locked, schema) = (Some(FailureKind::TableLocked), Some(FailureKind::Schema));
        check(&[(0, locked), (1, schema)], &[locked, schema]);
    }
}
