//! A stage's way to the database: one session, kept while it works, replaced when it is lost, each call timed and counted.
//!
//! Kept, because a session knows which leases stand and has its statements prepared. Only where the pool has a single connection
//! do the stages take turns.

use std::time::{Duration, Instant};

use crate::store::{Limits, Pool, PooledSession, Session, StoreError};
use crate::worker::pulse::Stage;
use crate::worker::shared::Shared;

/// How long a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as every session of ours.
    Usual,
    /// For a batch, whose other rows wait for its slowest: a statement ends after this time.
    Batch(Duration),
    /// For a part of a batch that failed: it is tried again later, and holds up no other row meanwhile. Besides, a statement ends after
    /// this time.
    Part(Duration),
}

/// Longest wait for a lock of what has met one before.
const LOCK_WAIT: Duration = Duration::from_millis(100);

impl Patience {
    fn limits(self, query_timeout: Duration) -> Limits {
        let statement = |limit: Duration| (limit < query_timeout).then_some(limit);
        match self {
            Patience::Usual => Limits::default(),
            Patience::Batch(limit) => Limits {
                lock: None,
                statement: statement(limit),
            },
            Patience::Part(limit) => Limits {
                lock: Some(LOCK_WAIT),
                statement: statement(limit),
            },
        }
    }
}

/// One stage's session.
pub(super) struct Link<'a> {
    shared: &'a Shared,
    stage: Stage,
    pool: &'a Pool,
    session: Option<PooledSession>,
}

impl<'a> Link<'a> {
    /// Connects at the first call.
    pub(super) fn new(shared: &'a Shared, stage: Stage, pool: &'a Pool) -> Link<'a> {
        Link {
            shared,
            stage,
            pool,
            session: None,
        }
    }

    /// Makes one call that does the stage's work. An error is counted and logged here; the caller decides whether to try again.
    pub(super) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.call_with(Patience::Usual, call)
    }

    /// The same, with more or less patience for locks.
    pub(super) fn call_with<T>(
        &mut self,
        patience: Patience,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = self.attempt(patience, call);
        if result.is_ok() {
            self.shared.outage.succeeded(self.stage);
        }
        result
    }

    /// The same for a call beside the work, the look at the clock for instance: where the work is refused, its success is no news.
    pub(super) fn aside<T>(
        &mut self,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.attempt(Patience::Usual, call)
    }

    fn attempt<T>(
        &mut self,
        patience: Patience,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let result = self.shared.pulse.call(self.stage, || {
            let session = match self.session.take() {
                Some(session) => self.session.insert(session),
                None => self.session.insert(self.pool.get()?),
            };
            session.wait_no_longer(patience.limits(self.shared.config.query_timeout))?;
            call(session)
        });
        if let Err(error) = &result {
            self.shared.metrics.db_error(error.reason());
            let opened = self.session.as_ref().map(|session| session.opened());
            // What one row is refused for is told with its event's name.
            if !(matches!(self.stage, Stage::Settler) && error.is_refusal()) {
                self.shared
                    .outage
                    .failed(self.stage, error, opened.unwrap_or(began));
            }
            if error.is_connection_lost() {
                self.session = None;
            }
        }
        if self.pool.size() == 1 {
            self.session = None;
        }
        result
    }
}
