//! The connections of a worker. Every stage borrows a session for a call and returns it.
//!
//! The fetcher has a pool of one connection, because its session remembers which leases exist. The
//! keeper has one, so that no renewal waits for a connection. Settler and sweeper share the others.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::domain::config::Config;
use crate::store::dsn::Dsn;
use crate::store::{Pool, Timeouts};
use crate::worker::stage::Stage;

/// The fetcher's connection is asked whether it stands when it was idle for this long: a claim that
/// is sent on one that is gone is in doubt, and a drain would try to give it back. The time is
/// shorter than the usual poll interval, and long enough that under load the server is not asked
/// before each call.
const FETCHER_IDLE: Duration = Duration::from_millis(500);

/// The least time limit of a keeper's call, however short a lease is: a network needs this much.
/// Connecting and renewing take a third of a lease at most otherwise, so that the next renewal is
/// in time even if a call fails.
const KEEPER_CALL_MIN: Duration = Duration::from_secs(1);

/// The connections of a worker.
pub(super) struct Pools {
    fetcher: Pool,
    keeper: Pool,
    /// For settler and sweeper.
    others: Pool,
}

impl Pools {
    /// Makes the pools, with `pool_size` connections and one more for the keeper. A single
    /// connection is shared by fetcher, settler and sweeper, which take turns.
    pub(super) fn new(dsn: &Dsn, config: &Config, application_name: &str) -> Pools {
        let usual = Timeouts {
            connect: config.connect_timeout,
            query: config.query_timeout,
        };
        let pool = |timeouts, size| Pool::new(dsn.clone(), timeouts, size, application_name);
        let one = NonZeroU16::MIN;
        let beside_fetcher = NonZeroU16::new(config.pool_size.get() - 1);
        let others = pool(usual, beside_fetcher.unwrap_or(one));
        let fetcher = beside_fetcher.map_or_else(|| others.clone(), |_| pool(usual, one));
        Pools {
            fetcher: fetcher.asked_after(FETCHER_IDLE),
            keeper: pool(keeper_timeouts(usual, config.lease), one),
            others,
        }
    }

    /// The pool from which a stage borrows.
    pub(super) fn of(&self, stage: Stage) -> &Pool {
        match stage {
            Stage::Fetcher => &self.fetcher,
            Stage::Keeper => &self.keeper,
            Stage::Settler | Stage::Sweeper => &self.others,
        }
    }
}

/// Bounds the keeper's calls, so that a renewal can succeed before the lease is over.
fn keeper_timeouts(usual: Timeouts, lease: Duration) -> Timeouts {
    let most = (lease / 6).max(KEEPER_CALL_MIN);
    Timeouts {
        connect: usual.connect.min(most),
        query: usual.query.min(most),
    }
}
