//! The supervisor: starts the workers, replaces those that end, and drains them when it is told to
//! leave.
//!
//! One event loop on the main thread; everything that can happen is a [`FleetEvent`]. It knows a
//! worker as a program with arguments, two pipes and an in-hand file, and never calls the database
//! itself: what waits for the database has a thread of its own, in the observer or the sweeper.

mod child;
mod event;
#[cfg(test)]
mod fuzz;
mod observer;
mod orphan_recovery;
mod publisher;
mod self_probe;
mod slot;
mod start;
mod start_failure;
mod summary;
mod sweeper;

pub use event::FleetEvent;
pub use start_failure::StartFailure;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, never, select, tick};
use log::{error, info, warn};

use crate::domain::config::Config;
use crate::domain::figure::counted;
use crate::domain::protocol::Report;
use crate::domain::usage::{EXIT_CONFIG, EXIT_FAILED};
use crate::status::state::DaemonPhase;
use crate::store::dsn::Dsn;
use crate::system::directory::PrivateDirectory;
use crate::system::signal::{self, SignalThread};
use crate::system::{in_hand, logging, process};
use child::{Condition, End, WorkerProcess};
use observer::Observer;
use orphan_recovery::OrphanRecovery;
use publisher::Publisher;
use self_probe::SelfProbe;
use slot::{Identity, Slot};
use sweeper::{Dead, Sweeper};

/// The interval of restarts, of the look at silent workers, and of reaping orphaned processes.
const TICK: Duration = Duration::from_millis(100);

/// A main loop that did not turn for this long was stopped, by Ctrl-Z for example.
const SLEPT: Duration = Duration::from_secs(2);

/// How long the leases of workers that were killed may still be swept before the supervisor leaves.
const LAST_SWEEP_MAX: Duration = Duration::from_secs(2);

/// After a second signal everything ends within a second.
const HASTY_SWEEP_MAX: Duration = Duration::from_millis(300);

/// The parent of the workers.
pub struct Supervisor {
    config: Config,
    dsn: Dsn,
    identity: Identity,
    directory: PrivateDirectory,
    orphan_recovery: OrphanRecovery,
    publisher: Publisher,
    signals: SignalThread,
    sweeper: Sweeper,
    observer: Observer,
    /// Ends with this.
    _self_probe: Option<SelfProbe>,
    events: Receiver<FleetEvent>,
    /// Held so that the channel outlives its other senders.
    sender: Sender<FleetEvent>,
    slots: Vec<Slot>,
    /// A worker whose last report, or whose longest call, is older than this is wedged.
    wedged_after: Duration,
    phase: Phase,
    /// When the main loop last did what is due with time.
    last_look: Instant,
    /// A failure that the exit code must show.
    has_failed: bool,
}

/// Where the main loop stands.
enum Phase {
    Starting,
    Running,
    Draining {
        deadline: Receiver<Instant>,
        since: Instant,
    },
    /// The workers have ended, or were killed.
    Stopped {
        code: u8,
        is_hasty: bool,
    },
}

impl Supervisor {
    /// Runs until everything has drained or was killed; returns the exit code.
    pub fn run(mut self) -> u8 {
        let ticks = tick(TICK);
        let (code, is_hasty) = loop {
            let event = self.next_event(&ticks);
            self.handle_event(event);
            if let Phase::Stopped { code, is_hasty } = self.phase {
                break (code, is_hasty);
            }
        };
        self.observer.stop();
        self.sweeper.stop(if is_hasty {
            HASTY_SWEEP_MAX
        } else {
            LAST_SWEEP_MAX
        });
        self.directory.leave();
        code
    }

    fn next_event(&self, ticks: &Receiver<Instant>) -> FleetEvent {
        let no_deadline = never();
        let deadline = match &self.phase {
            Phase::Draining { deadline, .. } => deadline,
            Phase::Starting | Phase::Running | Phase::Stopped { .. } => &no_deadline,
        };
        select! {
            recv(self.signals.received) -> signal => FleetEvent::Signal(signal.expect("the signal thread outlives the loop")),
            recv(self.events) -> event => event.expect("the supervisor holds a sender"),
            recv(ticks) -> _ => FleetEvent::Tick,
            recv(deadline) -> _ => FleetEvent::DrainTimedOut,
        }
    }

    fn handle_event(&mut self, event: FleetEvent) {
        match event {
            FleetEvent::Signal(signal) => self.signalled(signal),
            FleetEvent::Preflight(Ok(())) => self.start_fleet(),
            FleetEvent::Preflight(Err(reason)) => {
                error!("could not start: {reason}");
                self.phase = Phase::Stopped {
                    code: EXIT_CONFIG,
                    is_hasty: false,
                };
            }
            FleetEvent::Report(slot, pid, report) => self.reported(slot, pid, report),
            FleetEvent::Ended(slot, pid) => self.ended(slot, pid),
            FleetEvent::Tick => self.look_after(),
            FleetEvent::DrainTimedOut => self.kill_what_is_left("drain timed out", false),
        }
    }

    fn start_fleet(&mut self) {
        if !matches!(self.phase, Phase::Starting) {
            return;
        }
        self.phase = Phase::Running;
        self.publisher.phase(DaemonPhase::Running);
        info!("started: the database is there, and holds and allows all that is needed");
        for dead in self.orphan_recovery.take_all() {
            self.sweeper.sweep(dead);
        }
        for slot in 0..self.slots.len() {
            self.start_worker(slot);
        }
    }

    fn start_worker(&mut self, index: usize) {
        let number = self.slots[index].number;
        let settings =
            self.identity
                .settings(number, &self.directory.path, &self.config, &self.dsn);
        // The directory is removed with the last worker's file, so another supervisor may just have
        // removed it.
        let started = in_hand::private_directory(&self.directory.path)
            .and_then(|()| WorkerProcess::start(settings, &self.sender));
        let slot = &mut self.slots[index];
        match started {
            Ok(worker) => {
                info!("worker-{number:02} started (pid {})", worker.pid());
                let pid = worker.pid();
                let is_restart = slot.started(worker);
                self.publisher.started(number, pid, is_restart);
            }
            Err(error) => {
                let wait = slot.ended(Duration::ZERO);
                error!(
                    "could not start worker-{number:02}, trying again in {:.1} s: {error}",
                    wait.as_secs_f64()
                );
            }
        }
    }

    fn reported(&mut self, number: u16, pid: u32, report: Report) {
        let Some(worker) = self.worker(number, pid) else {
            return;
        };
        worker.reported(&report);
        self.publisher.reported(number, pid, report);
    }

    /// A worker has ended: cleans up, has its leases swept, and sees to a successor.
    fn ended(&mut self, number: u16, pid: u32) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else {
            return;
        };
        let Some(worker) = slot.worker.take_if(|worker| worker.pid() == pid) else {
            return;
        };
        let lived = worker.started.elapsed();
        let end = worker.reap();
        let wait = slot.ended(lived);
        let status = end.status;
        self.publisher.ended(number);
        self.has_failed |= !status.success();
        // A worker that has drained leaves its file only if the server may still commit one of its
        // claims.
        if !status.success() || end.remains.is_some() {
            let is_draining = matches!(self.phase, Phase::Draining { .. });
            self.sweep_after(end, is_draining.then_some("while draining"));
        }
        if matches!(self.phase, Phase::Running) {
            warn!(
                "worker-{number:02} (pid {pid}) ended: {status}; starting another in {:.1} s",
                wait.as_secs_f64()
            );
        } else {
            info!("worker-{number:02} (pid {pid}) ended: {status}");
        }
        self.leave_if_empty();
    }

    /// Does what is due with time: starts successors, replaces silent workers, recovers the files
    /// of dead workers and reaps orphaned processes.
    fn look_after(&mut self) {
        let now = Instant::now();
        let has_slept = now.duration_since(self.last_look) >= SLEPT;
        self.last_look = now;
        self.publisher.look_back(now);
        self.publisher.log_lines_dropped(logging::n_dropped());
        let mut gone = Vec::new();
        for slot in &mut self.slots {
            let Some(worker) = &mut slot.worker else {
                continue;
            };
            if has_slept {
                // This process was stopped for a while: its workers may have reported all the time.
                worker.excuse(now);
            }
            match worker.look(now, self.wedged_after) {
                Condition::Well => {}
                Condition::Gone => gone.push((slot.number, worker.pid())),
                Condition::Wedged(silent) => {
                    error!(
                        "worker-{:02} (pid {}) is wedged: stuck for {:.0} s; replacing it",
                        slot.number,
                        worker.pid(),
                        silent.as_secs_f64()
                    );
                    worker.is_leaving = true;
                    worker.kill();
                }
            }
        }
        for (number, pid) in gone {
            self.ended(number, pid);
        }
        if matches!(self.phase, Phase::Running) {
            for index in 0..self.slots.len() {
                if self.slots[index].is_start_due(now) {
                    self.start_worker(index);
                }
            }
            self.recover_orphans(now);
        }
        let workers: Vec<u32> = self.workers().map(WorkerProcess::pid).collect();
        process::reap_orphans(|pid| workers.contains(&pid));
    }

    fn recover_orphans(&mut self, now: Instant) {
        let ours: Vec<PathBuf> = self.workers().map(WorkerProcess::in_hand_path).collect();
        let is_ours = |path: &Path| ours.iter().any(|one| one == path);
        for dead in self.orphan_recovery.take_due(now, is_ours) {
            self.sweeper.sweep(dead);
        }
    }

    fn signalled(&mut self, signal: i32) {
        match self.phase {
            Phase::Starting | Phase::Running => self.drain(signal),
            Phase::Draining { .. } => {
                self.kill_what_is_left(&format!("{} while draining", signal::name(signal)), true);
            }
            Phase::Stopped { .. } => {}
        }
    }

    fn drain(&mut self, signal: i32) {
        info!("{} received: draining", signal::name(signal));
        self.publisher.phase(DaemonPhase::Draining);
        self.has_failed = false;
        for worker in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.worker.as_mut())
        {
            worker.drain();
        }
        self.phase = Phase::Draining {
            deadline: after(self.config.drain_timeout),
            since: Instant::now(),
        };
        self.leave_if_empty();
    }

    fn leave_if_empty(&mut self) {
        let Phase::Draining { since, .. } = self.phase else {
            return;
        };
        if self.slots.iter().all(|slot| slot.worker.is_none()) {
            info!("drained in {} ms", since.elapsed().as_millis());
            self.phase = Phase::Stopped {
                code: u8::from(self.has_failed),
                is_hasty: false,
            };
        }
    }

    /// Ends the drain by force. The sweeper charges the events in hand, or the next supervisor does
    /// if the sweeper has no time left.
    fn kill_what_is_left(&mut self, why: &str, is_hasty: bool) {
        let mut killed: Vec<WorkerProcess> = self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.worker.take())
            .collect();
        // First kill all of them, then clean up after one at a time, which takes longer.
        killed.iter_mut().for_each(WorkerProcess::kill);
        let n_killed = killed.len();
        for worker in killed {
            self.sweep_after(worker.reap(), Some(why));
        }
        warn!("{why}: killed {}", counted(n_killed, "worker"));
        self.phase = Phase::Stopped {
            code: EXIT_FAILED,
            is_hasty,
        };
    }

    /// Makes the sweeper end the leases of a worker that did not end them itself. `why` is the
    /// reason for the events that it had in hand, which are not to blame.
    fn sweep_after(&self, end: End, why: Option<&str>) {
        let status = end.status;
        self.sweeper.sweep(Dead {
            owner: end.settings.owner,
            end: why.map_or_else(|| status.to_string(), |why| format!("{status}, {why}")),
            remains: end.remains,
        });
    }

    fn workers(&self) -> impl Iterator<Item = &WorkerProcess> {
        self.slots.iter().filter_map(|slot| slot.worker.as_ref())
    }

    fn worker(&mut self, number: u16, pid: u32) -> Option<&mut WorkerProcess> {
        self.slots
            .get_mut(usize::from(number))
            .and_then(|slot| slot.worker.as_mut())
            .filter(|worker| worker.pid() == pid)
    }
}
