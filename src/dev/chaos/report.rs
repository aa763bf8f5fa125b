//! What was played and found, as a person reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::dev::chaos::ChaosOptions;
use crate::dev::chaos::checker::{Evidence, Law};
use crate::dev::chaos::plan::Fault;
use crate::domain::figure::grouped;

/// All that the report tells.
pub(super) struct Report<'a> {
    pub(super) options: &'a ChaosOptions,
    pub(super) played: &'a BTreeMap<Fault, u32>,
    pub(super) evidence: &'a Evidence,
    pub(super) n_failed: usize,
    pub(super) laws: &'a [Law],
    /// Where logs and record are, if they are kept.
    pub(super) kept: Option<&'a Path>,
}

impl Report<'_> {
    /// Renders it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "seed {}, {} min: {} events committed, {} rolled back, {} transactions failed\n",
            self.options.seed,
            self.options.length.as_secs_f64() / 60.0,
            grouped(self.evidence.rows.len()),
            grouped(self.evidence.rolled_back.len()),
            grouped(self.n_failed),
        );
        let _ = writeln!(text, "{:<18}{:>6}  ", "fault", "played");
        for fault in &self.options.faults {
            let n = self.played.get(fault).copied().unwrap_or_default();
            let _ = writeln!(text, "{:<18}{n:>6}  {}", fault.name(), fault.meaning());
        }
        let _ = writeln!(text, "\n{:<13}{:<8}{:<50}law", "law", "", "found");
        for law in self.laws {
            let state = if law.n_broken == 0 { "ok" } else { "BROKEN" };
            let _ = writeln!(
                text,
                "{:<13}{state:<8}{:<50}{}",
                law.name, law.found, law.text
            );
        }
        for law in self.laws.iter().filter(|law| law.n_broken > 0) {
            let _ = writeln!(text, "\n{} is broken {} times:", law.name, law.n_broken);
            for example in &law.examples {
                let _ = writeln!(text, "  {example}");
            }
        }
        if let Some(path) = self.kept {
            let _ = writeln!(
                text,
                "\nThe logs of the daemons and the record of the handlers are in {}.",
                path.display()
            );
        }
        text
    }
}
