//! Skipping finished events: entries of the due index whose events were finished, and that a
//! transaction elsewhere keeps.
//!
//! A look counts the due events that it reads, not the entries it has to pass in order to find
//! them. Five million entries of finished events take 0.75 s where a transaction that stays open
//! keeps them, so a look that starts in front of them can run into its time, each time. They are
//! passed in parts: by the time that events were due, and within one point in time, which all
//! events of a bulk insert share, by their ids.

use std::time::Duration;

use crate::store::cursor::Position;
use crate::store::error::StoreError;
use crate::store::session::Session;
use crate::store::time::{DbTime, unix_micros};

/// How far one call skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Over events that were due within this time.
    Time(Duration),
    /// Over so many ids of events that were due at the same time.
    Ids(i64),
}

/// How far a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Where the next look may start; `None` at the end of what is due.
    pub reached: Option<Position>,
    /// A due event is next.
    pub is_before_event: bool,
    /// The database's time, in microseconds since 1970.
    pub now_micros: i64,
}

impl Skipped {
    /// Says whether all events that were due at the time of the position are behind it.
    pub fn has_passed_time(&self) -> bool {
        self.reached.is_some_and(|reached| reached.id == i64::MAX)
    }
}

impl Session {
    /// Goes from `after` to the position before the next due event, and no further than `reach`.
    /// Claims nothing.
    pub fn skip(&mut self, after: &Position, reach: Reach) -> Result<Skipped, StoreError> {
        let (seconds, ids) = match reach {
            Reach::Time(time) => (Some(time.as_secs_f64()), None),
            Reach::Ids(ids) => (None, Some(ids)),
        };
        let rows = self.query(
            "skip finished events",
            include_str!("../../sql/skip.sql"),
            &[&after.next_run_at, &after.id, &seconds, &ids],
            |row| {
                let at: Option<DbTime> = row.try_get(0)?;
                let id: Option<i64> = row.try_get(1)?;
                let now: DbTime = row.try_get(3)?;
                Ok(Skipped {
                    reached: at
                        .zip(id)
                        .map(|(next_run_at, id)| Position { next_run_at, id }),
                    is_before_event: row.try_get(2)?,
                    now_micros: unix_micros(now).unwrap_or(0),
                })
            },
        )?;
        Ok(rows.first().copied().unwrap_or(Skipped {
            reached: None,
            is_before_event: false,
            now_micros: 0,
        }))
    }
}
