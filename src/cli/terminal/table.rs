//! Tables as wide as the terminal.

use unicode_width::UnicodeWidthStr as _;

use crate::cli::terminal::text::cut;
use crate::system::logging;

/// No column is cut to less than this: the rest of its texts would say nothing.
const COLUMN_LEAST: usize = 8;

/// Width that is left to the columns that are narrowed first.
const COLUMN_NARROW: usize = 12;

/// Widest column where no text is cut: a longer text does not widen the column for the others.
const COLUMN_MOST: usize = 60;

/// Gap between two columns.
const GAP: &str = "  ";

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
}
