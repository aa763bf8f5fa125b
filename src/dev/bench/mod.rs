//! `dispatchbox bench`: what the whole pipeline makes of what the database can do.
//!
//! It drains N events with a handler that does nothing through the real daemon, and, interleaved in
//! the same run, N events through the bare claim and settle statements on the same number of
//! connections with the same batch. Both rates depend on the machine, the disk and the hour; their
//! ratio depends on our code. So the figure to watch is the median of the pairs' ratios. It may
//! exceed 1: a worker claims and settles on two connections at the same time, where the bare loop
//! waits for each commit in turn, which shows where the disk is slow or the machine busy with other
//! things.
//!
//! Both sides are timed alike and by the database's clock: from the moment when the first claim had
//! been committed to the last row's `finished_at`. The daemon is started cold, but it has its
//! connections by then, as the bare statements have theirs.

mod bare;
mod cpu;
mod environment;
mod pipeline;
mod soak;
mod summary;

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroU16;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::dev::cluster::{ClusterError, ServerSettings};
use crate::domain::event::Event;
use crate::handlers::Handlers;
use crate::store::StoreError;
use crate::store::dsn::DsnError;
use crate::system::signal::SignalThread;

use environment::Environment;
use summary::{Pair, Summary};

/// Name of the handler that does nothing. `run` does not know it, so that no route of a user's can
/// mark events as done that went nowhere.
pub(crate) const NOOP: &str = "bench-noop";

/// The command that is `run` with [`NOOP`] among the handlers. No help shows it.
pub(crate) const BENCH_DAEMON: &str = "bench-daemon";

/// The options of a bench.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchOptions {
    /// A database to use instead of a throwaway server, as the person typed it. It gets a schema of
    /// its own, which is removed again.
    pub dsn: Option<String>,
    /// Worker processes, and connections of the bare statements.
    pub processes: NonZeroU16,
    /// Events a claim takes.
    pub batch_size: NonZeroU16,
    /// Events a run drains.
    pub events: u32,
    /// Pairs of runs.
    pub pairs: NonZeroU16,
    /// Runs a soak instead of the pairs.
    pub soak: Option<SoakOptions>,
    /// Prints one JSON object instead of the table.
    pub json: bool,
}

/// The options of a soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoakOptions {
    /// How long producers write events.
    pub time: Duration,
    /// Events that they commit each second.
    pub rate: u32,
}

/// Why a bench has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not use --dsn: {0}")]
    Dsn(#[from] DsnError),
    #[error(
        "the bench would work in the schema `{0}` and not in one of its own: leave `options` out of --dsn, and go past a pooler"
    )]
    OtherSchema(String),
    #[error("could not start {what}: {source}")]
    Start {
        what: &'static str,
        source: io::Error,
    },
    #[error("could not drain all events: {0}")]
    Ended(String),
    #[error("no event was done for {0} s")]
    Stalled(u64),
    #[error("interrupted")]
    Interrupted,
}

/// Adds the handler that does nothing and that of the soak, for the daemon of the bench and for
/// workers, which are sent only to handlers that their supervisor knows. A handler that the program
/// has registered under one of the names keeps it.
#[must_use]
pub fn with_handlers(handlers: Handlers) -> Handlers {
    handlers
        .register_own(NOOP, |_: &Event| Ok(()))
        .register_own(soak::HANDLER, soak::handle)
}

/// The result of a bench.
pub(crate) struct Found {
    /// A table, or one JSON object.
    pub(crate) text: String,
    /// No event was lost or handled twice.
    pub(crate) is_exact: bool,
}

/// Runs the bench, or the soak.
pub(crate) fn run(options: &BenchOptions) -> Result<Found, BenchError> {
    if let Some(soak) = &options.soak {
        return soak::run(options, soak);
    }
    let summary = measure(options)?;
    Ok(Found {
        text: if options.json {
            summary.json()
        } else {
            summary.table()
        },
        is_exact: summary.is_exact(),
    })
}

fn measure(options: &BenchOptions) -> Result<Summary, BenchError> {
    let signals = SignalThread::start().map_err(|source| BenchError::Start {
        what: "the signal thread",
        source,
    })?;
    progress("starting …");
    // A vacuum or a checkpoint that fell into one half of a pair by chance would decide its ratio.
    let settings = ServerSettings::durable()
        .with("autovacuum", "off")
        .with("checkpoint_timeout", "1h");
    let mut environment = Environment::enter(options.dsn.as_deref(), &settings)?;
    let mut pairs = Vec::new();
    for n in 1..=options.pairs.get() {
        pairs.push(measure_pair(
            n,
            &mut environment,
            options,
            &signals.received,
        )?);
    }
    progress("");
    Ok(Summary::new(options, pairs))
}

/// Measures both sides once. The side that comes first alternates, so that neither always meets the
/// warmer machine.
fn measure_pair(
    n: u16,
    environment: &mut Environment,
    options: &BenchOptions,
    signals: &Receiver<i32>,
) -> Result<Pair, BenchError> {
    let mut bare = None;
    let mut pipeline = None;
    for turn in 0..2 {
        if !signals.is_empty() {
            return Err(BenchError::Interrupted);
        }
        if (n + turn).is_multiple_of(2) {
            progress(&format!("pair {n} of {}: the daemon …", options.pairs));
            pipeline = Some(pipeline::run(environment, options, signals)?);
        } else {
            progress(&format!("pair {n} of {}: bare statements …", options.pairs));
            bare = Some(bare::run(environment, options)?);
        }
    }
    Ok(Pair {
        bare: bare.expect("one of the two turns was its"),
        pipeline: pipeline.expect("one of the two turns was its"),
    })
}

/// Events per second between two times of the database's clock. A run so short that it took no
/// measurable time counts as a millisecond.
fn rate(events: u32, begun: f64, finished: f64) -> f64 {
    f64::from(events) / (finished - begun).max(0.001)
}

/// Shows the step under way, on a terminal only.
fn progress(what: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{what}");
        let _ = stderr.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::HandlerError;

    #[test]
    fn a_handler_that_has_the_name_keeps_it() {
        let refuses = |_: &Event| Err(HandlerError::retry("no"));
        for handlers in [
            Handlers::default(),
            Handlers::default().register(NOOP, refuses),
        ] {
            let names: Vec<String> = with_handlers(handlers).names().map(str::to_owned).collect();
            assert_eq!(names, [NOOP, soak::HANDLER]);
        }
    }
}
