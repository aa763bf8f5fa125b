//! The statistics of the table: the numbers of waiting and dead events, counted at a bounded cost.
//! They are for gauges and for people, and no decision depends on them.
//!
//! The backlog are the due events that no lease names. The columns of an event that a slow handler
//! is handling say that it is due, too. But more workers would not help it, and an alert on the
//! oldest due event should not fire while it is being handled.

use std::time::Duration;

use crate::store::cursor::Position;
use crate::store::error::StoreError;
use crate::store::session::Session;
use crate::store::text::Text;
use crate::store::time::{DbTime, unix_micros};

/// The due events that no lease names.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// The number of events, counted no further than the limit.
    pub n_events: u64,
    /// The limit was reached, so there may be more.
    pub is_capped: bool,
    /// How long the oldest of them has been due; zero when there is none.
    pub oldest_due_age: Duration,
    /// The first due event, claimed or not; `None` when nothing is due.
    pub first: Option<Position>,
    /// The database's time of the look, in microseconds since 1970.
    pub now_micros: i64,
    /// Events that cannot be read, and are passed over.
    pub n_unreadable: u64,
}

/// Events that wait for their time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotDue {
    /// The number of events, counted no further than the limit.
    pub n_events: u64,
    /// The limit was reached, so there may be more.
    pub is_capped: bool,
    /// Until the first of them is due; `None` when there is none, or never.
    pub first_in: Option<Duration>,
}

/// Dead events by their type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadByType {
    /// The type as the row has it and how many, most first; together no more than the limit.
    pub counts: Vec<(String, u64)>,
    /// The limit was reached, so there may be more.
    pub is_capped: bool,
}

impl Session {
    /// Makes the plans of this session independent of the planner's statistics, once: whatever the
    /// table holds, each count walks an index and ends at its limit.
    pub fn set_up_statistics(&mut self) -> Result<(), StoreError> {
        let sql = include_str!("../../sql/statistics_set_up.sql");
        if self.is_bound(sql) {
            return Ok(());
        }
        self.bind("set up the survey", sql, |_| Ok(())).map(|_| ())
    }

    /// Counts up to `limit` due events that no lease names, from `from` on.
    pub fn count_backlog(&mut self, from: &Position, limit: u32) -> Result<Backlog, StoreError> {
        let claimed: Vec<(i64, bool)> = self.query(
            "list the claimed events",
            include_str!("../../sql/statistics_claimed.sql"),
            &[],
            |row| Ok((row.try_get(0)?, row.try_get(1)?)),
        )?;
        let n_unreadable = claimed.iter().filter(|&&(_, is_unreadable)| is_unreadable);
        let n_unreadable = n_unreadable.count() as u64;
        let claimed: Vec<i64> = claimed.into_iter().map(|(id, _)| id).collect();
        let found = self.query(
            "count the backlog",
            include_str!("../../sql/statistics_backlog.sql"),
            &[&claimed, &from.next_run_at, &from.id, &i64::from(limit)],
            |row| {
                let n_events = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
                let age: Option<f64> = row.try_get(1)?;
                let next_run_at: Option<DbTime> = row.try_get(2)?;
                let id: Option<i64> = row.try_get(3)?;
                Ok(Backlog {
                    n_events: n_events.min(u64::from(limit)),
                    is_capped: n_events >= u64::from(limit),
                    // A time that a Duration cannot hold is too old to matter.
                    oldest_due_age: Duration::try_from_secs_f64(age.unwrap_or(0.0))
                        .unwrap_or(Duration::ZERO),
                    first: next_run_at
                        .zip(id)
                        .map(|(next_run_at, id)| Position { next_run_at, id }),
                    now_micros: unix_micros(row.try_get(4)?).unwrap_or(0),
                    n_unreadable,
                })
            },
        )?;
        Ok(found.into_iter().next().expect("an aggregate has one row"))
    }

    /// Counts up to `limit` events that are not due yet.
    pub fn count_not_due(&mut self, limit: u32) -> Result<NotDue, StoreError> {
        let found = self.query(
            "count the events that are not due",
            include_str!("../../sql/statistics_not_due.sql"),
            &[&i64::from(limit)],
            |row| {
                let n_events = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
                let first_in: Option<f64> = row.try_get(1)?;
                Ok(NotDue {
                    n_events,
                    is_capped: n_events >= u64::from(limit),
                    first_in: first_in
                        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                })
            },
        )?;
        Ok(found.into_iter().next().expect("an aggregate has one row"))
    }

    /// Counts the newest `limit` dead events by type.
    pub fn count_dead_by_type(&mut self, limit: u32) -> Result<DeadByType, StoreError> {
        let by_type = include_str!("../../sql/statistics_dead.sql");
        let bare = include_str!("../../sql/statistics_dead_bare.sql");
        let counts = match self.count_dead_by(by_type, limit) {
            Err(error) if error.is_refusal() => self.count_dead_by(bare, limit)?,
            counts => counts?,
        };
        let n_events: u64 = counts.iter().map(|(_, n)| n).sum();
        Ok(DeadByType {
            counts,
            is_capped: n_events >= u64::from(limit),
        })
    }

    fn count_dead_by(
        &mut self,
        sql: &'static str,
        limit: u32,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        self.query("count the dead events", sql, &[&i64::from(limit)], |row| {
            let event_type: Text = row.try_get(0)?;
            let n_events: i64 = row.try_get(1)?;
            Ok((event_type.into(), u64::try_from(n_events).unwrap_or(0)))
        })
    }
}
