//! `dispatchbox config check`: says what would be effective, and whether `run` would start with it. It does not connect.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::cli::output::finish;
use crate::cli::run::RunArgs;
use crate::cli::settings::{self, Effective, Env};
use crate::cli::{complain, warn};
use crate::handler::Handlers;
use crate::logging;

/// Checks the settings of `run` and prints each with its source.
pub fn check(args: &RunArgs, env: &Env, handlers: &Handlers) -> ExitCode {
    match settings::explain(args, env, handlers) {
        Ok((settings, effective)) => {
            warn(&settings.warnings);
            finish(&table(&effective), ExitCode::SUCCESS)
        }
        Err(err) => complain(&err),
    }
}

fn table(effective: &[Effective]) -> String {
    let mut text = String::new();
    for Effective {
        name,
        value,
        source,
    } in effective
    {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:22} {:32} {}",
            logging::escape(value),
            source.name()
        );
    }
    if !effective.iter().any(|setting| setting.name == "route") {
        let _ = writeln!(text, "{:22} {:32} default", "route", "the sample routes");
    }
    text
}
