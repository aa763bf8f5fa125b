//! Output for a person: tables as wide as the terminal, questions, progress.
//!
//! Every text from the database is escaped before it is shown, on a terminal and in a file alike:
//! so no text moves a cursor, turns the direction or ends a line. There are no colors, so a table
//! in a file is the same as on a terminal, only never cut.

pub mod message;
pub mod output;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::domain::figure::counted;
use crate::domain::usage::UsageError;
use crate::system::logging;

/// Width where the terminal does not report its own.
const WIDTH_USUAL: usize = 80;

/// No column is cut to less than this: the rest of its texts would say nothing.
const COLUMN_LEAST: usize = 8;

/// Width that is left to the columns that are narrowed first.
const COLUMN_NARROW: usize = 12;

/// Widest column where no text is cut: a longer text does not widen the column for the others.
const COLUMN_MOST: usize = 60;

/// Gap between two columns.
const GAP: &str = "  ";

/// The width of the terminal behind standard output; `None` when there is none, so that nothing
/// needs to be cut.
pub(in crate::cli) fn width() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&out).map_or(0, |size| size.ws_col);
    Some(match columns {
        0 => WIDTH_USUAL,
        columns => columns.into(),
    })
}

/// Makes a text replace the content of a terminal: it is drawn over the old content line by line,
/// so that nothing flickers, and it is cut to the height of the terminal.
pub(in crate::cli) fn redrawn(text: &str) -> String {
    let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_row);
    let rows = match rows {
        0 => usize::MAX,
        rows => usize::from(rows).saturating_sub(1),
    };
    let mut drawn = String::from("\x1b[H");
    for line in text.lines().take(rows) {
        drawn.push_str(line);
        drawn.push_str("\x1b[K\n");
    }
    drawn.push_str("\x1b[J");
    drawn
}

/// A table with a line of headings. The last column is narrowed first when a line is too long.
pub(in crate::cli) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns that are narrowed before the last one.
    first: Vec<usize>,
}

impl Table {
    /// Makes an empty table. A heading that ends in `#` makes a column of numbers, which are
    /// aligned to the right.
    pub(in crate::cli) fn new(headings: &[&'static str]) -> Table {
        Table {
            headings: headings.to_vec(),
            rows: Vec::new(),
            first: Vec::new(),
        }
    }

    /// Lets these columns be narrowed first, in this order.
    pub(in crate::cli) fn narrow_first(&mut self, columns: &[usize]) {
        self.first = columns.to_vec();
    }

    /// Adds a row; its cells are escaped here.
    pub(in crate::cli) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let escaped = |cell: S| logging::escape(cell.as_ref()).into_owned();
        self.rows.push(cells.into_iter().map(escaped).collect());
    }

    /// Renders the table, its lines cut to `width` columns if there is a width.
    pub(in crate::cli) fn render(&self, width: Option<usize>) -> String {
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|heading| heading.trim_end_matches('#').to_owned())
            .collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widest = |column: usize| {
            lines()
                .filter_map(|cells| cells.get(column))
                .map(|cell| cell.width())
                .max()
                .unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..headings.len()).map(widest).collect();
        if let Some(width) = width {
            fit(&mut widths, &self.first, width);
        }
        lines()
            .map(|cells| self.line(cells, &widths, width.is_some()) + "\n")
            .collect()
    }

    fn line(&self, cells: &[String], widths: &[usize], is_cut: bool) -> String {
        let mut line = String::new();
        for ((cell, &width), heading) in cells.iter().zip(widths).zip(&self.headings) {
            let cell = if is_cut {
                cut(cell, width)
            } else {
                cell.clone()
            };
            let aligned = width.min(if is_cut { usize::MAX } else { COLUMN_MOST });
            let blanks = " ".repeat(aligned.saturating_sub(cell.width()));
            if heading.ends_with('#') {
                line.push_str(&blanks);
                line.push_str(&cell);
            } else {
                line.push_str(&cell);
                line.push_str(&blanks);
            }
            line.push_str(GAP);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Narrows columns until the line fits: those named `first`, then the last one and on to the left,
/// none below its least width.
fn fit(widths: &mut [usize], first: &[usize], width: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    let preferred = first.iter().map(|&column| (column, COLUMN_NARROW));
    let rest = (0..widths.len()).rev().map(|column| (column, COLUMN_LEAST));
    for (column, least) in preferred.chain(rest) {
        let given = excess.min(widths[column].saturating_sub(least));
        widths[column] -= given;
        excess -= given;
    }
}

/// Cuts a text to `width` columns of the terminal; a wide character takes two.
pub(in crate::cli) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// Divides a text into lines of at most `width` columns of the terminal; there is always one.
pub(in crate::cli) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns > width {
            lines.push(String::new());
            used = 0;
        }
        used += columns;
        if let Some(line) = lines.last_mut() {
            line.push(c);
        }
    }
    lines
}

/// Shows a time of the API to the second: `2025-01-02 03:04:05Z`; other texts, such as `infinity`,
/// as they are.
pub(in crate::cli) fn short_time(text: &str) -> String {
    match (text.get(..10), text.get(10..11), text.get(11..19)) {
        (Some(date), Some("T"), Some(time)) => format!("{date} {time}Z"),
        _ => text.to_owned(),
    }
}

/// Shows a duration in its two largest units: `3 min 20 s`, `2 d 4 h`.
pub(in crate::cli) fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (large, small) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3_600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        3_600..86_400 => ((seconds / 3_600, "h"), (seconds / 60 % 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds / 3_600 % 24, "h")),
    };
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        _ => format!("{} {} {} {}", large.0, large.1, small.0, small.1),
    }
}

/// Renders names and values, a line each, in two columns; values are escaped.
pub(in crate::cli) fn fields(lines: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:14} {}", logging::escape(value));
    }
    text
}

/// `1 event`, `2 events`.
pub(in crate::cli) fn events(n: u64) -> String {
    counted(n, "event")
}

/// Makes JSON safe for a terminal: characters that a terminal would obey stand only inside strings,
/// so they are written as their escapes.
pub(in crate::cli) fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if logging::is_harmful(c) && !matches!(c, '\n') {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Asks a person whether to do `what` ("discard 3 dead events"), unless `--yes` has answered
/// already. Where the command has no terminal to ask on, a missing `--yes` is an error and not a
/// no: a script would take silence for success.
pub(in crate::cli) fn is_confirmed(is_yes: bool, what: &str) -> Result<bool, UsageError> {
    if is_yes {
        return Ok(true);
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UsageError::new(format!(
            "to {what} needs --yes where nobody can be asked"
        )));
    }
    let _ = write!(io::stderr(), "{what}? [y/N] ");
    let mut answer = String::new();
    let is_read = io::stdin().read_line(&mut answer).is_ok();
    let answer = answer.trim().to_ascii_lowercase();
    Ok(is_read && matches!(answer.as_str(), "y" | "yes"))
}

/// A bar on standard error while long work goes on; invisible unless that is a terminal.
pub(in crate::cli) fn progress(total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    let template = match total {
        Some(_) => "{wide_bar} {human_pos}/{human_len} events, {eta} left",
        None => "{spinner} {human_pos} events, {elapsed}",
    };
    bar.set_style(
        ProgressStyle::with_template(template).expect("a template of known placeholders"),
    );
    // Twice a second is enough, and costs nothing beside a database call.
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(2));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["id#", "event type", "last error"]);
        table.row(["7", "order.created", "receiver said 503\n\u{1b}[31mred"]);
        table.row(["1234", "ünïcode", "受信者は忙しいです、あとで"]);
        table
    }

    #[test]
    fn a_table_is_aligned_and_escaped() {
        assert_eq!(
            table().render(None),
            "  id  event type     last error\n\
             \u{20}  7  order.created  receiver said 503\\n\\x1b[31mred\n\
             1234  ünïcode        受信者は忙しいです、あとで\n"
        );
    }

    #[test]
    fn no_line_of_a_table_is_wider_than_the_terminal() {
        for width in 28..60 {
            for line in table().render(Some(width)).lines() {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        assert!(table().render(Some(40)).contains("…"));
        // The terminal is too narrow for any table: lines wrap, and numbers stay whole.
        assert!(table().render(Some(5)).contains("1234"));
    }

    #[test]
    fn a_column_that_gives_way_first_leaves_room_for_the_last() {
        let mut table = Table::new(&["id#", "type", "last error"]);
        table.row(["7", &"t".repeat(50), &"e".repeat(50)]);
        table.narrow_first(&[1]);

        let drawn = table.render(Some(80));

        assert!(drawn.contains(&"e".repeat(50)), "{drawn}");
        assert!(
            drawn.contains(&format!("{}…  e", "t".repeat(23))),
            "{drawn}"
        );
    }

    #[test]
    fn one_long_text_does_not_push_all_others_away() {
        let mut table = Table::new(&["type", "last error"]);
        let long = "t".repeat(500);
        table.row([long.as_str(), "first"]);
        table.row(["short", "second"]);

        let drawn = table.render(None);

        assert!(drawn.contains(&format!("{long}  first\n")), "{drawn}");
        let second = format!("{:COLUMN_MOST$}  second\n", "short");
        assert!(drawn.contains(&second), "{drawn}");
    }

    #[test]
    fn a_wrapped_text_is_whole_and_no_line_is_too_wide() {
        for text in ["", "short", "受信者は忙しいです、あとで", &"x".repeat(95)] {
            for width in 2..30 {
                let lines = wrapped(text, width);
                assert_eq!(lines.concat(), text);
                assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
            }
        }
        assert_eq!(wrapped("", 10).len(), 1);
    }

    #[test]
    fn times_and_durations_are_short() {
        assert_eq!(
            short_time("2025-01-02T03:04:05.123456+00:00"),
            "2025-01-02 03:04:05Z"
        );
        assert_eq!(short_time("infinity"), "infinity");
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(words(59), "59 s");
        assert_eq!(words(120), "2 min");
        assert_eq!(words(200), "3 min 20 s");
        assert_eq!(words(187_200), "2 d 4 h");
    }

    #[test]
    fn json_that_is_shown_means_the_same_and_moves_no_cursor() {
        let json = "{\"a\":\"\u{9b}31m\u{202e}\u{7f}ü\"}\n";

        let safe = safe_json(json);

        assert_eq!(safe, "{\"a\":\"\\u009b31m\\u202e\\u007fü\"}\n");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(parse(&safe), parse(json));
        assert!(parse(json).is_some());
    }
}
