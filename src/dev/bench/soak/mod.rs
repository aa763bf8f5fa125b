//! `dispatchbox bench --soak`: whether anything grows, or slows down, while events keep coming.
//!
//! Producers commit events at a steady rate. One of twenty fails at its first attempt, one of 400
//! at two, and one a second at every attempt. Beside the daemon a reader holds a snapshot, which
//! keeps vacuum from removing anything that has died since, and takes a new one each minute. Each
//! minute, too, the retention moves what is done to the archive, by the procedure that the README
//! tells to run from cron, and the archive is emptied. The server is as it comes, autovacuum
//! included.
//!
//! The time is looked at in quarters, and the last one is compared with the first: the first
//! already holds the growth from an empty table to its normal size. What the handlers note through
//! a pipe, what the archive holds and what is left in the table have to agree at the end, event by
//! event and attempt by attempt.
//!
//! Measured on two cores that compilers and other servers used at the same time (load 13 to 45),
//! with PostgreSQL 15 on the same cores:
//!
//! - 20 minutes at 5,000 events/s: 5,001 delivered in the first quarter and 4,999 in the last, p99
//!   from commit to done 0.73 and 0.63 s, mean backlog 1,975 and 1,367, supervisor 10.7 and 10.8
//!   MB, each worker 12.6 and 12.7 MB, descriptors 22 and 25, dead rows of outbox_lease 452 and
//!   502. Of 6.0 million events and 6.3 million runs none was lost or repeated.
//! - An hour with only four producers, which that load held up: they committed 4,955, 4,506, 4,505
//!   and 4,354 events/s in the quarters, and 0.999 to 1.000 of that was delivered. Supervisor 11.3
//!   to 11.9 MB, workers 13.3 to 13.5 MB, dead rows of outbox_lease 473 to 508; 16.5 million events
//!   and 17.4 million runs, none lost or repeated. Since then there are 16 producers.

mod companions;
mod handler;
mod ledger;
mod quarter;
mod report;
mod sample;
mod verdict;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select};

use crate::dev::bench::environment::Environment;
use crate::dev::bench::{BENCH_DAEMON, BenchError, BenchOptions, Found, SoakOptions};
use crate::dev::cluster::ServerSettings;
use crate::dev::launch::{Daemon, Launch};
use crate::domain::figure::grouped;
use crate::system::signal::SignalThread;

use companions::{Archived, Companions};
pub(super) use handler::{HANDLER, handle};
use ledger::Ledger;
use report::Report;
use sample::{Sample, float};

/// Attempts of a poison event.
const MAX_ATTEMPTS: u32 = 4;

/// The time between two snapshots of the reader, between two runs of the retention, and between two
/// lines of progress. A short soak has a period for each quarter.
const PERIOD: Duration = Duration::from_mins(1);

/// Looks in each period.
const LOOKS_PER_PERIOD: u32 = 12;

/// How long after the last commit the events may need without any progress.
const STALLED_MAX: Duration = Duration::from_mins(1);

/// Pause between two looks for the last events.
const END_LOOK: Duration = Duration::from_millis(200);

/// Runs a soak.
pub(super) fn run(options: &BenchOptions, soak: &SoakOptions) -> Result<Found, BenchError> {
    let signals = SignalThread::start().map_err(|source| BenchError::Start {
        what: "the signal thread",
        source,
    })?;
    let environment = Environment::enter(options.dsn.as_deref(), &ServerSettings::durable())?;
    let ledger = Ledger::start()?;
    let daemon = start(&environment, options, &ledger.path())?;
    let mut run = Run {
        environment,
        daemon: &daemon,
        ledger: &ledger,
        signals: &signals.received,
        soak: *soak,
        period: PERIOD.min(soak.time / 4),
        committed: Arc::new(AtomicU64::new(0)),
        since: Instant::now(),
        samples: Vec::new(),
    };
    let measured = run.measure();
    let Run {
        mut environment,
        committed,
        samples,
        ..
    } = run;
    let stopped = daemon.stop();
    let (mut archived, began) = match (measured, stopped) {
        (Ok(measured), Ok(())) => measured,
        (Err(BenchError::Ended(_)) | Ok(_), Err(how)) => return Err(BenchError::Ended(how)),
        (Err(error), _) => return Err(error),
    };
    let runs = ledger.finish()?;
    companions::archive(&mut environment.session, &mut archived)?;
    let left = left(&mut environment)?;
    let report = Report::new(
        options,
        soak,
        &samples,
        &report::Totals {
            committed: committed.load(Ordering::Relaxed),
            runs: &runs,
            archived: &archived,
            began,
            n_unexpected: left.0,
            n_dead_letters: left.1,
        },
    );
    Ok(Found {
        text: if options.json {
            report.json()
        } else {
            report.table()
        },
        is_exact: report.is_exact(),
    })
}

fn start(
    environment: &Environment,
    options: &BenchOptions,
    pipe: &str,
) -> Result<Daemon, BenchError> {
    let (dsn, libpq) = environment.place();
    let mut variables = libpq.clone();
    variables.insert(handler::PIPE.to_owned(), pipe.to_owned());
    let (processes, batch_size) = (
        options.processes.to_string(),
        options.batch_size.to_string(),
    );
    let (route, attempts) = (format!("*={HANDLER}"), MAX_ATTEMPTS.to_string());
    #[rustfmt::skip]
    let args = [
        "--processes", processes.as_str(),
        "--batch-size", &batch_size,
        "--route", &route,
        "--max-attempts", &attempts,
        "--retry-backoff-seconds", "1",
        "--retry-multiplier", "1",
        "--disable-http",
        "--log-level", "ERROR",
    ];
    Daemon::start(&Launch {
        command: BENCH_DAEMON,
        dsn,
        variables: &variables,
        directory: None,
        args: &args,
        log: None,
    })
    .map_err(|source| BenchError::Start {
        what: "the daemon",
        source,
    })
}

/// Counts what is left in the table when everything that is done was archived: events that are not
/// as planned, and dead letters that were to be.
fn left(environment: &mut Environment) -> Result<(u64, u64), BenchError> {
    let attempts = i32::try_from(MAX_ATTEMPTS).unwrap_or(i32::MAX);
    let found = environment.session.query(
        "look at what is left",
        include_str!("../../../../sql/soak_left.sql"),
        &[&handler::POISON, &attempts],
        |row| Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(1)?)),
    )?;
    let (unexpected, dead) = found.first().copied().unwrap_or_default();
    Ok((unexpected.unsigned_abs(), dead.unsigned_abs()))
}

struct Run<'a> {
    environment: Environment,
    daemon: &'a Daemon,
    ledger: &'a Ledger,
    signals: &'a Receiver<i32>,
    soak: SoakOptions,
    period: Duration,
    committed: Arc<AtomicU64>,
    since: Instant,
    samples: Vec<Sample>,
}

impl Run<'_> {
    /// Returns what was archived, and the begin by the database's clock.
    fn measure(&mut self) -> Result<(Archived, f64), BenchError> {
        let reader = companions::start_reader(&self.environment, self.period)?;
        let retention = companions::start_retention(&self.environment, self.period)?;
        let began = self.database_time()?;
        self.since = Instant::now();
        let producers =
            companions::start_producers(&self.environment, self.soak.rate, &self.committed)?;
        let watched = self.watch(&[&producers, &reader], &retention);
        // Their own errors say more than that they have ended.
        producers.stop()?;
        let ended = watched.and_then(|()| self.wait_for_the_last());
        reader.stop()?;
        let archived = retention.stop()?.pop().unwrap_or_default();
        ended?;
        Ok((archived, began))
    }

    fn database_time(&mut self) -> Result<f64, BenchError> {
        let sql = "SELECT extract(epoch FROM clock_timestamp())::float8";
        let times = self
            .environment
            .session
            .query("read the clock", sql, &[], |row| row.try_get(0))?;
        Ok(times.first().copied().unwrap_or(0.0))
    }

    /// Looks at everything until the time is over, and tells the progress.
    fn watch(
        &mut self,
        companions: &[&Companions<()>],
        retention: &Companions<Archived>,
    ) -> Result<(), BenchError> {
        let n_looks = whole_periods(self.soak.time, self.period) * LOOKS_PER_PERIOD;
        let mut told = 0;
        for n in 0..=n_looks {
            let due = (self.soak.time / n_looks) * n;
            self.pause(due.saturating_sub(self.since.elapsed()))?;
            if companions.iter().any(|companion| companion.have_failed()) || retention.have_failed()
            {
                return Err(BenchError::Ended("a companion has ended".to_owned()));
            }
            self.look()?;
            if n > 0 && n.is_multiple_of(LOOKS_PER_PERIOD) {
                self.tell(told);
                told = self.samples.len() - 1;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), BenchError> {
        let mut sample = Sample {
            at: self.since.elapsed(),
            committed: self.committed.load(Ordering::Relaxed),
            delivered: self.ledger.delivered(),
            processes: self.daemon.pid().map(sample::processes).unwrap_or_default(),
            ..Sample::default()
        };
        sample.backlog = sample::backlog(&mut self.environment)?;
        [sample.events, sample.leases] = sample::tables(&mut self.environment)?;
        self.samples.push(sample);
        Ok(())
    }

    /// Writes a line about what came after the sample `from`.
    fn tell(&self, from: usize) {
        let (Some(first), Some(last)) = (self.samples.get(from), self.samples.last()) else {
            return;
        };
        let seconds = last.seconds_since(first);
        let per_second = |before: u64, now: u64| grouped(float(now - before) / seconds);
        let memory: f64 = last.processes.iter().map(|one| one.resident_bytes).sum();
        // A progress line that cannot be written is no failure.
        let _ = writeln!(
            io::stderr(),
            "{:.2} of {:.2} min: {} events/s committed, {} delivered, backlog {}, memory {:.1} MB, dead rows {} and {}",
            last.at.as_secs_f64() / 60.0,
            self.soak.time.as_secs_f64() / 60.0,
            per_second(first.committed, last.committed),
            per_second(first.delivered, last.delivered),
            grouped(last.backlog),
            memory / 1e6,
            grouped(last.events.dead_rows),
            grouped(last.leases.dead_rows),
        );
    }

    /// Waits until every event is done or dead, or until nothing moves any more: what is left then
    /// is lost.
    fn wait_for_the_last(&mut self) -> Result<(), BenchError> {
        let sql = "SELECT count(*) FROM outbox_event WHERE status IN ('pending', 'retry')";
        let (mut left, mut moved) = (i64::MAX, Instant::now());
        while moved.elapsed() < STALLED_MAX {
            let counts =
                self.environment
                    .session
                    .query("look for the last events", sql, &[], |row| row.try_get(0))?;
            let now: i64 = counts.first().copied().unwrap_or(0);
            if now == 0 {
                break;
            }
            if now < left {
                (left, moved) = (now, Instant::now());
            }
            self.pause(END_LOOK)?;
        }
        Ok(())
    }

    fn pause(&self, pause: Duration) -> Result<(), BenchError> {
        select! {
            recv(self.signals) -> _ => Err(BenchError::Interrupted),
            // The daemon has no port, so this channel receives nothing and only ends.
            recv(self.daemon.urls) -> _ => Err(BenchError::Ended("the daemon has ended".to_owned())),
            recv(after(pause)) -> _ => Ok(()),
        }
    }
}

/// The number of periods in the time, at least four.
fn whole_periods(time: Duration, period: Duration) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a soak takes a few days at most"
    )]
    let n = (time.as_secs_f64() / period.as_secs_f64()).round() as u32;
    n.max(4)
}
