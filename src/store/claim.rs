//! Claiming: makes due events this worker's for the time of a lease.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::Row;
use postgres::types::Timestamp;

use super::connect::Session;
use super::error::StoreError;
use crate::config::CLAIM_EVENTS_MAX;
use crate::event::Event;

/// Where a claim starts to look: behind the event that was due at this time and has this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub(super) next_run_at: DbTime,
    pub(super) id: i64,
}

impl Position {
    /// Before all events.
    pub const FRONT: Position = Position {
        next_run_at: DbTime::NegInfinity,
        id: i64::MIN,
    };

    /// Before all events that are due at this time or later, in microseconds since 1970.
    pub fn at(micros: i64) -> Position {
        let distance = Duration::from_micros(micros.unsigned_abs());
        let time = if micros < 0 {
            UNIX_EPOCH - distance
        } else {
            UNIX_EPOCH + distance
        };
        Position {
            next_run_at: DbTime::Value(time),
            id: i64::MIN,
        }
    }

    /// Says whether this position comes after `other`.
    pub fn is_behind(&self, other: &Position) -> bool {
        self.key() > other.key()
    }

    fn key(&self) -> (u8, Option<SystemTime>, i64) {
        match self.next_run_at {
            DbTime::NegInfinity => (0, None, self.id),
            DbTime::Value(time) => (1, Some(time), self.id),
            DbTime::PosInfinity => (2, None, self.id),
        }
    }
}

/// Event types that are left out of a claim, or alone in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter<'a> {
    /// All but these.
    Without(&'a [String]),
    /// These and no others.
    Only(&'a [String]),
}

/// What is to be claimed.
#[derive(Debug, Clone, Copy)]
pub struct ClaimQuery<'a> {
    /// Who claims; unique per start of a worker.
    pub worker: &'a str,
    /// Most events; more than [`CLAIM_EVENTS_MAX`] counts as that.
    pub limit: u16,
    /// How long nobody else may have them.
    pub lease: Duration,
    /// Where to start.
    pub after: &'a Position,
    /// Which event types.
    pub filter: Filter<'a>,
    /// Most bytes of payload; one event is always taken.
    pub bytes_max: u64,
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

    /// Names the database.
    pub fn database(&mut self) -> Result<String, StoreError> {
        let sql = "select current_database()::text";
        let names = self.query("name the database", sql, &[], |row| row.try_get(0))?;
        Ok(names.into_iter().next().unwrap_or_default())
    }

    /// Claims due events under one new lease; `None` when nothing is due that nobody holds.
    pub fn claim(&mut self, query: &ClaimQuery<'_>) -> Result<Option<ClaimedEvents>, StoreError> {
        if query.limit == 0 {
            return Ok(None);
        }
        let (without, only) = match query.filter {
            Filter::Without([]) => (None, None),
            Filter::Without(types) => (Some(types), None),
            Filter::Only(types) => (None, Some(types)),
        };
        let claimed = self.query(
            "claim events",
            include_str!("../../sql/claim.sql"),
            &[
                &query.worker,
                &i32::from(query.limit.min(CLAIM_EVENTS_MAX)),
                &query.lease.as_secs_f64(),
                &query.after.next_run_at,
                &query.after.id,
                &without,
                &only,
                &i64::try_from(query.bytes_max).unwrap_or(i64::MAX),
            ],
            |row| {
                Ok((
                    row.try_get(0)?,
                    position(row)?,
                    row.try_get(10)?,
                    event(row)?,
                ))
            },
        )?;
        let lease = claimed
            .last()
            .map(|&(token, last, now, _)| (token, last, now));
        Ok(lease.map(|(token, last, now)| ClaimedEvents {
            token,
            last,
            now_micros: unix_micros(now).unwrap_or(0),
            events: claimed.into_iter().map(|(_, _, _, event)| event).collect(),
        }))
    }
}

fn position(row: &Row) -> Result<Position, postgres::Error> {
    Ok(Position {
        next_run_at: row.try_get(7)?,
        id: row.try_get(1)?,
    })
}

fn event(row: &Row) -> Result<Event, postgres::Error> {
    Ok(Event {
        id: row.try_get(1)?,
        aggregate_type: row.try_get(2)?,
        aggregate_id: row.try_get(3)?,
        event_type: row.try_get(4)?,
        payload: row.try_get(5)?,
        attempt: attempts(row.try_get(6)?).saturating_add(1),
        created_at_micros: unix_micros(row.try_get(8)?),
        headers: row.try_get(9)?,
    })
}

/// Attempts as they may stand in a row, made a count.
pub(super) fn attempts(stored: Option<i32>) -> u32 {
    stored.map_or(0, |n| u32::try_from(n).unwrap_or(0))
}

/// A point in time as the database knows them, `infinity` and `-infinity` among them; microseconds survive the way there and back.
pub(super) type DbTime = Timestamp<SystemTime>;

/// Microseconds since 1970; `None` for the infinities.
pub(super) fn unix_micros(time: DbTime) -> Option<i64> {
    let Timestamp::Value(time) = time else {
        return None;
    };
    let micros = |distance: Duration| i64::try_from(distance.as_micros()).ok();
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => micros(before.duration()).map(|micros| -micros),
    }
}

/// A time as the database takes it: what was before its calendar is infinitely long ago.
pub(super) fn db_time(micros: i64) -> DbTime {
    /// 4713 BC, with some days to spare. On the other side its calendar reaches further than the number.
    const EARLIEST: i64 = -210_866_000_000_000_000;
    let distance = Duration::from_micros(micros.unsigned_abs());
    match micros {
        ..EARLIEST => DbTime::NegInfinity,
        EARLIEST..0 => DbTime::Value(UNIX_EPOCH - distance),
        0.. => DbTime::Value(UNIX_EPOCH + distance),
    }
}
