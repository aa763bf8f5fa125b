//! Leases: renewing those in hand, and ending orphaned and expired ones.

use std::time::Duration;

use postgres::Row;

use crate::store::error::StoreError;
use crate::store::session::Session;
use crate::store::time::unix_micros;

/// A lease in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its token.
    pub token: i64,
    /// The id of the worker that claimed.
    pub worker: String,
    /// When it expires, in microseconds since 1970; `None` for `infinity` and `-infinity`.
    pub expires_at_micros: Option<i64>,
    /// The events it names: those that are not settled, and those done since.
    pub event_ids: Vec<i64>,
}

impl Session {
    /// Renews leases in hand and returns the tokens of those that were. Another one is lost, or
    /// locked at this moment: ask again.
    pub fn renew(
        &mut self,
        worker: &str,
        tokens: &[i64],
        lease: Duration,
    ) -> Result<Vec<i64>, StoreError> {
        self.query(
            "renew leases",
            include_str!("../../sql/renew.sql"),
            &[&worker, &tokens, &lease.as_secs_f64()],
            |row| row.try_get(0),
        )
    }

    /// Ends this worker's leases whose token is not in hand, and returns how many; their events are
    /// due at once, no attempt is charged.
    ///
    /// Called after a claim whose answer was lost. No other claim of the worker may be under way:
    /// the token of its lease would not be among those in hand yet.
    pub fn release_orphans(&mut self, worker: &str, in_hand: &[i64]) -> Result<u64, StoreError> {
        let released = self.query(
            "release stray leases",
            include_str!("../../sql/release_orphans.sql"),
            &[&worker, &in_hand],
            |_| Ok(()),
        )?;
        Ok(released.len() as u64)
    }

    /// Lists the leases of one worker.
    pub fn leases_of(&mut self, worker: &str) -> Result<Vec<Lease>, StoreError> {
        self.query(
            "list the leases of a worker",
            include_str!("../../sql/leases_of.sql"),
            &[&worker],
            lease,
        )
    }

    /// Says whether a connection with this `application_name` is open on the server: what it runs
    /// may still be committed.
    pub fn has_backend(&mut self, application_name: &str) -> Result<bool, StoreError> {
        let is_shared = self.is_shared();
        self.query(
            "look for back ends of a worker",
            include_str!("../../sql/has_backend.sql"),
            &[&application_name, &is_shared],
            |row| row.try_get::<_, bool>(0),
        )
        .map(|found| found.contains(&true))
    }

    /// Lists up to `limit` leases that have expired by the database's clock, oldest first.
    pub fn expired_leases(&mut self, limit: u16) -> Result<Vec<Lease>, StoreError> {
        self.query(
            "list expired leases",
            include_str!("../../sql/expired_leases.sql"),
            &[&i64::from(limit)],
            lease,
        )
    }

    /// Makes an expired lease expire again after `wait`, because its remaining events cannot be
    /// written now. Has no effect on a lease that was renewed.
    pub fn postpone_lease(&mut self, lease: &Lease, wait: Duration) -> Result<(), StoreError> {
        self.query(
            "postpone a lease",
            include_str!("../../sql/postpone_lease.sql"),
            &[&lease.token, &lease.worker, &wait.as_secs_f64()],
            |_| Ok(()),
        )
        .map(drop)
    }
}

fn lease(row: &Row) -> Result<Lease, postgres::Error> {
    Ok(Lease {
        token: row.try_get(0)?,
        worker: row.try_get(1)?,
        expires_at_micros: unix_micros(row.try_get(2)?),
        event_ids: row.try_get(3)?,
    })
}
