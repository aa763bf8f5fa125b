//! The ceiling: the claim and settle statements in a loop, without the daemon.

use std::time::Duration;

use crate::dev::bench::environment::Environment;
use crate::dev::bench::{BenchError, BenchOptions, rate};
use crate::domain::event::Outcome;
use crate::store::{ClaimQuery, Position, Session, SettleBatch, Settlement, StoreError};
use crate::system::threads::{self, Thread};

/// A lease that is longer than any run.
const LEASE: Duration = Duration::from_mins(10);

/// Payload bytes that a claim may bring: the default of `run`.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Drains the events once; returns events per second.
pub(super) fn run(
    environment: &mut Environment,
    options: &BenchOptions,
) -> Result<f64, BenchError> {
    environment.fill(options.events)?;
    let sessions: Vec<Session> = (0..options.processes.get())
        .map(|_| environment.connect())
        .collect::<Result<_, _>>()?;
    let batch_size = options.batch_size.get();
    let threads: Vec<Thread<Result<Option<f64>, StoreError>>> = sessions
        .into_iter()
        .enumerate()
        .map(|(n, session)| {
            threads::start(&format!("bare-{n:02}"), move || {
                drain(session, &format!("bench-{n:02}"), batch_size)
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|source| BenchError::Start {
            what: "a thread",
            source,
        })?;
    let mut begun: Option<f64> = None;
    for thread in threads {
        let first = thread
            .join()
            .map_err(|_| BenchError::Ended("a thread panicked".to_owned()))??;
        begun = begun.into_iter().chain(first).reduce(f64::min);
    }
    let result = environment.result()?;
    Ok(rate(
        options.events,
        begun.unwrap_or(result.finished_at),
        result.finished_at,
    ))
}

/// Claims and settles until no event is left; returns when the first claim had been committed, by
/// the database's clock.
fn drain(mut session: Session, worker: &str, batch_size: u16) -> Result<Option<f64>, StoreError> {
    let mut begun = None;
    let mut after = Position::FRONT;
    loop {
        let claimed = session.claim(&ClaimQuery {
            worker,
            limit: batch_size,
            lease: LEASE,
            after: &after,
            stretch: None,
            selection: None,
            bytes_max: BYTES_MAX,
        })?;
        let Some(claimed) = claimed else {
            // Events that another connection was just locking lie behind the cursor: the drain is
            // done only when the front is empty, too.
            if after == Position::FRONT {
                return Ok(begun);
            }
            after = Position::FRONT;
            continue;
        };
        if begun.is_none() {
            let sql = include_str!("../../../sql/bench_begun.sql");
            let times = session.query("read the clock", sql, &[], |row| row.try_get(0))?;
            begun = times.first().copied();
        }
        let outcomes: Vec<Settlement> = claimed
            .events
            .iter()
            .map(|event| Settlement {
                token: claimed.token,
                event_id: event.id,
                outcome: Outcome::Done,
            })
            .collect();
        session.settle(&SettleBatch {
            worker,
            outcomes: &outcomes,
            ended: &[claimed.token],
            expired: false,
        })?;
        after = claimed.last;
    }
}
