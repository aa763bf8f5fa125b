//! Which dead events a command changes: those that were named, or those that a filter lets pass.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::process::ExitCode;

use crate::cli::commands::dead_events::batch::{self, Set};
use crate::cli::commands::dead_events::filter::Chosen;
use crate::cli::commands::one_shot::Failure;
use crate::cli::settings::file::bounded;
use crate::cli::settings::values;
use crate::cli::terminal::message::say;
use crate::cli::terminal::{self, events};
use crate::domain::usage::{EXIT_FAILED, UsageError};
use crate::store::{DeadChange, Session};

/// Most bytes of a file of ids: some ten million of them.
const IDS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Which events to change, before the database was asked.
pub(super) enum Wanted {
    /// The events with these ids.
    Ids(Vec<i64>),
    /// The events that match the filters.
    Filter(Chosen),
}

/// How the events are changed, by the options.
pub(super) struct Manner {
    /// Nothing is changed; the command says how many events it would be.
    pub(super) is_dry_run: bool,
    /// The change is confirmed by an option, so that no question is needed.
    pub(super) is_confirmed: bool,
    /// The result is one JSON object.
    pub(super) is_json: bool,
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

    /// Changes the events, after a confirmation. Where no event is dead, none is changed: one that
    /// becomes dead later was not part of the question.
    pub(super) fn change(
        self,
        session: &mut Session,
        change: DeadChange,
        manner: Manner,
    ) -> Result<ExitCode, Failure> {
        let set = self.resolve(session)?;
        if manner.is_dry_run {
            return batch::rehearse(session, change, &set, manner.is_json);
        }
        let total = set.count(session)?;
        let database = session.database()?;
        let what = format!(
            "{} {} of the database {database}",
            change.verb(),
            events(total)
        );
        if total > 0 && !terminal::is_confirmed(manner.is_confirmed, &what)? {
            say("nothing was changed\n");
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        let set = match set {
            Set::Filter(_) if total == 0 => Set::Ids(Vec::new()),
            set @ (Set::Filter(_) | Set::Ids(_)) => set,
        };
        batch::change(session, change, set, total, manner.is_json)
    }

    /// Turns ages into times by the database's clock.
    fn resolve(self, session: &mut Session) -> Result<Set, Failure> {
        Ok(match self {
            Wanted::Ids(ids) => Set::Ids(ids),
            Wanted::Filter(chosen) => Set::Filter(chosen.resolve(session)?),
        })
    }
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
pub(super) fn ids_in(path: &str) -> Result<Vec<i64>, UsageError> {
    let text = match path {
        "-" => bounded(io::stdin(), IDS_BYTES_MAX),
        path => File::open(path).and_then(|file| bounded(file, IDS_BYTES_MAX)),
    };
    let text = text
        .map_err(|error| UsageError::new(format!("could not read --ids-file `{path}`: {error}")))?;
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
