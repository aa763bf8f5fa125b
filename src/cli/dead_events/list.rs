//! `dispatchbox dead-events list`: one page of the dead letters, newest first.

use std::process::ExitCode;

use super::filter::dead_set_args;
use crate::cli::output::print;
use crate::cli::settings::Env;
use crate::cli::terminal::{self, Table};
use crate::cli::{one_shot, say, values};
use crate::error::UsageError;
use crate::store::DeadEvent;

/// Events on a page unless told otherwise: what a person looks through.
const LIMIT_USUAL: u32 = 100;

/// Most events on a page, as in the API: `export` is for more.
const LIMIT_MAX: u32 = 1000;

dead_set_args! {
    /// Options of `dead-events list`.
    pub struct ListArgs {
        #[argh(option, arg_name = "n")]
        /// events on this page, at most 1000 [default: 100]
        pub limit: Option<String>,
        #[argh(option, arg_name = "n")]
        /// events to pass over [default: 0]
        pub offset: Option<String>,
        #[argh(switch)]
        /// print the JSON object of GET /api/dead-events
        pub json: bool,
    }
}

/// Runs the command.
pub(super) fn run(args: &ListArgs, env: &Env) -> ExitCode {
    let read = || Ok((args.chosen()?, page(args)?));
    let command = "dead-events list";
    one_shot::run(command, args.given(), env, read, |session, wanted| {
        let (chosen, (limit, offset)) = wanted;
        let is_filtered = !chosen.is_all();
        let filter = chosen.resolve(session)?;
        let events = session.dead_events(&filter, limit, offset, usize::MAX)?;
        if args.json {
            print(&json(&events, limit, offset))?;
            return Ok(ExitCode::SUCCESS);
        }
        if events.is_empty() {
            say(if is_filtered {
                "no dead event matches the filter\n"
            } else {
                "no dead events\n"
            });
            return Ok(ExitCode::SUCCESS);
        }
        print(&table(&events).render(terminal::width()))?;
        if events.len() == limit as usize {
            let total = session.count_dead(&filter)?;
            say(&format!(
                "events {} to {} of {total}; --offset {} shows the next\n",
                offset + 1,
                offset + u64::from(limit),
                offset + u64::from(limit),
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn page(args: &ListArgs) -> Result<(u32, u64), UsageError> {
    let limit = args.limit.as_deref().map_or(Ok(LIMIT_USUAL), |text| {
        values::count(text, &(1..=LIMIT_MAX)).map_err(|why| format!("--limit {why}"))
    });
    let offset = args.offset.as_deref().map_or(Ok(0), |text| {
        values::whole(text, &(0..=i64::MAX.unsigned_abs())).map_err(|why| format!("--offset {why}"))
    });
    limit
        .and_then(|limit| Ok((limit, offset?)))
        .map_err(UsageError::new)
}

fn json(events: &[DeadEvent], limit: u32, offset: u64) -> String {
    let rows: Vec<String> = events.iter().map(DeadEvent::to_json).collect();
    terminal::safe_json(&format!(
        "{{\"events\":[{}],\"count\":{},\"limit\":{limit},\"offset\":{offset}}}\n",
        rows.join(","),
        rows.len()
    ))
}

fn table(events: &[DeadEvent]) -> Table {
    let mut table = Table::new(&[
        "id#",
        "written",
        "event type",
        "aggregate",
        "attempts#",
        "last error",
    ]);
    // What went wrong is what a person looks for.
    table.narrow_first(&[3, 2]);
    for event in events {
        table.row([
            event.id.to_string(),
            event
                .created_at
                .as_deref()
                .map_or_else(|| "-".to_owned(), terminal::short_time),
            event.event_type.clone(),
            format!("{}/{}", event.aggregate_type, event.aggregate_id),
            event.attempts.to_string(),
            event.last_error.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}
