//! The pipeline: the same events through the real daemon, with a handler that does nothing.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select};

use crate::dev::bench::environment::{Environment, TableResult};
use crate::dev::bench::{BENCH_DAEMON, BenchError, BenchOptions, NOOP, cpu, rate};
use crate::dev::launch::{Daemon, Launch};
use crate::store::StoreError;

/// Pause between two looks for the first claim; it is the error of the measured time.
const BEGIN_LOOK: Duration = Duration::from_millis(1);

/// Pause between two looks for the end. The time of the end is taken from the rows and not from the
/// look.
const END_LOOK: Duration = Duration::from_millis(20);

/// Events at the end of the table that each look counts: when these are done, a look at all events
/// is worth its cost.
const TAIL: u32 = 1000;

/// Pause between two looks at the whole table, when its end is done and an event before that is
/// not.
const STRAGGLERS_LOOK: Duration = Duration::from_millis(200);

/// Longest time in which no event is done.
const STALLED_MAX: Duration = Duration::from_mins(1);

/// The result of one run of the daemon.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PipelineRun {
    /// Events per second.
    pub(super) rate: f64,
    /// CPU time of supervisor and workers.
    pub(super) cpu_seconds: f64,
    /// Bytes of WAL that PostgreSQL wrote.
    pub(super) wal_bytes: f64,
    /// Events that are not done.
    pub(super) lost: u64,
    /// Events that were handled more than once.
    pub(super) duplicates: u64,
}

/// Drains the events once.
pub(super) fn run(
    environment: &mut Environment,
    options: &BenchOptions,
    signals: &Receiver<i32>,
) -> Result<PipelineRun, BenchError> {
    environment.fill(options.events)?;
    let wal_before = environment.wal_bytes()?;
    let daemon = start(environment, options)?;
    let mut run = Run {
        environment,
        daemon: &daemon,
        signals,
    };
    let measured = run.measure(options.events);
    let stopped = daemon.stop();
    let measured = match (measured, stopped) {
        (Ok(measured), Ok(())) => measured,
        (Err(BenchError::Ended(_)) | Ok(_), Err(how)) => return Err(BenchError::Ended(how)),
        (Err(error), _) => return Err(error),
    };
    Ok(PipelineRun {
        wal_bytes: measured.wal_bytes - wal_before,
        ..measured
    })
}

fn start(environment: &Environment, options: &BenchOptions) -> Result<Daemon, BenchError> {
    let (dsn, libpq) = environment.place();
    let (processes, batch_size) = (
        options.processes.to_string(),
        options.batch_size.to_string(),
    );
    let route = format!("*={NOOP}");
    Daemon::start(&Launch {
        command: BENCH_DAEMON,
        dsn,
        variables: libpq,
        directory: None,
        args: &[
            "--processes",
            &processes,
            "--batch-size",
            &batch_size,
            "--route",
            &route,
            "--disable-http",
            "--log-level",
            "WARNING",
        ],
        log: None,
    })
    .map_err(|source| BenchError::Start {
        what: "the daemon",
        source,
    })
}

struct Run<'a> {
    environment: &'a mut Environment,
    daemon: &'a Daemon,
    signals: &'a Receiver<i32>,
}

impl Run<'_> {
    fn measure(&mut self, events: u32) -> Result<PipelineRun, BenchError> {
        let begun = self.wait_begun()?;
        let supervisor = self.daemon.pid().unwrap_or(0);
        let cpu_before = cpu::seconds_of(supervisor);
        let result = self.wait_done(events)?;
        Ok(PipelineRun {
            rate: rate(events, begun, result.finished_at),
            cpu_seconds: cpu::seconds_of(supervisor) - cpu_before,
            wal_bytes: self.environment.wal_bytes()?,
            lost: result.lost,
            duplicates: result.duplicates,
        })
    }

    /// Waits for the first claim; returns the database's time.
    fn wait_begun(&mut self) -> Result<f64, BenchError> {
        let since = Instant::now();
        loop {
            let sql = include_str!("../../../sql/bench_begun.sql");
            let times =
                self.environment
                    .session
                    .query("look for the first claim", sql, &[], |row| row.try_get(0))?;
            if let Some(time) = times.first() {
                return Ok(*time);
            }
            self.pause(BEGIN_LOOK, since)?;
        }
    }

    /// Waits until every event is done.
    fn wait_done(&mut self, events: u32) -> Result<TableResult, BenchError> {
        let (mut looked, mut progressed) = (Instant::now(), Instant::now());
        let mut left = u64::MAX;
        loop {
            let is_tail_done = self.tail_left(events)? == 0;
            if is_tail_done || looked.elapsed() > STALLED_MAX / 2 {
                let result = self.environment.result()?;
                looked = Instant::now();
                if result.lost == 0 {
                    return Ok(result);
                }
                if result.lost < left {
                    (left, progressed) = (result.lost, looked);
                }
            }
            let pause = if is_tail_done {
                STRAGGLERS_LOOK
            } else {
                END_LOOK
            };
            self.pause(pause, progressed)?;
        }
    }

    fn tail_left(&mut self, events: u32) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM outbox_event WHERE id > $1 AND status <> 'done'";
        let before_tail = i64::from(events.saturating_sub(TAIL));
        let left = self.environment.session.query(
            "look for the last events",
            sql,
            &[&before_tail],
            |row| row.try_get(0),
        )?;
        Ok(left.first().copied().unwrap_or(0))
    }

    fn pause(&self, pause: Duration, since: Instant) -> Result<(), BenchError> {
        if since.elapsed() > STALLED_MAX {
            return Err(BenchError::Stalled(since.elapsed().as_secs()));
        }
        select! {
            recv(self.signals) -> _ => Err(BenchError::Interrupted),
            // The daemon has no port, so this channel receives nothing and only ends.
            recv(self.daemon.urls) -> _ => Err(BenchError::Ended(String::new())),
            recv(after(pause)) -> _ => Ok(()),
        }
    }
}
