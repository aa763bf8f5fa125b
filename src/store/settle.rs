//! Settling: writes what handling came to, where the lease still names the event.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::claim::attempts;
use super::connect::Session;
use super::error::StoreError;
use crate::event::Outcome;

/// Longest text kept in `last_error`: enough for the answer of a receiver, small enough that a million dead letters stay small.
const ERROR_BYTES_MAX: usize = 4096;

/// Longest delay of a retry, some 30 years: an interval that the database can still add to any date.
const DELAY_MAX: Duration = Duration::from_secs(1_000_000_000);

/// Outcomes that go to the database in one transaction.
#[derive(Debug, Clone, Copy)]
pub struct SettleBatch<'a> {
    /// Whose leases they belong to.
    pub worker: &'a str,
    /// The outcomes, each event at most once.
    pub outcomes: &'a [Settlement],
    /// Tokens of leases that have nothing left to settle after this batch; they end.
    pub ended: &'a [i64],
    /// A sweep on behalf of a worker that is gone: only where the lease is over.
    pub expired: bool,
}

/// What one claimed event came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The lease under which it was claimed.
    pub token: i64,
    /// Which event.
    pub event_id: i64,
    /// What it came to.
    pub outcome: Outcome,
}

/// An event of a batch that its lease still named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Which event.
    pub event_id: i64,
    /// Its outcome stands in the table now; false when the row was gone, or finished before: by this same batch sent earlier, by a person.
    pub written: bool,
}

/// How an event stands in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventState {
    /// Which event.
    pub event_id: i64,
    /// The column as it stands.
    pub status: String,
    /// Attempts counted so far.
    pub attempts: u32,
}

impl Session {
    /// Writes a batch of outcomes and returns what the leases still named, by id; an event that does not come back was lost: no lease of this worker names it any more. The same batch
    /// sent again changes nothing.
    pub fn settle(&mut self, batch: &SettleBatch<'_>) -> Result<Vec<Written>, StoreError> {
        let outcomes = batch.outcomes;
        let tokens: Vec<i64> = outcomes.iter().map(|one| one.token).collect();
        let ids: Vec<i64> = outcomes.iter().map(|one| one.event_id).collect();
        let names: Vec<&str> = outcomes.iter().map(|one| one.outcome.name()).collect();
        let delays: Vec<f64> = outcomes.iter().map(|one| delay(&one.outcome)).collect();
        let errors: Vec<Option<Cow<'_, str>>> = outcomes
            .iter()
            .map(|one| one.outcome.reason().map(clean_error))
            .collect();
        let errors: Vec<Option<&str>> = errors.iter().map(Option::as_deref).collect();

        let rows: Vec<(i64, bool)> = self.query(
            "settle events",
            include_str!("../../sql/settle.sql"),
            &[
                &batch.worker,
                &tokens,
                &ids,
                &names,
                &delays,
                &errors,
                &batch.ended,
                &batch.expired,
            ],
            |row| Ok((row.try_get(0)?, row.try_get(1)?)),
        )?;
        let mut written = BTreeMap::new();
        for (event_id, is_written) in rows {
            *written.entry(event_id).or_insert(false) |= is_written;
        }
        Ok(written
            .into_iter()
            .map(|(event_id, written)| Written { event_id, written })
            .collect())
    }

    /// Reads how events stand; those that are gone do not come back.
    pub fn read_back(&mut self, ids: &[i64]) -> Result<Vec<EventState>, StoreError> {
        self.query(
            "read events back",
            include_str!("../../sql/read_back.sql"),
            &[&ids],
            |row| {
                Ok(EventState {
                    event_id: row.try_get(0)?,
                    status: row.try_get(1)?,
                    attempts: attempts(row.try_get(2)?),
                })
            },
        )
    }
}

fn delay(outcome: &Outcome) -> f64 {
    match outcome {
        Outcome::Retry { delay, .. } => (*delay).min(DELAY_MAX).as_secs_f64(),
        Outcome::Done | Outcome::Dead { .. } | Outcome::Released => 0.0,
    }
}

/// Makes a text fit for the column: no NUL, which PostgreSQL refuses in any text, and not longer than it needs to be.
fn clean_error(text: &str) -> Cow<'_, str> {
    let cut = &text[..text.floor_char_boundary(ERROR_BYTES_MAX)];
    if cut.contains('\0') {
        Cow::Owned(cut.replace('\0', ""))
    } else {
        Cow::Borrowed(cut)
    }
}
