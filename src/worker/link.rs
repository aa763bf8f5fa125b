//! A stage's way to the database: a session for each call, which is timed and counted.
//!
//! It is borrowed and returned. The fetcher alone keeps its own while it lives, because a session knows which leases stand, and so does the
//! keeper, so that no renewal waits for a connection. Where the pool has a single one its stages take turns.

use std::time::{Duration, Instant};

use crate::store::{Kept, Limits, Pool, Session, StoreError};
use crate::worker::shared::Shared;
use crate::worker::stage::Stage;

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

/// The fetcher's connection is asked whether it stands when it was idle for this long: a claim that is sent on one that is gone is in doubt,
/// and a drain would try to give it back. Shorter than the usual poll interval; long enough that under load nothing is asked twice. Not for
/// the keeper, who has to see that a call fails.
const FETCHER_IDLE: Duration = Duration::from_millis(500);

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

/// One stage's way.
pub(super) struct Link<'a> {
    shared: &'a Shared,
    stage: Stage,
    pool: &'a Pool,
    /// What the stage keeps of it from call to call.
    kept: Kept,
}

impl<'a> Link<'a> {
    /// Connects at the first call.
    pub(super) fn new(shared: &'a Shared, stage: Stage, pool: &'a Pool) -> Link<'a> {
        let kept = match stage {
            Stage::Fetcher => Kept::new(pool).asked_after(FETCHER_IDLE),
            Stage::Settler | Stage::Keeper | Stage::Sweeper => Kept::new(pool),
        };
        Link {
            shared,
            stage,
            pool,
            kept,
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
        // Each of the three has an end of its own, and a worker counts as stuck by the longest.
        let result = shared
            .watchdog
            .call(stage, || self.kept.get(&mut since))
            .and_then(|session| {
                since = session.opened();
                let limits = patience.limits(shared.config.query_timeout);
                shared
                    .watchdog
                    .call(stage, || session.wait_no_longer(limits))?;
                shared.watchdog.call(stage, || call(session))
            });
        if let Err(error) = &result {
            shared.metrics.db_error(error.reason());
            // What one row is refused for is told with its event's name.
            if !(matches!(stage, Stage::Settler | Stage::Sweeper) && error.is_refusal()) {
                shared.outage.failed(stage, error, since);
            }
            if error.is_connection_lost() {
                self.kept.let_go();
            }
        }
        if !stage.keeps_session() || self.pool.size() == 1 {
            self.kept.let_go();
        }
        result
    }
}
