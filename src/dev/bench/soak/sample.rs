//! One look at everything that should not grow: processes, backlog and tables.

use std::fs;
use std::time::Duration;

use rustix::param::page_size;

use crate::dev::bench::environment::Environment;
use crate::store::StoreError;
use crate::system::process::{Stat, children};

/// Memory and descriptors of one process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProcessSample {
    pub(super) pid: u32,
    pub(super) resident_bytes: f64,
    pub(super) descriptors: f64,
}

/// What the statistics say of one table.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct TableSample {
    pub(super) dead_rows: f64,
    pub(super) bytes: f64,
    pub(super) index_bytes: f64,
}

/// One look.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Since the begin of the soak.
    pub(super) at: Duration,
    pub(super) committed: u64,
    pub(super) delivered: u64,
    pub(super) backlog: f64,
    /// The supervisor, and its workers in the order in which they were started.
    pub(super) processes: Vec<ProcessSample>,
    pub(super) events: TableSample,
    pub(super) leases: TableSample,
}

impl Sample {
    /// Seconds since an earlier look, and never 0.
    pub(super) fn seconds_since(&self, earlier: &Sample) -> f64 {
        self.at.saturating_sub(earlier.at).as_secs_f64().max(0.001)
    }
}

/// Looks at the processes.
pub(super) fn processes(supervisor: u32) -> Vec<ProcessSample> {
    let mut workers: Vec<(u64, u32)> = children(supervisor)
        .into_iter()
        .filter_map(|pid| Some((Stat::of(pid)?.started_ticks, pid)))
        .collect();
    workers.sort_unstable();
    [supervisor]
        .into_iter()
        .chain(workers.into_iter().map(|(_, pid)| pid))
        .filter_map(|pid| {
            let pages = Stat::of(pid)?.resident_pages;
            Some(ProcessSample {
                pid,
                resident_bytes: float(pages * page_size() as u64),
                descriptors: float(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64),
            })
        })
        .collect()
}

/// Counts the backlog.
pub(super) fn backlog(environment: &mut Environment) -> Result<f64, StoreError> {
    let counts = environment.session.query(
        "count the backlog",
        include_str!("../../../../sql/soak_backlog.sql"),
        &[],
        |row| row.try_get::<_, i64>(0),
    )?;
    Ok(counts.first().map_or(0.0, |n| float(n.unsigned_abs())))
}

/// Looks at outbox_event and outbox_lease.
pub(super) fn tables(environment: &mut Environment) -> Result<[TableSample; 2], StoreError> {
    let found = environment.session.query(
        "look at the tables",
        include_str!("../../../../sql/soak_tables.sql"),
        &[],
        |row| {
            let number = |at| row.try_get::<_, i64>(at).map(|n| float(n.unsigned_abs()));
            Ok(TableSample {
                dead_rows: number(0)?,
                bytes: number(1)?,
                index_bytes: number(2)?,
            })
        },
    )?;
    let at = |n: usize| found.get(n).copied().unwrap_or_default();
    Ok([at(0), at(1)])
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of bytes and events, far below 2^52"
)]
pub(super) fn float(n: u64) -> f64 {
    n as f64
}
