//! `dispatchbox dead-events retry` and `retry-batch`: dead letters become due again, from the first
//! attempt on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use crate::cli::commands::dead_events::batch::{self, Set};
use crate::cli::commands::dead_events::filter::{Chosen, dead_set_args};
use crate::cli::commands::one_shot::{self, Failure, one_shot_args};
use crate::cli::settings::{Env, values};
use crate::cli::terminal::message::say;
use crate::cli::terminal::{self, events};
use crate::domain::usage::{EXIT_FAILED, UsageError};
use crate::store::{DeadChange, Session};

/// Most bytes of a file of ids: some ten million of them.
const IDS_BYTES_MAX: u64 = 256 * 1024 * 1024;

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
        let set = wanted.resolve(session)?;
        if args.dry_run {
            return batch::rehearse(session, DeadChange::Requeue, &set, args.json);
        }
        change_if_confirmed(session, DeadChange::Requeue, set, args.yes, args.json)
    })
}

/// Which events to change, before the database was asked.
pub(super) enum Wanted {
    /// The events with these ids.
    Ids(Vec<i64>),
    /// The events that match the filters.
    Filter(Chosen),
}

impl Wanted {
    /// Chooses a set by filters. Without a filter it means all only where `--all` says so: a
    /// mistyped command must not change everything.
    pub(super) fn filtered(chosen: Chosen, is_all: bool) -> Result<Wanted, UsageError> {
        match (chosen.is_all(), is_all) {
            (true, false) => Err(UsageError::new(
                "it is not said which dead events: give a filter, ids, or --all",
            )),
            (false, true) => Err(UsageError::new("--all excludes the filters")),
            (true, true) | (false, false) => Ok(Wanted::Filter(chosen)),
        }
    }

    /// Turns ages into times by the database's clock.
    pub(super) fn resolve(self, session: &mut Session) -> Result<Set, Failure> {
        Ok(match self {
            Wanted::Ids(ids) => Set::Ids(ids),
            Wanted::Filter(chosen) => Set::Filter(chosen.resolve(session)?),
        })
    }
}

/// Says how many events would be changed, asks for confirmation, and changes them.
pub(super) fn change_if_confirmed(
    session: &mut Session,
    change: DeadChange,
    set: Set,
    is_yes: bool,
    is_json: bool,
) -> Result<ExitCode, Failure> {
    let total = set.count(session)?;
    let database = session.database()?;
    let what = format!(
        "{} {} of the database {database}",
        change.verb(),
        events(total)
    );
    if total > 0 && !terminal::is_confirmed(is_yes, &what)? {
        say("nothing was changed\n");
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    // An event that becomes dead from now on was not part of the question.
    let set = match set {
        Set::Filter(_) if total == 0 => Set::Ids(Vec::new()),
        set @ (Set::Filter(_) | Set::Ids(_)) => set,
    };
    batch::change(session, change, set, total, is_json)
}

/// Reads ids from the command line, without duplicates.
pub(super) fn ids_typed(texts: &[String]) -> Result<Vec<i64>, UsageError> {
    let ids = texts
        .iter()
        .map(|text| values::named("an id", text, values::event_id));
    let ids: BTreeSet<i64> = ids.collect::<Result<_, _>>()?;
    Ok(ids.into_iter().collect())
}

/// Reads ids from a file or from standard input: one a line; empty lines and lines that begin with
/// `#` are skipped.
fn ids_in(path: &str) -> Result<Vec<i64>, UsageError> {
    let failed = |error: &dyn std::fmt::Display| {
        UsageError::new(format!("could not read --ids-file `{path}`: {error}"))
    };
    let mut text = String::new();
    let source: Box<dyn Read> = match path {
        "-" => Box::new(io::stdin()),
        path => Box::new(File::open(path).map_err(|error| failed(&error))?),
    };
    let n_bytes = source
        .take(IDS_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    if n_bytes as u64 > IDS_BYTES_MAX {
        return Err(failed(&"it is larger than 256 MiB"));
    }
    let mut ids = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = format!("--ids-file `{path}`, line {}: an id", at + 1);
        ids.insert(values::named(&name, line, values::event_id)?);
    }
    if ids.is_empty() {
        return Err(UsageError::new(format!("--ids-file `{path}` holds no id")));
    }
    Ok(ids.into_iter().collect())
}
