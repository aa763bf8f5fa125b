//! Whether the last quarter is like the first.

use crate::dev::bench::soak::quarter::{ProcessFigures, Quarter, TableFigures};

/// The least that the last quarter may deliver of what the first did.
const RATE_MIN: f64 = 0.95;

/// The least that the producers may commit of what they were to. Below it the machine was busy with
/// other things, and the rates of the quarters say nothing about the daemon.
const PRODUCERS_MIN: f64 = 0.98;

/// How much the mean backlog, and dead rows, may grow from the first quarter to the last: these
/// rise and fall with each snapshot and each vacuum.
const SWING: f64 = 1.25;

/// How much a process's memory may grow, beside [`MEMORY_SLACK`].
const MEMORY_GROWTH: f64 = 1.1;

/// Memory that a process may take more, in bytes: what an allocator does by chance.
const MEMORY_SLACK: f64 = 1024.0 * 1024.0;

/// Dead rows below this are not worth a word: autovacuum does not begin before.
const DEAD_ROWS_SLACK: f64 = 5000.0;

/// What is said of one figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) name: &'static str,
    pub(super) holds: bool,
}

/// Compares the last quarter with the first. `rate` is the rate of the producers.
pub(super) fn verdicts(quarters: &[Quarter; 4], rate: u32) -> Vec<Verdict> {
    let [first, .., last] = quarters;
    let verdict = |name, holds| Verdict { name, holds };
    let is_same = first.pids == last.pids;
    vec![
        verdict(
            "producers kept the rate",
            quarters
                .iter()
                .all(|quarter| quarter.committed >= f64::from(rate) * PRODUCERS_MIN),
        ),
        verdict(
            "backlog bounded",
            last.backlog.mean <= (first.backlog.mean * SWING).max(f64::from(rate)),
        ),
        verdict(
            "last quarter at least 0.95 of the first",
            last.delivered >= first.delivered * RATE_MIN,
        ),
        verdict(
            "memory flat",
            is_same
                && pairs(first, last).all(|(before, now)| {
                    now.resident_bytes.most
                        <= before.resident_bytes.most * MEMORY_GROWTH + MEMORY_SLACK
                }),
        ),
        verdict(
            "dead rows flat",
            is_flat(&first.events, &last.events) && is_flat(&first.leases, &last.leases),
        ),
        verdict(
            "descriptors flat",
            is_same
                && pairs(first, last)
                    .all(|(before, now)| now.descriptors.most <= before.descriptors.most),
        ),
    ]
}

fn pairs<'a>(
    first: &'a Quarter,
    last: &'a Quarter,
) -> impl Iterator<Item = (&'a ProcessFigures, &'a ProcessFigures)> {
    first.processes.iter().zip(&last.processes)
}

/// Says whether the dead rows of a table have not grown. Its size is no measure of that: a file
/// keeps the size of its worst minute, and each dead letter keeps a page of the primary key.
fn is_flat(first: &TableFigures, last: &TableFigures) -> bool {
    last.dead_rows.mean <= first.dead_rows.mean * SWING + DEAD_ROWS_SLACK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::bench::soak::quarter::Spread;

    fn spread(figure: f64) -> Spread {
        Spread {
            mean: figure,
            most: figure,
        }
    }

    fn quarter() -> Quarter {
        let table = TableFigures {
            dead_rows: spread(100_000.0),
            bytes: spread(5e7),
            index_bytes: spread(5e7),
        };
        Quarter {
            committed: 5000.0,
            delivered: 5000.0,
            backlog: spread(300.0),
            processes: vec![
                ProcessFigures {
                    resident_bytes: spread(1e7),
                    descriptors: spread(20.0),
                };
                3
            ],
            pids: vec![1, 2, 3],
            events: table,
            leases: table,
            ..Quarter::default()
        }
    }

    fn broken(change: impl Fn(&mut Quarter)) -> Vec<&'static str> {
        let mut quarters = [quarter(), quarter(), quarter(), quarter()];
        change(&mut quarters[3]);
        let found = verdicts(&quarters, 5000);
        found
            .into_iter()
            .filter(|verdict| !verdict.holds)
            .map(|verdict| verdict.name)
            .collect()
    }

    #[test]
    fn a_last_quarter_like_the_first_breaks_nothing() {
        assert!(broken(|_| ()).is_empty());
        assert!(broken(|last| last.delivered = 4750.0).is_empty());
        assert!(broken(|last| last.backlog = spread(5000.0)).is_empty());
    }

    #[test]
    fn whatever_grows_or_slows_down_is_told() {
        assert_eq!(
            broken(|last| last.delivered = 4749.0),
            ["last quarter at least 0.95 of the first"]
        );
        assert_eq!(
            broken(|last| last.committed = 4899.0),
            ["producers kept the rate"]
        );
        assert_eq!(
            broken(|last| last.backlog = spread(5001.0)),
            ["backlog bounded"]
        );
        assert_eq!(
            broken(|last| last.processes[2].resident_bytes = spread(1.3e7)),
            ["memory flat"]
        );
        assert_eq!(
            broken(|last| last.processes[0].descriptors = spread(21.0)),
            ["descriptors flat"]
        );
        assert_eq!(
            broken(|last| last.leases.dead_rows = spread(150_000.0)),
            ["dead rows flat"]
        );
        assert_eq!(
            broken(|last| last.events.dead_rows = spread(150_000.0)),
            ["dead rows flat"]
        );
    }

    #[test]
    fn a_replaced_worker_has_no_flat_memory() {
        assert_eq!(
            broken(|last| last.pids[2] = 4),
            ["memory flat", "descriptors flat"]
        );
    }
}
