//! Claiming: makes due events this worker's for the time of a lease.
//!
//! A look reads a bounded stretch of what is due, from a position on, and says how far it came even
//! where it found nothing to take. So no statement takes longer the more events there are that may
//! not run now.

use std::time::Duration;

use postgres::Row;

use crate::domain::config::CLAIM_EVENTS_MAX;
use crate::domain::event::Event;
use crate::store::cursor::Position;
use crate::store::error::StoreError;
use crate::store::session::Session;
use crate::store::text::Text;
use crate::store::time::unix_micros;

/// Which event types may be taken, and how many of each group of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection<'a> {
    /// Edges between the segments of event types, in the order of the collation "C" of the
    /// database.
    pub bounds: &'a [String],
    /// The group of each segment, from 1; 0 leaves its types out. One more than there are bounds.
    pub groups: &'a [i32],
    /// Most events of group 1, 2, …; `None` for as many as there are. Where no group has a limit,
    /// the whole list may be `None`.
    pub takes: Option<&'a [Option<i32>]>,
}

/// The terms of a claim.
#[derive(Debug, Clone, Copy)]
pub struct ClaimQuery<'a> {
    /// The id of the worker that claims, which is unique per start of a worker.
    pub worker: &'a str,
    /// Most events; more than [`CLAIM_EVENTS_MAX`] counts as that.
    pub limit: u16,
    /// How long no other worker may claim the events.
    pub lease: Duration,
    /// The position at which the look starts.
    pub after: &'a Position,
    /// Most due events that are read, whatever is taken of them; entries of finished events do not
    /// count. `None`: no bound; not allowed with a selection.
    pub stretch: Option<i32>,
    /// The event types that may be claimed; `None`: all.
    pub selection: Option<Selection<'a>>,
    /// Most bytes of payload and headers; one event is always taken.
    pub bytes_max: u64,
}

/// The result of one look at the due events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The claimed events; `None` when no event was found that may be claimed and that no lease
    /// names.
    pub claimed: Option<ClaimedEvents>,
    /// Everything up to here was looked at; `None`: all that is due.
    pub reached: Option<Position>,
    /// Groups, by their numbers from 1, that took all they may, each with the position of the last
    /// event taken: more of them may lie behind it.
    pub full: Vec<(usize, Position)>,
    /// The database's time of the look, in microseconds since 1970.
    pub now_micros: i64,
}

/// The events of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedEvents {
    /// Names the lease; shown when settling.
    pub token: i64,
    /// In the order in which they were due.
    pub events: Vec<Event>,
    /// The position of the last of them.
    pub last: Position,
    /// The database's time of the claim, in microseconds since 1970: how old the events were.
    pub now_micros: i64,
}

impl Session {
    /// Reads the database's clock, in microseconds since 1970.
    pub fn now(&mut self) -> Result<i64, StoreError> {
        let now = self.query("read the clock", "select now()", &[], |row| row.try_get(0))?;
        Ok(now.first().copied().and_then(unix_micros).unwrap_or(0))
    }

    /// The name of the database.
    pub fn database(&mut self) -> Result<String, StoreError> {
        let sql = "select current_database()::text";
        let names = self.query("name the database", sql, &[], |row| row.try_get(0))?;
        Ok(names.into_iter().next().unwrap_or_default())
    }

    /// Puts edges between event types into the order of this database, and leaves out those that
    /// its encoding lacks.
    pub fn sort_bounds(&mut self, bounds: &[String]) -> Result<Vec<String>, StoreError> {
        const DOING: &str = "sort the event types of the routes";
        let mut encodable: Vec<String> = Vec::with_capacity(bounds.len());
        for bound in bounds {
            // One statement for each bound, because a character that the encoding lacks fails the
            // whole statement.
            match self.query(DOING, "select $1::text", &[bound], |row| row.try_get(0)) {
                Ok(mut texts) => encodable.append(&mut texts),
                Err(error) if error.is_untranslatable() => {}
                Err(error) => return Err(error),
            }
        }
        let sql = "select t from unnest($1::text[]) t order by t collate \"C\"";
        self.query(DOING, sql, &[&encodable], |row| row.try_get(0))
    }

    /// Claims due events under one new lease; `None` when nothing is due that no lease names.
    pub fn claim(&mut self, query: &ClaimQuery<'_>) -> Result<Option<ClaimedEvents>, StoreError> {
        if query.limit == 0 {
            return Ok(None);
        }
        Ok(self.look(query)?.claimed)
    }

    /// Looks at due events, and claims what may be taken of them under one new lease. The limit
    /// must be at least 1.
    pub fn look(&mut self, query: &ClaimQuery<'_>) -> Result<Looked, StoreError> {
        let selection = query.selection;
        let rows = self.query(
            "claim events",
            include_str!("../../sql/claim.sql"),
            &[
                &query.worker,
                &i32::from(query.limit.min(CLAIM_EVENTS_MAX)),
                &i64::try_from(query.bytes_max).unwrap_or(i64::MAX),
                &query.lease.as_secs_f64(),
                &query.after.next_run_at,
                &query.after.id,
                &query.stretch,
                &selection.map(|selection| selection.bounds),
                &selection.map(|selection| selection.groups),
                &selection.and_then(|selection| selection.takes),
            ],
            |row| Ok((row.try_get(11)?, found(row)?)),
        )?;
        let now_micros = rows
            .first()
            .and_then(|&(now, _)| unix_micros(now))
            .unwrap_or(0);
        let mut looked = Looked {
            claimed: None,
            reached: None,
            full: Vec::new(),
            now_micros,
        };
        for (_, found) in rows {
            match found {
                Found::Reached(reached) => looked.reached = reached,
                Found::Full(group, position) => looked.full.push((group, position)),
                Found::Event(token, last, event) => {
                    let claimed = looked.claimed.get_or_insert_with(|| ClaimedEvents {
                        token,
                        events: Vec::new(),
                        last,
                        now_micros,
                    });
                    claimed.last = last;
                    claimed.events.push(event);
                }
            }
        }
        Ok(looked)
    }
}

/// One row of a look's answer.
enum Found {
    /// How far it came.
    Reached(Option<Position>),
    /// A group that took all it may.
    Full(usize, Position),
    /// A claimed event, with the token of its lease.
    Event(i64, Position, Event),
}

fn found(row: &Row) -> Result<Found, postgres::Error> {
    if let Some(token) = row.try_get(0)? {
        return Ok(Found::Event(token, position(row)?, event(row)?));
    }
    let group: Option<i32> = row.try_get(1)?;
    let id: Option<i64> = row.try_get(2)?;
    let position = id.map(|_| position(row)).transpose()?;
    Ok(
        match (
            group.and_then(|group| usize::try_from(group).ok()),
            position,
        ) {
            (Some(group), Some(position)) => Found::Full(group, position),
            (_, reached) => Found::Reached(reached),
        },
    )
}

fn position(row: &Row) -> Result<Position, postgres::Error> {
    Ok(Position {
        next_run_at: row.try_get(8)?,
        id: row.try_get(2)?,
    })
}

fn event(row: &Row) -> Result<Event, postgres::Error> {
    Ok(Event {
        id: row.try_get(2)?,
        aggregate_type: row.try_get::<_, Text>(3)?.into(),
        aggregate_id: row.try_get::<_, Text>(4)?.into(),
        event_type: row.try_get::<_, Text>(5)?.into(),
        payload: row.try_get::<_, Text>(6)?.into(),
        attempt: attempts(row.try_get(7)?).saturating_add(1),
        created_at_micros: unix_micros(row.try_get(9)?),
        headers: row.try_get::<_, Option<Text>>(10)?.map(String::from),
    })
}

/// Attempts as they may stand in a row, made a count.
pub(super) fn attempts(stored: Option<i32>) -> u32 {
    stored.map_or(0, |n| u32::try_from(n).unwrap_or(0))
}
