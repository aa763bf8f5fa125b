//! `dispatchbox dead-events show`: one dead letter with its payload and error.

use std::process::ExitCode;

use crate::cli::commands::one_shot::{self, Failure, one_shot_args};
use crate::cli::settings::{Env, values};
use crate::cli::terminal;
use crate::cli::terminal::output::print;
use crate::store::DeadEvent;

one_shot_args! {
    /// Options of `dead-events show`.
    pub struct ShowArgs {
        #[argh(positional, arg_name = "id")]
        /// id of the dead event
        pub id: String,
        #[argh(switch)]
        /// print the JSON object of GET /api/dead-events/ID
        pub json: bool,
    }
}

/// Runs the command.
pub(super) fn run(args: &ShowArgs, env: &Env) -> ExitCode {
    let read = || values::named("the id", &args.id, values::event_id);
    let command = "dead-events show";
    one_shot::look(command, args.given(), env, read, |session, id| {
        let event = session.dead_event(id)?.ok_or_else(|| {
            Failure::Other(format!(
                "dead event {id} not found; `dispatchbox explain {id}` says what became of it"
            ))
        })?;
        print(&if args.json {
            terminal::safe_json(&event.to_json()) + "\n"
        } else {
            text(&event)
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

fn text(event: &DeadEvent) -> String {
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
    let lines = [
        ("id", event.id.to_string()),
        ("event type", event.event_type.clone()),
        (
            "aggregate",
            format!("{}/{}", event.aggregate_type, event.aggregate_id),
        ),
        ("attempts", event.attempts.to_string()),
        ("written", time(&event.created_at)),
        ("dead since", time(&event.finished_at)),
        ("failed last", time(&event.last_error_at)),
        ("last error", time(&event.last_error)),
        ("headers", time(&event.headers)),
        ("payload", event.payload.clone()),
    ];
    terminal::fields(&lines)
}
