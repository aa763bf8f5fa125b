//! `dispatchbox dead-events stats`: how many dead letters there are, by event type.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::commands::dead_events::filter::dead_set_args;
use crate::cli::commands::one_shot;
use crate::cli::settings::Env;
use crate::cli::terminal::message::say;
use crate::cli::terminal::output::print;
use crate::cli::terminal::{self, Table};

/// Most event types that are shown: a person reads no more of them.
const TYPES_MAX: u32 = 1000;

dead_set_args! {
    /// Options of `dead-events stats`.
    pub struct StatsArgs {
        #[argh(switch)]
        /// print one JSON object
        pub json: bool,
    }
}

/// Runs the command.
pub(super) fn run(args: &StatsArgs, env: &Env) -> ExitCode {
    let read = || args.chosen();
    let command = "dead-events stats";
    one_shot::look(command, args.given(), env, read, |session, chosen| {
        let filter = chosen.resolve(session)?;
        let total = session.count_dead(&filter)?;
        let types = session.dead_by_type(&filter, TYPES_MAX)?;
        if args.json {
            let by_type: Vec<_> = types
                .iter()
                .map(|(event_type, count)| json!({"event_type": event_type, "count": count}))
                .collect();
            let stats = json!({
                "total": total,
                "aggregate_type": filter.aggregate_type,
                "event_type": filter.event_type.or(filter.event_type_prefix.map(|prefix| prefix + "*")),
                "by_type": by_type,
            });
            print(&(terminal::safe_json(&stats.to_string()) + "\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new(&["dead#", "event type"]);
        for (event_type, count) in &types {
            table.row([&count.to_string(), event_type]);
        }
        if !types.is_empty() {
            print(&table.render(terminal::width()))?;
        }
        say(&format!("{total} dead in all\n"));
        Ok(ExitCode::SUCCESS)
    })
}
