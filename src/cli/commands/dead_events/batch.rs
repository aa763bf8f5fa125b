//! Changing many dead letters: batch after batch, until all are done, a signal interrupts, or the
//! database fails.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::commands::one_shot::Failure;
use crate::cli::terminal::message::say;
use crate::cli::terminal::output::print;
use crate::cli::terminal::{self, events};
use crate::domain::usage::EXIT_FAILED;
use crate::store::{
    BulkChange, DEAD_BATCH, DeadChange, DeadCursor, DeadFilter, Session, StoreError,
};
use crate::system::signal::{self, SignalThread};

/// Most ids of events that were left alone that the reason is shown for: a person looks no further.
const LEFT_SHOWN_MAX: usize = 20;

impl DeadChange {
    /// The verb of the change.
    pub(super) fn verb(self) -> &'static str {
        match self {
            DeadChange::Requeue => "retry",
            DeadChange::Discard => "discard",
        }
    }

    fn past(self) -> &'static str {
        match self {
            DeadChange::Requeue => "requeued",
            DeadChange::Discard => "discarded",
        }
    }
}

/// Which dead events are changed.
pub(super) enum Set {
    /// The events that a person named.
    Ids(Vec<i64>),
    /// All dead events that match a filter.
    Filter(DeadFilter),
}

impl Set {
    /// Counts the events of the set that are dead now.
    pub(super) fn count(&self, session: &mut Session) -> Result<u64, StoreError> {
        match self {
            Set::Filter(filter) => session.count_dead(filter),
            Set::Ids(ids) => {
                let mut n_dead = 0;
                for batch in ids.chunks(DEAD_BATCH as usize) {
                    let states = session.read_back(batch)?;
                    n_dead += states.iter().filter(|state| state.status == "dead").count() as u64;
                }
                Ok(n_dead)
            }
        }
    }
}

/// The result of a change so far.
#[derive(Default)]
struct Tally {
    n_changed: u64,
    n_left: u64,
    /// The first of the events that were left alone.
    left: Vec<i64>,
    /// Why those of them that were dead were left alone.
    reasons: BTreeMap<i64, String>,
    interrupted: Option<&'static str>,
}

impl Tally {
    fn json(&self, change: DeadChange) -> Value {
        json!({
            (change.past()): self.n_changed,
            "left_alone": self.n_left,
            // The first events that were left alone, as many as are explained.
            "left_alone_ids": self.left,
            "interrupted": self.interrupted.is_some(),
            "dry_run": false,
        })
    }
}

/// Changes the set, which is expected to hold `total` events, and prints the result. An event that
/// was left alone makes the command fail, whether it was chosen by its id or by a filter.
pub(super) fn change(
    session: &mut Session,
    change: DeadChange,
    set: Set,
    total: u64,
    is_json: bool,
) -> Result<ExitCode, Failure> {
    let work = match set {
        Set::Filter(filter) => BulkChange::matching(change, filter, DeadCursor::default()),
        Set::Ids(ids) => BulkChange::of_ids(change, ids),
    };
    let mut tally = Tally::default();
    let ended = change_all(session, work, total, &mut tally);
    let n_changed = tally.n_changed;
    if let Err(error) = ended {
        if n_changed > 0 {
            say(&format!(
                "{} {} before that failed\n",
                change.past(),
                events(n_changed)
            ));
        }
        return Err(error);
    }
    let printed = print(&if is_json {
        format!("{}\n", tally.json(change))
    } else {
        format!("{} {}\n", change.past(), events(n_changed))
    });
    if tally.n_left > 0 {
        explain_left(session, &tally)?;
    }
    if let Some(signal) = tally.interrupted {
        say(&format!(
            "interrupted by {signal}: the others are as they were\n"
        ));
    }
    // The failure to print comes last, and with the number: the change is made although its output
    // could not be written.
    printed.map_err(|error| error.but(&format!("{} {}", change.past(), events(n_changed))))?;
    let is_failed = tally.interrupted.is_some() || tally.n_left > 0;
    Ok(ExitCode::from(if is_failed { EXIT_FAILED } else { 0 }))
}

fn change_all(
    session: &mut Session,
    mut work: BulkChange,
    total: u64,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let signals = SignalThread::start()
        .map_err(|error| Failure::Other(format!("could not listen to signals: {error}")))?;
    let bar = terminal::progress(Some(total));
    loop {
        let batch = work.find(session)?;
        if batch.is_empty() {
            break;
        }
        if let Some(done) = work.apply(session, &batch)? {
            let changed: BTreeSet<i64> = done.ids.into_iter().collect();
            if tally.left.len() < LEFT_SHOWN_MAX {
                let reasons = done.left.into_iter().map(|left| (left.id, left.reason));
                tally.reasons.extend(reasons);
            }
            tally.n_changed += changed.len() as u64;
            let left = batch.iter().filter(|id| !changed.contains(id));
            tally.n_left += left.clone().count() as u64;
            let room = LEFT_SHOWN_MAX.saturating_sub(tally.left.len());
            tally.left.extend(left.take(room));
            bar.inc(batch.len() as u64);
        }
        if let Ok(signal) = signals.received.try_recv() {
            tally.interrupted = Some(signal::name(signal));
            break;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Prints the present state of each event that was left alone.
fn explain_left(session: &mut Session, tally: &Tally) -> Result<(), StoreError> {
    let found = session.read_back(&tally.left)?;
    for id in &tally.left {
        let state = found.iter().find(|state| state.event_id == *id);
        let why = match state.map(|state| state.status.as_str()) {
            None => "there is no such event".to_owned(),
            Some("dead") => tally
                .reasons
                .get(id)
                .cloned()
                .unwrap_or_else(|| "it became dead only then".to_owned()),
            Some(status) => format!("its status is `{status}`"),
        };
        say(&format!("event {id} was left alone: {why}\n"));
    }
    let n_more = tally.n_left - tally.left.len() as u64;
    if n_more > 0 {
        say(&format!("and {n_more} more\n"));
    }
    Ok(())
}

/// Prints what would be changed.
pub(super) fn rehearse(
    session: &mut Session,
    change: DeadChange,
    set: &Set,
    is_json: bool,
) -> Result<ExitCode, Failure> {
    let n_dead = set.count(session)?;
    print(&if is_json {
        format!(
            "{}\n",
            json!({(change.past()): 0, "matched": n_dead, "dry_run": true})
        )
    } else {
        format!("would {} {}\n", change.verb(), events(n_dead))
    })?;
    Ok(ExitCode::SUCCESS)
}
