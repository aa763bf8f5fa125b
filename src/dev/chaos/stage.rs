//! The play: each fault of the schedule in its time, and its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::dev::chaos::ChaosError;
use crate::dev::chaos::checker::Hit;
use crate::dev::chaos::fleet::{Fleet, signal, tree};
use crate::dev::chaos::plan::{Fault, HOSTS, Step};
use crate::dev::cluster::{Cluster, StopMode};
use crate::store::dsn::Dsn;
use crate::store::{self, Session, StoreError, Timeouts};

/// How long a fault is put off that has no target yet, since no worker has started for instance.
const PUT_OFF_MAX: Duration = Duration::from_secs(20);

/// Bounds of the calls that are faults themselves.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    query: Duration::from_secs(5),
};

/// Where the faults are played.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) fleet: Fleet,
    pub(super) dsn: Dsn,
    /// The workers that a fault has hit, by process id.
    pub(super) hit: BTreeMap<u32, Hit>,
    /// How often each fault was played.
    pub(super) played: BTreeMap<Fault, u32>,
    started: Instant,
    steps: Vec<Step>,
    ends: Vec<(Instant, End)>,
    is_down: bool,
    is_frozen: bool,
}

/// The end of a fault that lasts.
enum End {
    /// These processes go on.
    Continue(Vec<u32>),
    /// The server is started.
    StartServer,
    /// The server goes on.
    ThawServer,
    /// The session's locks end with it.
    Unlock(Box<Session>),
}

impl Stage {
    pub(super) fn new(cluster: Cluster, fleet: Fleet, dsn: Dsn, steps: Vec<Step>) -> Stage {
        Stage {
            cluster,
            fleet,
            dsn,
            hit: BTreeMap::new(),
            played: BTreeMap::new(),
            started: Instant::now(),
            steps,
            ends: Vec::new(),
            is_down: false,
            is_frozen: false,
        }
    }

    /// Plays what is due, and ends what is over.
    pub(super) fn look(&mut self) -> Result<(), ChaosError> {
        let now = Instant::now();
        let (over, lasting) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.ends = lasting;
        for (_, end) in over {
            self.end(end)?;
        }
        self.fleet.look()?;
        let mut put_off = Vec::new();
        let elapsed = self.started.elapsed();
        let n_due = self.steps.partition_point(|step| step.at <= elapsed);
        let later = self.steps.split_off(n_due);
        for step in std::mem::replace(&mut self.steps, later) {
            if self.play(step)? {
                *self.played.entry(step.fault).or_default() += 1;
            } else if elapsed < step.at + PUT_OFF_MAX {
                put_off.push(step);
            }
        }
        self.steps.splice(0..0, put_off);
        Ok(())
    }

    /// Says whether every fault of the schedule was played.
    pub(super) fn is_over(&self) -> bool {
        self.steps.is_empty()
    }

    /// Ends all faults.
    pub(super) fn end_all(&mut self) -> Result<(), ChaosError> {
        self.steps.clear();
        let ends = std::mem::take(&mut self.ends);
        // One that fails keeps no other from its end: nothing is to stay frozen.
        let ended: Vec<Result<(), ChaosError>> =
            ends.into_iter().map(|(_, end)| self.end(end)).collect();
        ended.into_iter().collect::<Result<(), _>>()?;
        Ok(self.fleet.complete()?)
    }

    fn end(&mut self, end: End) -> Result<(), ChaosError> {
        match end {
            End::Continue(pids) => {
                for pid in pids {
                    signal(pid, Signal::CONT);
                }
            }
            End::StartServer => self.start_server()?,
            End::ThawServer => self.thaw_server()?,
            End::Unlock(session) => drop(session),
        }
        Ok(())
    }

    fn start_server(&mut self) -> Result<(), ChaosError> {
        if std::mem::take(&mut self.is_down) {
            self.cluster.start_again()?;
        }
        Ok(())
    }

    fn thaw_server(&mut self) -> Result<(), ChaosError> {
        if std::mem::take(&mut self.is_frozen) {
            self.cluster.resume()?;
        }
        Ok(())
    }

    /// Plays one fault; `false` where there is nothing that it could hit.
    fn play(&mut self, step: Step) -> Result<bool, ChaosError> {
        match step.fault {
            Fault::KillWorker
            | Fault::KillSupervisor
            | Fault::KillHost
            | Fault::LoseHost
            | Fault::FreezeWorker
            | Fault::FreezeHost
            | Fault::RestartDaemon => Ok(self.hit_daemon(step)),
            Fault::RestartDatabase => self.stop_server(StopMode::Fast, step),
            Fault::CrashDatabase => self.stop_server(StopMode::Immediate, step),
            Fault::FreezeDatabase => {
                self.start_server()?;
                self.cluster.pause()?;
                self.is_frozen = true;
                self.lasts(step, End::ThawServer);
                Ok(true)
            }
            Fault::CutConnections => {
                let sql = include_str!("../../../sql/chaos_cut.sql");
                let mut session = self.connect()?;
                Ok(session
                    .query("cut all connections", sql, &[], |_| Ok(()))
                    .is_ok())
            }
            Fault::LockTable => self.lock(
                step,
                "begin; set local lock_timeout = '3s'; lock table outbox_event in access exclusive mode",
            ),
            Fault::LockRows => self.lock(
                step,
                "begin; select from outbox_event where status in ('pending', 'retry') order by random() limit 50 for update skip locked",
            ),
        }
    }

    /// Plays a fault of a daemon, of the other one where this one is away.
    fn hit_daemon(&mut self, step: Step) -> bool {
        let is_freeze = matches!(step.fault, Fault::FreezeWorker | Fault::FreezeHost);
        if is_freeze
            && self
                .ends
                .iter()
                .any(|(_, end)| matches!(end, End::Continue(_)))
        {
            // Another daemon has to be there to sweep what a frozen worker loses.
            return false;
        }
        let hosts = (0..HOSTS).map(|n| (step.host + n) % HOSTS);
        let found = hosts.into_iter().find_map(|host| {
            let supervisor = self.fleet.supervisor(host)?;
            let workers = self.fleet.workers(host);
            let worker = *workers.get(step.pick % workers.len().max(1))?;
            Some((host, supervisor, workers, worker))
        });
        let Some((host, supervisor, workers, worker)) = found else {
            return false;
        };
        match step.fault {
            Fault::KillWorker => {
                self.note(&[worker], |hit| hit.is_killed = true);
                signal(worker, Signal::KILL);
            }
            Fault::KillSupervisor => signal(supervisor, Signal::KILL),
            Fault::KillHost | Fault::LoseHost => {
                // It shall start no worker while the list is made.
                signal(supervisor, Signal::STOP);
                let is_lost = step.fault == Fault::LoseHost;
                self.note(&self.fleet.workers(host), |hit| {
                    hit.is_killed = true;
                    hit.is_lost |= is_lost;
                });
                for pid in tree(supervisor) {
                    signal(pid, Signal::KILL);
                }
                self.fleet.stays_away(host, step.lasts, is_lost);
            }
            Fault::FreezeWorker => {
                self.note(&[worker], |hit| hit.is_frozen = true);
                signal(worker, Signal::STOP);
                self.lasts(step, End::Continue(vec![worker]));
            }
            Fault::FreezeHost => {
                self.note(&workers, |hit| hit.is_frozen = true);
                let pids: Vec<u32> = [supervisor].into_iter().chain(workers).collect();
                for &pid in &pids {
                    signal(pid, Signal::STOP);
                }
                self.lasts(step, End::Continue(pids));
            }
            Fault::RestartDaemon => self.fleet.drain(host),
            Fault::RestartDatabase
            | Fault::CrashDatabase
            | Fault::FreezeDatabase
            | Fault::CutConnections
            | Fault::LockTable
            | Fault::LockRows => unreachable!("it hits the server"),
        }
        true
    }

    fn note(&mut self, workers: &[u32], how: impl Fn(&mut Hit)) {
        for &worker in workers {
            how(self.hit.entry(worker).or_default());
        }
    }

    fn stop_server(&mut self, mode: StopMode, step: Step) -> Result<bool, ChaosError> {
        self.start_server()?;
        self.thaw_server()?;
        self.cluster.stop(mode)?;
        self.is_down = true;
        self.lasts(step, End::StartServer);
        Ok(true)
    }

    /// Takes locks in a session of their own. They may be refused, by a producer's transaction for
    /// instance that stays open for too long.
    fn lock(&mut self, step: Step, sql: &str) -> Result<bool, ChaosError> {
        let mut session = self.connect()?;
        let is_locked = session.batch("take locks", sql).is_ok();
        if is_locked {
            self.lasts(step, End::Unlock(Box::new(session)));
        }
        Ok(is_locked)
    }

    /// Connects to the server, which is started or thawed for it.
    fn connect(&mut self) -> Result<Session, ChaosError> {
        self.start_server()?;
        self.thaw_server()?;
        Ok(connect(&self.dsn)?)
    }

    fn lasts(&mut self, step: Step, end: End) {
        self.ends.push((Instant::now() + step.lasts, end));
    }
}

/// Opens a connection of the chaos's own.
pub(super) fn connect(dsn: &Dsn) -> Result<Session, StoreError> {
    store::connect(dsn, &TIMEOUTS, "dispatchbox chaos")
}
