//! A stage's way to the database: a session for each call, which is timed and counted
//! ([`Pools`](crate::worker::pools::Pools)).

use std::time::{Duration, Instant};

use crate::store::{Limits, Pool, Session, StoreError};
use crate::worker::shared::Shared;
use crate::worker::stage::Stage;

/// How long a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as every session of this program waits.
    Usual,
    /// For a batch: a statement ends after this time, because the other rows of the batch wait for
    /// the slowest one.
    Batch(Duration),
    /// For a part of a batch that failed: it is tried again later, and holds up no other row
    /// meanwhile. Besides, a statement ends after this time.
    Part(Duration),
}

/// The longest wait for a lock of a row that was locked before.
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

/// The connection of one stage.
pub(super) struct Link<'a> {
    shared: &'a Shared,
    stage: Stage,
    pool: &'a Pool,
}

impl<'a> Link<'a> {
    /// Makes a link that connects at its first call.
    pub(super) fn new(shared: &'a Shared, stage: Stage) -> Link<'a> {
        Link {
            shared,
            stage,
            pool: shared.pools.of(stage),
        }
    }

    /// Makes one call that does the stage's work. An error is counted and logged here; the caller
    /// decides whether to try again.
    pub(super) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.call_with(Patience::Usual, call)
    }

    /// Makes one call that does the stage's work, with this patience for locks.
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

    /// Makes one call beside the stage's work, for example to read the clock. Its success does not
    /// end a refusal of the work.
    pub(super) fn aside<T>(
        &mut self,
        patience: Patience,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.attempt(patience, call)
    }

    fn attempt<T>(
        &mut self,
        patience: Patience,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut since = Instant::now();
        let (shared, stage) = (self.shared, self.stage);
        // Each of the three calls has a time limit of its own, and the age of the longest decides
        // whether the worker is stuck.
        let result = shared
            .watchdog
            .call(stage, || self.pool.get_since(&mut since))
            .and_then(|mut session| {
                since = session.opened();
                let limits = patience.limits(shared.config.query_timeout);
                shared
                    .watchdog
                    .call(stage, || session.wait_no_longer(limits))?;
                shared.watchdog.call(stage, || call(&mut session))
            });
        if let Err(error) = &result {
            shared.metrics.db_error(error.reason());
            // The refusal of a single row is logged with the id of its event.
            if !(matches!(stage, Stage::Settler | Stage::Sweeper) && error.is_refusal()) {
                shared.outage.failed(stage, error, since);
            }
        }
        result
    }
}
