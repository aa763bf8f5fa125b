//! `dispatchbox config check`: prints the effective settings, and says whether `run` would start
//! with them. It does not connect.

use std::process::ExitCode;

use unicode_width::UnicodeWidthStr as _;

use crate::cli::settings::run::RunArgs;
use crate::cli::settings::{self, Effective, Env};
use crate::cli::terminal;
use crate::cli::terminal::message::{complain, say, warn};
use crate::cli::terminal::output::finish;
use crate::handlers::Handlers;
use crate::system::logging;

/// Between two columns.
const GAP: &str = "  ";

/// Least width of the column of values. On a narrower terminal lines wrap: values in shorter pieces
/// could not be read.
const VALUE_LEAST: usize = 20;

/// Checks the settings of `run` and prints each with its source.
pub fn check(args: &RunArgs, env: &Env, handlers: &Handlers) -> ExitCode {
    match settings::explain(args, env, handlers) {
        Ok((settings, effective)) => {
            warn(&settings.warnings);
            for hint in &settings.hints {
                say(&format!("hint: {hint}\n"));
            }
            finish(&table(&effective, terminal::width()), ExitCode::SUCCESS)
        }
        Err(error) => complain(&error),
    }
}

/// Renders three columns, as wide as their cells. A value is never cut, since a person compares it.
/// On a terminal a long value continues on the lines below.
fn table(effective: &[Effective], width: Option<usize>) -> String {
    let mut rows: Vec<[String; 3]> = effective
        .iter()
        .map(|setting| {
            let value = logging::escape(&setting.value).into_owned();
            [&setting.name, value.as_str(), setting.source.name()].map(str::to_owned)
        })
        .collect();
    if !effective.iter().any(|setting| setting.name == "route") {
        rows.push(["route", "the sample routes", "default"].map(str::to_owned));
    }
    let widest = |column: usize| {
        rows.iter()
            .map(|row| row[column].width())
            .max()
            .unwrap_or(0)
    };
    let (names, sources) = (widest(0), widest(2));
    let room = width.map_or(usize::MAX, |width| {
        width
            .saturating_sub(names + sources + 2 * GAP.len())
            .max(VALUE_LEAST)
    });
    let values = widest(1).min(room);
    let mut text = String::new();
    for [name, value, source] in &rows {
        for (at, part) in terminal::wrapped(value, room).iter().enumerate() {
            let (name, source) = if at == 0 {
                (name.as_str(), source.as_str())
            } else {
                ("", "")
            };
            let blanks = |text: &str, width: usize| " ".repeat(width.saturating_sub(text.width()));
            let line = format!(
                "{name}{}{GAP}{part}{}{GAP}{source}",
                blanks(name, names),
                blanks(part, values)
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}
