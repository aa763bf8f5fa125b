//! The runs of handlers, as they recorded them.

use std::fs;
use std::io;
use std::path::Path;

/// One line of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Which event.
    pub(super) id: i64,
    /// Which attempt.
    pub(super) attempt: u32,
    /// The process id of the worker.
    pub(super) worker: u32,
    /// What it says.
    pub(super) what: What,
}

/// What a line says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// It has begun.
    Begun,
    /// It ended well.
    Done,
    /// It failed, and another attempt may succeed.
    Failed,
    /// It refused the event for good.
    Refused,
}

/// Reads the record.
pub(super) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = fs::read_to_string(path)?;
    parse(&text).map_err(|line| io::Error::other(format!("a line that is none: `{line}`")))
}

/// Reads its lines; the error is a line that is none. A process that was killed may have left the
/// last line torn only if the system was out of space: a line is one write.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, String> {
    text.lines()
        .map(|line| entry(line).ok_or_else(|| line.to_owned()))
        .collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let entry = Entry {
        id: words.next()?.parse().ok()?,
        attempt: words.next()?.parse().ok()?,
        worker: words.next()?.parse().ok()?,
        what: match words.next()? {
            "begun" => What::Begun,
            "done" => What::Done,
            "failed" => What::Failed,
            "refused" => What::Refused,
            _ => return None,
        },
    };
    words.next().is_none().then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_or_not_at_all() {
        let entries = parse("7 1 99 begun\n-3 2 99 refused\n").expect("both are lines");
        assert_eq!(
            entries,
            [
                Entry {
                    id: 7,
                    attempt: 1,
                    worker: 99,
                    what: What::Begun
                },
                Entry {
                    id: -3,
                    attempt: 2,
                    worker: 99,
                    what: What::Refused
                },
            ]
        );
        for line in ["7 1 99", "7 1 99 begun 2", "7 1 99 begu", ""] {
            assert_eq!(parse(&format!("{line}\n")), Err(line.to_owned()));
        }
    }
}
