//! The figures of a quarter of the time.

use crate::dev::bench::soak::sample::{ProcessSample, Sample, TableSample, float};

/// What a figure came to over the looks of a quarter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) most: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64> + Clone) -> Spread {
        let n = figures.clone().count().max(1);
        Spread {
            mean: figures.clone().sum::<f64>() / float(n as u64),
            most: figures.fold(0.0, f64::max),
        }
    }
}

/// One process in a quarter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ProcessFigures {
    pub(super) resident_bytes: Spread,
    pub(super) descriptors: Spread,
}

/// One table in a quarter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct TableFigures {
    pub(super) dead_rows: Spread,
    pub(super) bytes: Spread,
    pub(super) index_bytes: Spread,
}

/// A quarter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Quarter {
    /// Events a second.
    pub(super) committed: f64,
    pub(super) delivered: f64,
    pub(super) backlog: Spread,
    /// Seconds from commit to done.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// The supervisor, then its workers.
    pub(super) processes: Vec<ProcessFigures>,
    /// The process ids, which change where a worker was replaced.
    pub(super) pids: Vec<u32>,
    pub(super) events: TableFigures,
    pub(super) leases: TableFigures,
}

/// Divides the looks into quarters. `latencies` are times since the begin and latencies, in
/// seconds.
pub(super) fn quarters(samples: &[Sample], latencies: &[(f64, f64)]) -> [Quarter; 4] {
    let end = samples.last().map_or(0.0, |last| last.at.as_secs_f64());
    let share = samples.len().saturating_sub(1);
    [0, 1, 2, 3].map(|n: usize| {
        let looks =
            &samples[(share * n / 4).min(share)..samples.len().min(share * (n + 1) / 4 + 1)];
        let (begin, until) = (end * float(n as u64) / 4.0, end * float(n as u64 + 1) / 4.0);
        let of_quarter = latencies
            .iter()
            .filter(|(at, _)| (*at >= begin || n == 0) && (*at < until || n == 3))
            .map(|(_, latency)| *latency);
        quarter(looks, of_quarter.collect())
    })
}

fn quarter(looks: &[Sample], mut latencies: Vec<f64>) -> Quarter {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return Quarter::default();
    };
    latencies.sort_by(f64::total_cmp);
    let seconds = last.seconds_since(first);
    let per_second = |count: fn(&Sample) -> u64| float(count(last) - count(first)) / seconds;
    let n_processes = looks.iter().map(|look| look.processes.len()).max();
    let process = |at: usize, figure: fn(&ProcessSample) -> f64| {
        Spread::of(
            looks
                .iter()
                .filter_map(move |look| look.processes.get(at).map(figure)),
        )
    };
    Quarter {
        committed: per_second(|look| look.committed),
        delivered: per_second(|look| look.delivered),
        backlog: Spread::of(looks.iter().map(|look| look.backlog)),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        processes: (0..n_processes.unwrap_or(0))
            .map(|at| ProcessFigures {
                resident_bytes: process(at, |one| one.resident_bytes),
                descriptors: process(at, |one| one.descriptors),
            })
            .collect(),
        pids: last.processes.iter().map(|one| one.pid).collect(),
        events: table(looks, |look| look.events),
        leases: table(looks, |look| look.leases),
    }
}

fn table(looks: &[Sample], table: fn(&Sample) -> TableSample) -> TableFigures {
    let of = |figure: fn(TableSample) -> f64| {
        Spread::of(looks.iter().map(move |look| figure(table(look))))
    };
    TableFigures {
        dead_rows: of(|one| one.dead_rows),
        bytes: of(|one| one.bytes),
        index_bytes: of(|one| one.index_bytes),
    }
}

/// The figure that this percentage of the sorted figures does not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn looks_and_latencies_fall_into_their_quarters() {
        // 100 events a second for the first half, 50 for the second.
        let samples: Vec<Sample> = (0..=8)
            .map(|second: u64| Sample {
                at: Duration::from_secs(second),
                delivered: 100 * second.min(4) + 50 * second.saturating_sub(4),
                backlog: float(second),
                ..Sample::default()
            })
            .collect();
        let latencies = [(0.5, 1.0), (1.9, 3.0), (2.0, 2.0), (7.0, 4.0), (9.0, 5.0)];

        let found = quarters(&samples, &latencies);

        let of = |figure: fn(&Quarter) -> f64| found.each_ref().map(|one| whole(figure(one)));
        assert_eq!(of(|one| one.delivered), ["100", "100", "50", "50"]);
        assert_eq!(of(|one| one.backlog.most), ["2", "4", "6", "8"]);
        assert_eq!(of(|one| one.backlog.mean), ["1", "3", "5", "7"]);
        assert_eq!(of(|one| one.p50), ["1", "2", "0", "4"]);
        assert_eq!(of(|one| one.p99), ["3", "2", "0", "5"]);
    }

    #[test]
    fn a_percentile_is_a_figure_that_was_seen() {
        let figures: Vec<f64> = (1..=200).map(float).collect();
        let found = [
            percentile(&figures, 50),
            percentile(&figures, 99),
            percentile(&[], 50),
            percentile(&[7.0], 99),
        ];
        assert_eq!(found.map(whole), ["100", "198", "0", "7"]);
    }

    fn whole(figure: f64) -> String {
        format!("{figure:.0}")
    }
}
