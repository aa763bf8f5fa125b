//! Output for a person: tables as wide as the terminal, questions, progress.
//!
//! Every text from the database is escaped before it is shown, on a terminal and in a file alike:
//! so no text moves a cursor, turns the direction or ends a line. There are no colors, so a table
//! in a file is the same as on a terminal, only never cut.

pub mod message;
pub mod output;
mod table;
mod text;

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::domain::usage::UsageError;

pub(in crate::cli) use crate::cli::terminal::table::Table;
pub(in crate::cli) use crate::cli::terminal::text::{
    cut, events, fields, in_words, safe_json, short_time, wrapped,
};

/// Width where the terminal does not report its own.
const WIDTH_USUAL: usize = 80;

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

/// Asks a person whether to do `what` ("discard 3 dead events"), unless `--yes` has answered
/// already. Where the command has no terminal to ask on, a missing `--yes` is an error and not a
/// no: a script would take silence for success.
pub(in crate::cli) fn is_confirmed(is_yes: bool, what: &str) -> Result<bool, UsageError> {
    if is_yes {
        return Ok(true);
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UsageError::new(format!(
            "to {what} needs --yes where no question can be asked"
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
