//! Settling: writes the outcomes of events, as far as their leases still name them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use postgres::Row;

use crate::domain::event::{Outcome, REASON_BYTES_MAX};
use crate::domain::text::first_bytes;
use crate::store::claim::attempts;
use crate::store::error::StoreError;
use crate::store::repertoire::Repertoire;
use crate::store::session::Session;

/// What writing outcomes is called in errors.
pub(super) const DOING_SETTLE: &str = "settle events";

/// Outcomes written one by one in a call: each is two subtransactions, and the server keeps 64 of
/// them at hand.
pub const EACH_MAX: usize = 30;

/// The most characters that the server is asked about for one batch, at a round trip each. Any
/// further ones are replaced without asking.
const ASKED_MAX: usize = 500;

/// Longest delay of a retry, some 30 years: an interval that the database can still add to any
/// date.
const DELAY_MAX: Duration = Duration::from_secs(1_000_000_000);

/// Outcomes that go to the database in one transaction.
#[derive(Debug, Clone, Copy)]
pub struct SettleBatch<'a> {
    /// The id of the worker whose leases name the events.
    pub worker: &'a str,
    /// The outcomes, each event at most once.
    pub outcomes: &'a [Settlement],
    /// Tokens of leases that have nothing left to settle after this batch; they end.
    pub ended: &'a [i64],
    /// A sweep on behalf of a worker that is gone: only where the lease is over.
    pub expired: bool,
}

/// The outcome of one claimed event.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The lease under which it was claimed.
    pub token: i64,
    /// The id of the event.
    pub event_id: i64,
    /// The outcome to write.
    pub outcome: Outcome,
}

/// An event of a batch that its lease still named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The id of the event.
    pub event_id: i64,
    /// Its outcome is in the table now. False if the row was gone, or was finished before: by this
    /// same batch sent earlier, or by a person.
    pub written: bool,
    /// The row is unchanged although the update succeeded, because a trigger keeps it as it was.
    /// The lease still names the event.
    pub kept: bool,
}

/// The result for one outcome of a batch that was written one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleResult {
    /// The same as in a batch that is written as a whole.
    Known(Written),
    /// The database refuses it now; the lease still names the event.
    Refused {
        /// The id of the event.
        event_id: i64,
        /// The reason.
        error: StoreError,
    },
    /// The call was over before its turn.
    Untried(i64),
}

/// The state of an event in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventState {
    /// The id of the event.
    pub event_id: i64,
    /// The column as it stands.
    pub status: String,
    /// Attempts counted so far.
    pub attempts: u32,
}

impl Session {
    /// Writes a batch of outcomes and returns what the leases still named, by id; an event that
    /// does not come back was lost: no lease of this worker names it any more. The same batch sent
    /// again changes nothing.
    pub fn settle(&mut self, batch: &SettleBatch<'_>) -> Result<Vec<Written>, StoreError> {
        let sql = include_str!("../../sql/settle.sql");
        let rows = self.send_outcomes(sql, batch, |row| {
            Ok((row.try_get(0)?, row.try_get::<_, Option<bool>>(1)?))
        })?;
        let mut settled: BTreeMap<i64, Written> = BTreeMap::new();
        for (event_id, written) in rows {
            let entry = settled.entry(event_id).or_insert(Written {
                event_id,
                written: false,
                kept: false,
            });
            entry.written |= written == Some(true);
            entry.kept |= written.is_none();
        }
        Ok(settled.into_values().collect())
    }

    /// The same, one outcome after the other: what the database does not take comes back with the
    /// reason, and all others are written. A lease of `ended` that has something left does not end.
    pub fn settle_each(
        &mut self,
        batch: &SettleBatch<'_>,
    ) -> Result<Vec<SettleResult>, StoreError> {
        let sql = include_str!("../../sql/settle_each.sql");
        let bound = self.statement_max();
        self.send_outcomes(sql, batch, |row| {
            let event_id = row.try_get(0)?;
            let written: Option<bool> = row.try_get(1)?;
            let code: Option<&str> = row.try_get(2)?;
            Ok(match code {
                None => SettleResult::Known(Written {
                    event_id,
                    written: written == Some(true),
                    kept: written.is_none(),
                }),
                Some("") => SettleResult::Untried(event_id),
                Some(code) => {
                    let cause: Option<String> = row.try_get(3)?;
                    let error = StoreError::of_row(DOING_SETTLE, code, cause.unwrap_or_default())
                        .with_bound(bound);
                    SettleResult::Refused { event_id, error }
                }
            })
        })
    }

    /// Sends the outcomes. If a reason holds characters that the encoding of the database lacks,
    /// they are replaced, so that the outcome is written all the same.
    fn send_outcomes<T>(
        &mut self,
        sql: &'static str,
        batch: &SettleBatch<'_>,
        read: impl Fn(&Row) -> Result<T, postgres::Error>,
    ) -> Result<Vec<T>, StoreError> {
        match self.try_outcomes(sql, batch, &read) {
            Err(error) if error.is_untranslatable() => {
                let reasons = batch.outcomes.iter().filter_map(|one| one.outcome.reason());
                if self.ask_repertoire(reasons)? {
                    self.try_outcomes(sql, batch, &read)
                } else {
                    Err(error)
                }
            }
            result => result,
        }
    }

    fn try_outcomes<T>(
        &mut self,
        sql: &'static str,
        batch: &SettleBatch<'_>,
        read: impl Fn(&Row) -> Result<T, postgres::Error>,
    ) -> Result<Vec<T>, StoreError> {
        let outcomes = batch.outcomes;
        let tokens: Vec<i64> = outcomes.iter().map(|one| one.token).collect();
        let ids: Vec<i64> = outcomes.iter().map(|one| one.event_id).collect();
        let names: Vec<&str> = outcomes.iter().map(|one| one.outcome.name()).collect();
        let delays: Vec<f64> = outcomes.iter().map(|one| delay(&one.outcome)).collect();
        let errors: Vec<Option<Cow<'_, str>>> = outcomes
            .iter()
            .map(|one| one.outcome.reason().filter(|reason| !reason.is_empty()))
            .map(|reason| reason.map(|reason| clean_error(reason, self.repertoire())))
            .collect();
        let errors: Vec<Option<&str>> = errors.iter().map(Option::as_deref).collect();

        self.query(
            DOING_SETTLE,
            sql,
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
            read,
        )
    }

    /// Asks the server about the characters of these texts; says whether it lacks one that was not
    /// known before.
    fn ask_repertoire<'a>(
        &mut self,
        texts: impl Iterator<Item = &'a str>,
    ) -> Result<bool, StoreError> {
        let mut is_news = false;
        let unknown = self.repertoire_mut().unknown(texts);
        for (asked, char) in unknown.into_iter().enumerate() {
            let is_there = asked < ASKED_MAX && self.has_character(char)?;
            is_news |= !is_there;
            self.repertoire_mut().learn(char, is_there);
        }
        Ok(is_news)
    }

    fn has_character(&mut self, char: char) -> Result<bool, StoreError> {
        let (text, sql) = (char.to_string(), "select $1::text is not null");
        match self.query("ask for a character", sql, &[&text], |_| Ok(())) {
            Ok(_) => Ok(true),
            Err(error) if error.is_untranslatable() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads the state of events; events that are gone are left out.
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

/// Makes a text fit for the column: no NUL, which PostgreSQL refuses in any text, nothing that the
/// database's encoding is known to lack, and not longer than it needs to be.
fn clean_error<'a>(text: &'a str, repertoire: &Repertoire) -> Cow<'a, str> {
    let cut = first_bytes(text, REASON_BYTES_MAX);
    if cut.contains('\0') {
        Cow::Owned(repertoire.fit(&cut.replace('\0', "")).into_owned())
    } else {
        repertoire.fit(cut)
    }
}
