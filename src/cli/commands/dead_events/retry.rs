//! `dispatchbox dead-events retry` and `retry-batch`: dead letters become due again, from the first
//! attempt on.

use std::process::ExitCode;

use crate::cli::commands::dead_events::batch::{self, Set};
use crate::cli::commands::dead_events::filter::dead_set_args;
use crate::cli::commands::dead_events::wanted::{Manner, Wanted, ids_in, ids_typed};
use crate::cli::commands::one_shot::{self, one_shot_args};
use crate::cli::settings::Env;
use crate::domain::usage::UsageError;
use crate::store::DeadChange;

one_shot_args! {
    /// Options of `dead-events retry`.
    pub struct RetryArgs {
        #[argh(positional, arg_name = "id")]
        /// ids of dead events
        pub ids: Vec<String>,
        #[argh(switch)]
        /// print one JSON object
        pub json: bool,
    }
}

dead_set_args! {
    /// Options of `dead-events retry-batch`.
    pub struct RetryBatchArgs {
        #[argh(option, arg_name = "file")]
        /// file of ids, one a line; `-` reads standard input
        pub ids_file: Option<String>,
        #[argh(switch)]
        /// all dead events; needed where no filter is given
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

/// Makes a few dead events due again. There is no confirmation, because each event was named.
pub(super) fn run(args: &RetryArgs, env: &Env) -> ExitCode {
    let read = || {
        if args.ids.is_empty() {
            return Err(UsageError::new("at least one id is needed"));
        }
        ids_typed(&args.ids)
    };
    let command = "dead-events retry";
    one_shot::look(command, args.given(), env, read, |session, ids| {
        let total = ids.len() as u64;
        batch::change(
            session,
            DeadChange::Requeue,
            Set::Ids(ids),
            total,
            args.json,
        )
    })
}

/// Makes many dead events due again.
pub(super) fn run_batch(args: &RetryBatchArgs, env: &Env) -> ExitCode {
    let read = || {
        let chosen = args.chosen()?;
        match &args.ids_file {
            Some(_) if args.all || !chosen.is_all() => {
                Err(UsageError::new("--ids-file excludes --all and the filters"))
            }
            Some(path) => ids_in(path).map(Wanted::Ids),
            None => Wanted::filtered(chosen, args.all),
        }
    };
    let command = "dead-events retry-batch";
    one_shot::look(command, args.given(), env, read, |session, wanted| {
        let manner = Manner {
            is_dry_run: args.dry_run,
            is_confirmed: args.yes,
            is_json: args.json,
        };
        wanted.change(session, DeadChange::Requeue, manner)
    })
}
