//! Publishes the state of the daemon: the state that /ready and /api/status show, the sum of all
//! metrics, the history.

use std::time::Instant;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::domain::protocol::{Phase, Report};
use crate::status::history::{Levels, Totals};
use crate::status::metrics::{
    EVENTS_CLAIMED, EVENTS_SET_ASIDE, EVENTS_SETTLED, HANDLERS_STUCK, Usage, WorkerMetrics,
};
use crate::status::published::Published;
use crate::status::state::{DaemonPhase, WorkerPhase, WorkerState};
use crate::supervisor::summary::Summary;
use crate::system::process::Stat;

/// Publishes what the supervisor knows.
pub(super) struct Publisher {
    published: Published,
    summary: Summary,
    /// The metrics of this process.
    own: WorkerMetrics,
}

impl Publisher {
    /// Makes a publisher that writes to `published`; `swept` are the metrics of the sweeper.
    pub(super) fn new(published: Published, swept: WorkerMetrics) -> Publisher {
        published.fleet().count_also(swept.clone());
        let summary = Summary::new(Instant::now());
        Publisher {
            published,
            summary,
            own: swept,
        }
    }

    /// Publishes how many lines of this process's log have been dropped.
    pub(super) fn log_lines_dropped(&self, n_lines: u64) {
        self.own.log_lines_dropped(n_lines);
    }

    /// Publishes a new phase of the daemon.
    pub(super) fn phase(&self, phase: DaemonPhase) {
        self.published.health.update(|state| state.phase = phase);
    }

    /// A worker was started.
    pub(super) fn started(&self, number: u16, pid: u32, is_restart: bool) {
        self.published.fleet().started(number, is_restart);
        self.worker(number, |worker| {
            *worker = WorkerState {
                pid: Some(pid),
                phase: WorkerPhase::Starting,
                started: Some(Instant::now()),
                restarts: worker.restarts + u64::from(is_restart),
                ..WorkerState::default()
            };
        });
    }

    /// A worker has reported.
    pub(super) fn reported(&self, number: u16, pid: u32, report: Report) {
        let stuck = report.metrics.sum(HANDLERS_STUCK, &[]);
        let set_aside = report.metrics.sum(EVENTS_SET_ASIDE, &[]);
        self.worker(number, |worker| {
            worker.phase = match report.phase {
                Phase::Running => WorkerPhase::Running,
                Phase::Draining | Phase::Drained => WorkerPhase::Draining,
            };
            worker.in_flight = report.in_flight;
            worker.set_aside = set_aside;
            worker.stuck = stuck;
            worker.report = Some((report.access, Instant::now()));
        });
        self.published.fleet().reported(
            number,
            report.access.is_connected(),
            usage_of(pid),
            report.metrics,
        );
    }

    /// A worker has ended.
    pub(super) fn ended(&self, number: u16) {
        self.published.fleet().ended(number);
        self.worker(number, |worker| {
            *worker = WorkerState {
                restarts: worker.restarts,
                ..WorkerState::default()
            };
        });
    }

    /// Adds to the history, and logs the summary of the last minute, when they are due.
    pub(super) fn look_back(&mut self, now: Instant) {
        let mut history = self.published.history();
        if !history.is_due(now) {
            return;
        }
        let statistics = self.published.fresh_statistics();
        let state = self.published.health.state();
        let levels = Levels {
            in_flight: state.workers.iter().map(|worker| worker.in_flight).sum(),
            backlog: statistics.as_ref().map(|statistics| statistics.backlog),
            oldest_due_age: statistics
                .as_ref()
                .map(|statistics| statistics.oldest_due_age),
        };
        let totals = self.totals();
        history.observe(now, totals, levels);
        self.summary.tell(now, totals, statistics.as_ref());
    }

    fn totals(&self) -> Totals {
        let fleet = self.published.fleet();
        let settled = |outcome| fleet.count(EVENTS_SETTLED, &[("outcome", outcome)]);
        Totals {
            claimed: fleet.count(EVENTS_CLAIMED, &[]),
            done: settled("done"),
            retry: settled("retry"),
            dead: settled("dead"),
            released: settled("released"),
        }
    }

    fn worker(&self, number: u16, change: impl FnOnce(&mut WorkerState)) {
        self.published.health.update(|state| {
            if let Some(worker) = state.workers.get_mut(usize::from(number)) {
                change(worker);
            }
        });
    }
}

/// The memory and CPU time of a worker's process; `None` when it has just ended.
fn usage_of(pid: u32) -> Option<Usage> {
    let stat = Stat::of(pid)?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a worker's CPU time stays far below 2^53 ticks"
    )]
    let cpu_seconds = stat.own_ticks as f64 / clock_ticks_per_second() as f64;
    Some(Usage {
        cpu_seconds,
        resident_bytes: stat.resident_pages * page_size() as u64,
    })
}
