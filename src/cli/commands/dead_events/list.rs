//! `dispatchbox dead-events list`: one page of the dead letters, newest first.

use std::process::ExitCode;

use crate::cli::commands::dead_events::filter::dead_set_args;
use crate::cli::commands::one_shot;
use crate::cli::settings::{Env, values};
use crate::cli::terminal::message::say;
use crate::cli::terminal::output::print;
use crate::cli::terminal::{self, Table};
use crate::domain::figure::counted;
use crate::domain::usage::UsageError;
use crate::store::DeadEvent;

/// Default number of events on a page: as many as a person looks through.
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
    one_shot::look(command, args.given(), env, read, |session, wanted| {
        let (chosen, (limit, offset)) = wanted;
        let is_filtered = !chosen.is_all();
        let filter = chosen.resolve(session)?;
        let events = session.dead_events(&filter, limit, offset, usize::MAX)?;
        if args.json {
            print(&json(&events, limit, offset))?;
            return Ok(ExitCode::SUCCESS);
        }
        let is_page_full = events.len() == limit as usize;
        let total = if is_page_full || events.is_empty() && offset > 0 {
            session.count_dead(&filter)?
        } else {
            offset + events.len() as u64
        };
        if events.is_empty() {
            say(&nothing(total, offset, is_filtered));
            return Ok(ExitCode::SUCCESS);
        }
        print(&table(&events).render(terminal::width()))?;
        if is_page_full {
            say(&place(total, offset, events.len() as u64));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Says why a page is empty: an offset behind the last event must not look like good news.
fn nothing(total: u64, offset: u64, is_filtered: bool) -> String {
    let whose = if is_filtered {
        ", all that the filter lets pass"
    } else {
        ""
    };
    match (total, is_filtered) {
        (0, true) => "no dead event matches the filter\n".to_owned(),
        (0, false) => "no dead events\n".to_owned(),
        _ => format!(
            "--offset {offset} is behind the last of {}{whose}\n",
            counted(total, "dead event")
        ),
    }
}

/// Says which part of all events a full page shows, and how to get the next page.
fn place(total: u64, offset: u64, n_shown: u64) -> String {
    let last = offset + n_shown;
    let which = match n_shown {
        1 => format!("event {last}"),
        _ => format!("events {} to {last}", offset + 1),
    };
    if last >= total {
        format!("{which} of {total}\n")
    } else {
        format!("{which} of {total}; --offset {last} shows the next\n")
    }
}

fn page(args: &ListArgs) -> Result<(u32, u64), UsageError> {
    let limit = values::option("--limit", args.limit.as_deref(), |text| {
        values::count(text, &(1..=LIMIT_MAX))
    })?;
    let offset = values::option("--offset", args.offset.as_deref(), |text| {
        values::whole(text, &(0..=i64::MAX.unsigned_abs()))
    })?;
    Ok((limit.unwrap_or(LIMIT_USUAL), offset.unwrap_or(0)))
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
    // The last error is what a person looks for, so other columns are narrowed before it.
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
