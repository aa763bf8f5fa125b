//! The figures of a soak, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::dev::bench::soak::companions::Archived;
use crate::dev::bench::soak::ledger::Runs;
use crate::dev::bench::soak::quarter::{Quarter, TableFigures, quarters};
use crate::dev::bench::soak::sample::Sample;
use crate::dev::bench::soak::verdict::{Verdict, verdicts};
use crate::dev::bench::{BenchOptions, SoakOptions};
use crate::domain::figure::{counted, grouped};

/// One table's figures in a quarter.
type TableOf = fn(&Quarter) -> TableFigures;

/// The counts at the end.
pub(super) struct Totals<'a> {
    /// Events that the producers committed.
    pub(super) committed: u64,
    /// What the handlers noted.
    pub(super) runs: &'a Runs,
    /// What the retention moved.
    pub(super) archived: &'a Archived,
    /// The begin, by the database's clock.
    pub(super) began: f64,
    /// Events left in the table that are not dead as planned.
    pub(super) n_unexpected: u64,
    /// Dead letters as planned.
    pub(super) n_dead_letters: u64,
}

/// All figures.
pub(super) struct Report {
    title: String,
    quarters: [Quarter; 4],
    verdicts: Vec<Verdict>,
    committed: u64,
    n_runs: u64,
    n_dead_letters: u64,
    lost: u64,
    twice: u64,
    longest_archiving_seconds: f64,
}

impl Report {
    pub(super) fn new(
        options: &BenchOptions,
        soak: &SoakOptions,
        samples: &[Sample],
        totals: &Totals,
    ) -> Report {
        let latencies: Vec<(f64, f64)> = totals
            .archived
            .latencies
            .iter()
            .map(|(at, latency)| (at - totals.began, *latency))
            .collect();
        let quarters = quarters(samples, &latencies);
        let reached = totals.archived.n_events + totals.n_dead_letters;
        // The rows and the notes are two witnesses: what either misses is lost.
        let lost = totals
            .committed
            .saturating_sub(reached)
            .max(totals.n_unexpected)
            .max(totals.runs.n_unfinished(totals.committed));
        Report {
            title: format!(
                "{} min at {} events/s, {}, batch {}",
                soak.time.as_secs_f64() / 60.0,
                grouped(soak.rate),
                counted(options.processes.get(), "process"),
                options.batch_size
            ),
            verdicts: verdicts(&quarters, soak.rate),
            quarters,
            committed: totals.committed,
            n_runs: totals.runs.total,
            n_dead_letters: totals.n_dead_letters,
            lost,
            twice: totals.runs.twice.max(totals.archived.n_wrong),
            longest_archiving_seconds: totals.archived.longest.as_secs_f64(),
        }
    }

    /// Says whether no event was lost and none handled more often than planned.
    pub(super) fn is_exact(&self) -> bool {
        self.lost == 0 && self.twice == 0
    }

    /// Renders the table.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{}\n\n{:34}{:>12}{:>12}{:>12}{:>12}\n",
            self.title, "quarter", 1, 2, 3, 4
        );
        for (name, figures, digits) in self.lines() {
            let _ = write!(text, "{name:34}");
            for figure in figures {
                let figure = if digits == 0 {
                    grouped(figure)
                } else {
                    format!("{figure:.digits$}")
                };
                let _ = write!(text, "{figure:>12}");
            }
            text.push('\n');
        }
        text.push('\n');
        for verdict in &self.verdicts {
            let word = if verdict.holds { "yes" } else { "NO" };
            let _ = writeln!(text, "{:42}{word}", verdict.name);
        }
        let _ = write!(
            text,
            "\nCommitted: {}. Runs of handlers: {}. Dead letters as planned: {}. Longest run of the retention: {:.1} s.\n\
             Lost: {}. Handled more often than planned: {}.\n",
            grouped(self.committed),
            grouped(self.n_runs),
            grouped(self.n_dead_letters),
            self.longest_archiving_seconds,
            self.lost,
            self.twice
        );
        text
    }

    /// The lines of the table: a name, the figure of each quarter, and its digits.
    fn lines(&self) -> Vec<(String, [f64; 4], usize)> {
        let mut lines = Vec::new();
        let mut line = |name: &str, digits, figure: &dyn Fn(&Quarter) -> f64| {
            let figures = self.quarters.each_ref().map(figure);
            lines.push((name.to_owned(), figures, digits));
        };
        line("committed, events/s", 0, &|one| one.committed);
        line("delivered, events/s", 0, &|one| one.delivered);
        line("backlog, mean", 0, &|one| one.backlog.mean);
        line("backlog, most", 0, &|one| one.backlog.most);
        line("commit to done, p50, ms", 1, &|one| one.p50 * 1e3);
        line("commit to done, p99, ms", 1, &|one| one.p99 * 1e3);
        for at in 0..self.n_processes() {
            let name = process_name(at);
            let of = |one: &Quarter| one.processes.get(at).copied().unwrap_or_default();
            line(&format!("{name}, memory, most, MB"), 1, &|one| {
                of(one).resident_bytes.most / 1e6
            });
            line(&format!("{name}, descriptors, most"), 0, &|one| {
                of(one).descriptors.most
            });
        }
        let tables: [(&str, TableOf); 2] = [
            ("outbox_event", |one| one.events),
            ("outbox_lease", |one| one.leases),
        ];
        for (name, of) in tables {
            line(&format!("{name}, dead rows, mean"), 0, &|one| {
                of(one).dead_rows.mean
            });
            line(&format!("{name}, dead rows, most"), 0, &|one| {
                of(one).dead_rows.most
            });
            line(&format!("{name}, most, MB"), 1, &|one| {
                of(one).bytes.most / 1e6
            });
            line(&format!("{name}, indexes, most, MB"), 1, &|one| {
                of(one).index_bytes.most / 1e6
            });
        }
        lines
    }

    fn n_processes(&self) -> usize {
        let counts = self.quarters.iter().map(|one| one.processes.len());
        counts.max().unwrap_or(0)
    }

    /// Renders one JSON object and the end of its line.
    pub(super) fn json(&self) -> String {
        let quarters: serde_json::Map<String, Value> = self
            .lines()
            .into_iter()
            .map(|(name, figures, _)| (name, json!(figures)))
            .collect();
        let verdicts: serde_json::Map<String, Value> = self
            .verdicts
            .iter()
            .map(|verdict| (verdict.name.to_owned(), json!(verdict.holds)))
            .collect();
        let object = json!({
            "quarters": quarters,
            "verdicts": verdicts,
            "committed": self.committed,
            "handler_runs": self.n_runs,
            "dead_letters": self.n_dead_letters,
            "longest_archiving_seconds": self.longest_archiving_seconds,
            "lost": self.lost,
            "twice": self.twice,
        });
        format!("{object}\n")
    }
}

fn process_name(at: usize) -> String {
    match at.checked_sub(1) {
        None => "supervisor".to_owned(),
        Some(slot) => format!("worker-{slot:02}"),
    }
}
