//! Tells others how the daemon stands: the state that /ready and /api/status show, the sum of all metrics, the history.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use crate::health::history::{Levels, Totals};
use crate::health::{DaemonPhase, Published, WorkerPhase, WorkerState};
use crate::metrics::Fleet;
use crate::report::{Phase, Report};

/// What the supervisor tells goes through here.
pub(super) struct Publisher {
    published: Published,
}

impl Publisher {
    /// Writes to what others read.
    pub(super) fn new(published: Published) -> Publisher {
        Publisher { published }
    }

    /// The daemon is in another phase.
    pub(super) fn phase(&self, phase: DaemonPhase) {
        self.published.health.update(|state| state.phase = phase);
    }

    /// A worker was started.
    pub(super) fn started(&self, number: u16, pid: u32, is_restart: bool) {
        self.fleet().started(number, is_restart);
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
    pub(super) fn reported(&self, number: u16, report: Report) {
        let stuck = report.metrics.sum("dispatchbox_handlers_stuck", &[]);
        self.worker(number, |worker| {
            worker.phase = match report.phase {
                Phase::Running => WorkerPhase::Running,
                Phase::Draining | Phase::Drained => WorkerPhase::Draining,
            };
            worker.in_flight = report.in_flight;
            worker.stuck = stuck;
            worker.report = Some((report.access, Instant::now()));
        });
        self.fleet()
            .reported(number, report.access.is_connected(), report.metrics);
    }

    /// A worker has ended.
    pub(super) fn ended(&self, number: u16) {
        self.fleet().ended(number);
        self.worker(number, |worker| {
            *worker = WorkerState {
                restarts: worker.restarts,
                ..WorkerState::default()
            };
        });
    }

    /// So many leases of dead workers were ended.
    pub(super) fn swept(&self, n_leases: u64) {
        self.fleet().swept(n_leases);
    }

    /// Adds to the history when that is due.
    pub(super) fn look_back(&self, now: Instant) {
        let mut history = lock(&self.published.history);
        if !history.is_due(now) {
            return;
        }
        let survey = self.published.fresh_survey();
        let state = self.published.health.state();
        let levels = Levels {
            in_flight: state.workers.iter().map(|worker| worker.in_flight).sum(),
            backlog: survey.as_ref().map(|survey| survey.backlog),
            oldest_due_age: survey.map(|survey| survey.oldest_due_age),
        };
        history.observe(now, self.totals(), levels);
    }

    fn totals(&self) -> Totals {
        let fleet = self.fleet();
        let settled =
            |outcome| fleet.count("dispatchbox_events_settled_total", &[("outcome", outcome)]);
        Totals {
            claimed: fleet.count("dispatchbox_events_claimed_total", &[]),
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

    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        lock(&self.published.fleet)
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
