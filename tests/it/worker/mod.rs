//! The stages of a worker at work in a real daemon: what one of them is waiting for holds up
//! nothing else.

/// What the fetcher claims, when, and how much of it.
mod fetcher;
/// What ends when the server does not answer the keeper.
mod keeper;
/// Outcomes whose rows are locked or refused.
mod settler;
/// Outcomes that do not fit, are swallowed, or take too long.
mod sick;

use crate::support::TestDir;

/// Writes a configuration of these tables and returns its path.
fn config(directory: &TestDir, routes: &[String]) -> String {
    let path = directory.file("config.toml");
    std::fs::write(&path, routes.join("\n")).unwrap();
    path
}

/// A route that only logs and takes this many events at a time.
fn limited(pattern: &str, max_parallel: u16) -> String {
    format!(
        "[[route]]\nevent_type = \"{pattern}\"\nhandler = \"log\"\nmax_parallel = {max_parallel}\n"
    )
}

/// A route that only logs.
fn log(pattern: &str) -> String {
    format!("[[route]]\nevent_type = \"{pattern}\"\nhandler = \"log\"\n")
}

/// A route that runs a program, with further lines.
fn exec(pattern: &str, program: &str, more: &str) -> String {
    format!(
        "[[route]]\nevent_type = \"{pattern}\"\nhandler = \"exec\"\ncommand = [\"{program}\"]\n{more}\n"
    )
}
