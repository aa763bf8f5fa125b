//! The report: a table for a person, or JSON.

use std::process::ExitCode;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::cli::terminal;
use crate::domain::figure::counted;
use crate::store::doctor::{Finding, Level};
use crate::system::logging;

/// Between two columns.
const GAP: &str = "  ";

/// Least width of the column of messages. On a narrower terminal lines wrap.
const MESSAGE_LEAST: usize = 30;

/// All findings, by check.
#[derive(Default)]
pub(super) struct Report {
    rows: Vec<(&'static str, Finding)>,
}

impl Report {
    /// Adds what a check has found; `fine` is said where that is nothing.
    pub(super) fn add(&mut self, check: &'static str, fine: &str, findings: Vec<Finding>) {
        if findings.is_empty() {
            self.rows.push((check, Finding::new(Level::Ok, fine)));
        }
        // What is well need not be said beside what is not.
        let worst = findings.iter().map(|finding| finding.level).max();
        let told = findings
            .into_iter()
            .filter(|finding| finding.level != Level::Ok || worst == Some(Level::Ok));
        self.rows.extend(told.map(|finding| (check, finding)));
    }

    fn count(&self, level: Level) -> usize {
        let rows = self.rows.iter();
        rows.filter(|(_, finding)| finding.level == level).count()
    }

    /// 2 where there is an error, 1 where there is a warning, else 0: what is not known is no
    /// finding.
    pub(super) fn exit_code(&self) -> ExitCode {
        let worst = self.rows.iter().map(|(_, finding)| finding.level).max();
        ExitCode::from(match worst {
            Some(Level::Error) => 2,
            Some(Level::Warning) => 1,
            Some(Level::Ok | Level::Unknown) | None => 0,
        })
    }

    /// One object; its keys stay as they are.
    pub(super) fn json(&self) -> Value {
        let finding = |(check, finding): &(&str, Finding)| {
            json!({
                "check": check,
                "level": finding.level.name(),
                "message": logging::redact(&finding.message),
                "remedy": finding.remedy.as_deref().map(logging::redact),
                "data": finding.data,
            })
        };
        json!({
            "findings": self.rows.iter().map(finding).collect::<Vec<_>>(),
            "errors": self.count(Level::Error),
            "warnings": self.count(Level::Warning),
            "unknown": self.count(Level::Unknown),
        })
    }

    /// Three columns, the last of which continues on the lines below; remedies below what they
    /// mend.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        let names = self.rows.iter().map(|(check, _)| check.width()).max();
        let levels = Level::Warning.name().len();
        let indent = levels + names.unwrap_or(0) + 2 * GAP.len();
        let room = width.map_or(usize::MAX, |width| {
            width.saturating_sub(indent).max(MESSAGE_LEAST)
        });
        let mut text = String::new();
        let mut line = |level: &str, check: &str, message: &str| {
            let message = logging::escape(&logging::redact(message)).into_owned();
            for (at, part) in terminal::wrapped(&message, room).iter().enumerate() {
                let head = if at == 0 { [level, check] } else { ["", ""] };
                let name = indent - levels - 2 * GAP.len();
                let row = format!("{:levels$}{GAP}{:name$}{GAP}{part}", head[0], head[1]);
                text.push_str(row.trim_end());
                text.push('\n');
            }
        };
        for (check, finding) in &self.rows {
            line(finding.level.name(), check, &finding.message);
            if let Some(remedy) = &finding.remedy {
                line("", "", &format!("remedy: {remedy}"));
            }
        }
        let n_unknown = match self.count(Level::Unknown) {
            0 => String::new(),
            n => format!(", {n} unknown"),
        };
        text + &format!(
            "{}, {}{n_unknown}, {} ok\n",
            counted(self.count(Level::Error), "error"),
            counted(self.count(Level::Warning), "warning"),
            self.count(Level::Ok)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(levels: &[Level]) -> Report {
        let mut report = Report::default();
        let found = levels
            .iter()
            .map(|level| Finding::new(*level, level.name()));
        report.add("a check", "fine", found.collect());
        report
    }

    #[test]
    fn the_worst_finding_decides_about_the_exit_code() {
        let check = |levels: &[Level], expected: u8| {
            let code = format!("{:?}", report(levels).exit_code());
            assert_eq!(
                code,
                format!("{:?}", ExitCode::from(expected)),
                "{levels:?}"
            );
        };

        check(&[], 0);
        check(&[Level::Ok], 0);
        check(&[Level::Unknown], 0);
        check(&[Level::Warning, Level::Ok], 1);
        check(&[Level::Warning, Level::Error, Level::Unknown], 2);
    }

    #[test]
    fn a_report_shows_each_finding_with_its_remedy_and_no_control_character() {
        let mut report = report(&[Level::Ok, Level::Warning]);
        let finding = Finding::new(Level::Error, "a\u{1b}[31mb\nc").remedy("DROP it");
        report.add("another", "", vec![finding]);

        assert_eq!(
            report.text(None),
            "warning  a check  warning\n\
             error    another  a\\x1b[31mb\\nc\n\
             \u{20}                 remedy: DROP it\n\
             1 error, 1 warning, 0 ok\n"
        );
    }
}
