//! `dispatchbox dead-events discard`: dead letters go to the archive, payload and error included.

use std::process::ExitCode;

use crate::cli::commands::dead_events::filter::dead_set_args;
use crate::cli::commands::dead_events::wanted::{Manner, Wanted, ids_typed};
use crate::cli::commands::one_shot;
use crate::cli::settings::{Env, values};
use crate::domain::usage::UsageError;
use crate::store::DeadChange;

dead_set_args! {
    /// Options of `dead-events discard`.
    pub struct DiscardArgs {
        #[argh(positional, arg_name = "id")]
        /// ids of dead events, instead of a filter
        pub ids: Vec<String>,
        #[argh(option, arg_name = "age")]
        /// only those written longer ago than this, `30d` for example; the same as --until
        pub older_than: Option<String>,
        #[argh(switch)]
        /// all dead events; needed where neither ids nor a filter are given
        pub all: bool,
        #[argh(switch)]
        /// change nothing; say how many it would be
        pub dry_run: bool,
        #[argh(switch)]
        /// do not ask
        pub yes: bool,
        #[argh(switch)]
        /// print one JSON object
        pub json: bool,
    }
}

/// Runs the command.
pub(super) fn run(args: &DiscardArgs, env: &Env) -> ExitCode {
    let command = "dead-events discard";
    let read = || wanted(args);
    one_shot::look(command, args.given(), env, read, |session, wanted| {
        let manner = Manner {
            is_dry_run: args.dry_run,
            is_confirmed: args.yes,
            is_json: args.json,
        };
        wanted.change(session, DeadChange::Discard, manner)
    })
}

fn wanted(args: &DiscardArgs) -> Result<Wanted, UsageError> {
    let mut chosen = args.chosen()?;
    if let Some(age) = &args.older_than {
        if chosen.until.is_some() {
            return Err(UsageError::new(
                "--older-than and --until exclude each other",
            ));
        }
        let age = values::named("--older-than", age, values::age)?;
        chosen.until = Some(values::Moment::Ago(age));
    }
    if args.ids.is_empty() {
        return Wanted::filtered(chosen, args.all);
    }
    if args.all || !chosen.is_all() {
        return Err(UsageError::new("ids exclude --all and the filters"));
    }
    ids_typed(&args.ids).map(Wanted::Ids)
}
