//! The figures: medians of the pairs, as a table and as JSON.

use std::fmt::Write as _;

use crate::dev::bench::BenchOptions;
use crate::dev::bench::pipeline::PipelineRun;
use crate::domain::figure::{counted, grouped};

/// One pair of runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    /// Events per second of the bare statements.
    pub(super) bare: f64,
    /// The daemon's run.
    pub(super) pipeline: PipelineRun,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.pipeline.rate / self.bare
    }
}

/// All pairs of a bench, and the options that they ran with.
#[derive(Debug)]
pub(super) struct Summary {
    events: u32,
    processes: u16,
    batch_size: u16,
    pairs: Vec<Pair>,
}

impl Summary {
    /// Takes the pairs; at least one.
    pub(super) fn new(options: &BenchOptions, pairs: Vec<Pair>) -> Summary {
        Summary {
            events: options.events,
            processes: options.processes.get(),
            batch_size: options.batch_size.get(),
            pairs,
        }
    }

    /// Says whether every event was handled exactly once.
    pub(super) fn is_exact(&self) -> bool {
        self.lost() == 0 && self.duplicates() == 0
    }

    /// Renders the table.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{} {}, {}, batch {}\n\n  pair   daemon events/s   bare events/s   ratio\n",
            grouped(f64::from(self.events)),
            if self.events == 1 { "event" } else { "events" },
            counted(self.processes, "process"),
            self.batch_size
        );
        let mut line = |name: &str, pipeline: f64, bare: f64, ratio: f64| {
            let (pipeline, bare) = (grouped(pipeline), grouped(bare));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:>6}{pipeline:>18}{bare:>16}{ratio:>8.2}");
        };
        for (n, pair) in self.pairs.iter().enumerate() {
            line(
                &(n + 1).to_string(),
                pair.pipeline.rate,
                pair.bare,
                pair.ratio(),
            );
        }
        line(
            "median",
            self.median(|pair| pair.pipeline.rate),
            self.median(|pair| pair.bare),
            self.median(Pair::ratio),
        );
        let _ = write!(
            text,
            "\nThe daemon used {:.3} CPU seconds per 10,000 events, PostgreSQL wrote {:.0} bytes of WAL per event.\n\
             Lost: {}. Handled more than once: {}.\n",
            self.cpu_seconds_per_10k(),
            self.wal_bytes_per_event(),
            self.lost(),
            self.duplicates()
        );
        text
    }

    /// Renders one JSON object and the end of its line.
    pub(super) fn json(&self) -> String {
        let object = serde_json::json!({
            "pipeline_events_per_second": rounded(self.median(|pair| pair.pipeline.rate), 0),
            "ceiling_events_per_second": rounded(self.median(|pair| pair.bare), 0),
            "ratio": rounded(self.median(Pair::ratio), 3),
            "own_cpu_seconds_per_10k": rounded(self.cpu_seconds_per_10k(), 4),
            "wal_bytes_per_event": rounded(self.wal_bytes_per_event(), 1),
            "lost": self.lost(),
            "duplicates": self.duplicates(),
            "events": self.events,
            "processes": self.processes,
            "batch_size": self.batch_size,
            "pairs": self.pairs.len(),
        });
        format!("{object}\n")
    }

    fn lost(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.pipeline.lost).sum()
    }

    fn duplicates(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.pipeline.duplicates).sum()
    }

    fn cpu_seconds_per_10k(&self) -> f64 {
        self.median(|pair| pair.pipeline.cpu_seconds) / f64::from(self.events) * 10_000.0
    }

    fn wal_bytes_per_event(&self) -> f64 {
        self.median(|pair| pair.pipeline.wal_bytes) / f64::from(self.events)
    }

    fn median(&self, figure: impl Fn(&Pair) -> f64) -> f64 {
        median(self.pairs.iter().map(figure).collect())
    }
}

/// The middle figure, or the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let upper = figures[figures.len() / 2];
    let lower = figures[(figures.len() - 1) / 2];
    f64::midpoint(lower, upper)
}

fn rounded(figure: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let pair = |bare, rate, cpu_seconds, duplicates| Pair {
            bare,
            pipeline: PipelineRun {
                rate,
                cpu_seconds,
                wal_bytes: 66_000_000.0,
                lost: 0,
                duplicates,
            },
        };
        Summary {
            events: 200_000,
            processes: 2,
            batch_size: 500,
            pairs: vec![
                pair(100_000.0, 90_000.0, 1.2, 0),
                pair(200_000.0, 100_000.0, 1.0, 0),
                pair(50_000.0, 40_000.0, 2.0, 1),
            ],
        }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_ratios_and_not_the_ratio_of_medians() {
        let json: serde_json::Value =
            serde_json::from_str(&summary().json()).expect("the bench writes JSON");

        assert_eq!(json["ratio"], 0.8);
        assert_eq!(json["pipeline_events_per_second"], 90_000.0);
        assert_eq!(json["ceiling_events_per_second"], 100_000.0);
        assert_eq!(json["own_cpu_seconds_per_10k"], 0.06);
        assert_eq!(json["wal_bytes_per_event"], 330.0);
    }

    #[test]
    fn the_table_says_the_same() {
        let table = summary().table();

        assert!(
            table.contains("median            90,000         100,000    0.80\n"),
            "{table}"
        );
        assert!(
            table.contains("0.060 CPU seconds per 10,000 events"),
            "{table}"
        );
        assert!(table.contains("330 bytes of WAL per event"), "{table}");
    }

    #[test]
    fn one_duplicate_makes_the_bench_inexact() {
        assert!(!summary().is_exact());
        let mut exact = summary();
        exact.pairs.truncate(2);
        assert!(exact.is_exact());
    }
}
