//! Inspection: the state of one event, and what the leases show about the workers.

use std::time::Duration;

use crate::domain::event::Outcome;
use crate::store::dead_event::time_text;
use crate::store::error::StoreError;
use crate::store::session::{Limits, Session};
use crate::store::settle::{DOING_SETTLE, SettleBatch, SettleResult, Settlement};
use crate::store::text::Text;
use crate::store::time::{DbTime, unix_micros};

/// How long a rehearsal may keep a worker waiting that settles the same event.
const REHEARSAL: Limits = Limits {
    lock: Some(Duration::from_millis(100)),
    statement: Some(Duration::from_secs(1)),
};

/// Workers that are listed: the largest fleet that a person reads.
const WORKERS_MAX: i64 = 1000;

/// Event types that are listed.
const TYPES_MAX: i64 = 1000;

/// An event as it stands in the table. Times as in [`super::DeadEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The database's now, in microseconds since 1970.
    pub now_micros: i64,
    /// Kind of the business object that the event is about.
    pub aggregate_type: String,
    /// Which object of that kind.
    pub aggregate_id: String,
    /// What happened.
    pub event_type: String,
    /// The column, whatever stands in it.
    pub status: String,
    /// Attempts so far.
    pub attempts: i64,
    /// When it is due; `None` is a null.
    pub next_run_at: Option<String>,
    /// The same in microseconds since 1970; `None` also for the infinities.
    pub next_run_at_micros: Option<i64>,
    /// `next_run_at` is over.
    pub is_time_over: bool,
    /// When the producer wrote it.
    pub created_at: Option<String>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When the last attempt failed.
    pub last_error_at: Option<String>,
    /// When it was done or became dead.
    pub finished_at: Option<String>,
    /// The lease that names it.
    pub lease: Option<EventLease>,
}

/// The lease that names an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLease {
    /// The id of the worker that claimed.
    pub worker: String,
    /// When it expires.
    pub expires_at: String,
    /// The same in microseconds since 1970.
    pub expires_at_micros: Option<i64>,
    /// Its token.
    pub token: i64,
}

/// An event in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// What it ended as.
    pub status: String,
    /// Attempts that it had.
    pub attempts: i64,
    /// When it was moved.
    pub archived_at: String,
    /// Why its last failed attempt failed.
    pub last_error: Option<String>,
}

/// A worker that holds leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// Its id: host, slot, and a random part.
    pub worker: String,
    /// Leases that it holds.
    pub n_leases: u64,
    /// Events that they name, done ones among them.
    pub n_events: u64,
    /// When the last of them is over.
    pub expires_at: String,
    /// All of them are over: it is gone, or cut off from the database.
    pub is_expired: bool,
}

impl Session {
    /// Reads how an event stands; `None` when it is not in the table.
    pub fn inspect(&mut self, id: i64) -> Result<Option<Inspection>, StoreError> {
        let whole = include_str!("../../sql/inspect.sql");
        let bare = include_str!("../../sql/inspect_bare.sql");
        match self.inspect_by(whole, id) {
            Err(error) if error.is_refusal() => self.inspect_by(bare, id),
            found => found,
        }
    }

    fn inspect_by(&mut self, sql: &'static str, id: i64) -> Result<Option<Inspection>, StoreError> {
        let found = self.query("inspect the event", sql, &[&id], |row| {
            let time = |at| Ok(row.try_get::<_, Option<DbTime>>(at)?.map(time_text));
            let next_run_at: Option<DbTime> = row.try_get(6)?;
            let expires_at: Option<DbTime> = row.try_get(13)?;
            let worker: Option<String> = row.try_get(12)?;
            let token: Option<i64> = row.try_get(14)?;
            Ok(Inspection {
                now_micros: unix_micros(row.try_get(0)?).unwrap_or(0),
                aggregate_type: row.try_get::<_, Text>(1)?.into(),
                aggregate_id: row.try_get::<_, Text>(2)?.into(),
                event_type: row.try_get::<_, Text>(3)?.into(),
                status: row.try_get::<_, Text>(4)?.into(),
                attempts: row.try_get::<_, i32>(5)?.into(),
                next_run_at: next_run_at.map(time_text),
                next_run_at_micros: next_run_at.and_then(unix_micros),
                created_at: time(7)?,
                last_error: row.try_get::<_, Option<Text>>(8)?.map(String::from),
                last_error_at: time(9)?,
                finished_at: time(10)?,
                is_time_over: row.try_get::<_, Option<bool>>(11)?.unwrap_or(false),
                lease: worker
                    .zip(expires_at)
                    .map(|(worker, expires_at)| EventLease {
                        worker,
                        expires_at: time_text(expires_at),
                        expires_at_micros: unix_micros(expires_at),
                        token: token.unwrap_or_default(),
                    }),
            })
        })?;
        Ok(found.into_iter().next())
    }

    /// Writes the outcome of a claimed event as its worker would, undoes that, and returns what the
    /// database has against it, if anything.
    pub fn rehearse_settling(
        &mut self,
        event_id: i64,
        lease: &EventLease,
    ) -> Result<Option<StoreError>, StoreError> {
        let outcome = Settlement {
            token: lease.token,
            event_id,
            outcome: Outcome::Done,
        };
        let batch = SettleBatch {
            worker: &lease.worker,
            outcomes: &[outcome],
            ended: &[],
            expired: false,
        };
        self.wait_no_longer(REHEARSAL)?;
        let results = self.undone(|session| session.settle_each(&batch));
        self.wait_no_longer(Limits::default())?;
        Ok(results?.into_iter().find_map(|result| match result {
            SettleResult::Known(written) if written.kept => Some(StoreError::kept(DOING_SETTLE)),
            SettleResult::Refused { error, .. } => Some(error),
            SettleResult::Known(_) | SettleResult::Untried(_) => None,
        }))
    }

    /// Looks for an event in the archive.
    pub fn archived(&mut self, id: i64) -> Result<Option<Archived>, StoreError> {
        let found = self.query(
            "look into the archive",
            include_str!("../../sql/archived.sql"),
            &[&id],
            |row| {
                Ok(Archived {
                    status: row.try_get(0)?,
                    attempts: row.try_get::<_, i32>(1)?.into(),
                    archived_at: time_text(row.try_get(2)?),
                    last_error: row.try_get::<_, Option<Text>>(3)?.map(String::from),
                })
            },
        )?;
        Ok(found.into_iter().next())
    }

    /// Lists the workers that hold leases.
    pub fn lease_holders(&mut self) -> Result<Vec<LeaseHolder>, StoreError> {
        self.query(
            "list the workers that hold leases",
            include_str!("../../sql/lease_holders.sql"),
            &[&WORKERS_MAX],
            |row| {
                Ok(LeaseHolder {
                    worker: row.try_get(0)?,
                    n_leases: row.try_get::<_, i64>(1)?.unsigned_abs(),
                    n_events: row.try_get::<_, i64>(2)?.unsigned_abs(),
                    expires_at: time_text(row.try_get(3)?),
                    is_expired: row.try_get(4)?,
                })
            },
        )
    }

    /// Counts the claimed and unfinished events of each type, the most frequent first.
    pub fn in_flight_types(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        self.query(
            "count claimed events by type",
            include_str!("../../sql/in_flight_types.sql"),
            &[&TYPES_MAX],
            |row| {
                let event_type: Text = row.try_get(0)?;
                Ok((event_type.into(), row.try_get::<_, i64>(1)?.unsigned_abs()))
            },
        )
    }

    /// Counts the workers whose connections this role may see.
    pub fn connected_workers(&mut self) -> Result<u64, StoreError> {
        let counts = self.query(
            "look for connections of workers",
            include_str!("../../sql/worker_back_ends.sql"),
            &[],
            |row| row.try_get::<_, i64>(0),
        )?;
        Ok(counts.first().map_or(0, |count| count.unsigned_abs()))
    }
}
