//! The schedule: which fault comes when, and what it hits. Pure, and the same for the same seed.

use std::time::Duration;

use fastrand::Rng;

/// Pauses between two faults, in milliseconds: short enough that one comes before the last one is
/// overcome, long enough that events flow in between.
const GAP_MS: std::ops::Range<u64> = 500..2200;

/// Daemons that the schedule plays with.
pub(super) const HOSTS: usize = 2;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to a worker.
    KillWorker,
    /// SIGKILL to a supervisor, whose workers live on for a moment, and a new daemon at once.
    KillSupervisor,
    /// SIGKILL to a supervisor, its workers and their programs; a new daemon on the same host.
    KillHost,
    /// The same, and what lay in the runtime directory is gone.
    LoseHost,
    /// SIGSTOP to a worker for longer than its lease, then SIGCONT.
    FreezeWorker,
    /// The same with a whole daemon.
    FreezeHost,
    /// SIGTERM to a daemon, and a new one when it has ended.
    RestartDaemon,
    /// A fast stop of the server, and its start.
    RestartDatabase,
    /// An immediate stop of the server, and its start: as after a power failure.
    CrashDatabase,
    /// SIGSTOP to all back ends for a while.
    FreezeDatabase,
    /// `pg_terminate_backend` of every connection.
    CutConnections,
    /// A lock on the whole table for a while.
    LockTable,
    /// Locks on single rows for a while.
    LockRows,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 13] = [
        Fault::KillWorker,
        Fault::KillSupervisor,
        Fault::KillHost,
        Fault::LoseHost,
        Fault::FreezeWorker,
        Fault::FreezeHost,
        Fault::RestartDaemon,
        Fault::RestartDatabase,
        Fault::CrashDatabase,
        Fault::FreezeDatabase,
        Fault::CutConnections,
        Fault::LockTable,
        Fault::LockRows,
    ];

    /// Its name in the report and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillWorker => "kill-worker",
            Fault::KillSupervisor => "kill-supervisor",
            Fault::KillHost => "kill-host",
            Fault::LoseHost => "lose-host",
            Fault::FreezeWorker => "freeze-worker",
            Fault::FreezeHost => "freeze-host",
            Fault::RestartDaemon => "restart-daemon",
            Fault::RestartDatabase => "restart-database",
            Fault::CrashDatabase => "crash-database",
            Fault::FreezeDatabase => "freeze-database",
            Fault::CutConnections => "cut-connections",
            Fault::LockTable => "lock-table",
            Fault::LockRows => "lock-rows",
        }
    }

    /// What it does, in a few words.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Fault::KillWorker => "SIGKILL to a worker",
            Fault::KillSupervisor => "SIGKILL to a supervisor, started again at once",
            Fault::KillHost => "SIGKILL to a whole daemon, started again on the same host",
            Fault::LoseHost => "the same, its runtime directory gone",
            Fault::FreezeWorker => "SIGSTOP to a worker past its leases, then SIGCONT",
            Fault::FreezeHost => "the same with a whole daemon",
            Fault::RestartDaemon => "SIGTERM, started again when it has drained",
            Fault::RestartDatabase => "fast stop, down for a moment",
            Fault::CrashDatabase => "immediate stop, down for a moment",
            Fault::FreezeDatabase => "SIGSTOP to the server, then SIGCONT",
            Fault::CutConnections => "pg_terminate_backend of all",
            Fault::LockTable => "ACCESS EXCLUSIVE for some seconds",
            Fault::LockRows => "FOR UPDATE of 50 waiting events for some seconds",
        }
    }

    /// How long it lasts, from and to, in milliseconds. A frozen worker's leases are over after
    /// their time and swept a third of it later; after 9 s of silence its supervisor replaces it.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            Fault::FreezeWorker | Fault::FreezeHost => (6500, 8500),
            Fault::KillHost | Fault::LoseHost | Fault::RestartDatabase | Fault::CrashDatabase => {
                (0, 2000)
            }
            Fault::FreezeDatabase | Fault::LockTable => (300, 3000),
            Fault::LockRows => (500, 5000),
            Fault::KillWorker
            | Fault::KillSupervisor
            | Fault::RestartDaemon
            | Fault::CutConnections => (0, 0),
        }
    }
}

/// One fault of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// When, since the start.
    pub(super) at: Duration,
    /// What.
    pub(super) fault: Fault,
    /// Which daemon it hits, if it hits one.
    pub(super) host: usize,
    /// Which of that daemon's workers: the remainder by their number.
    pub(super) pick: usize,
    /// How long it lasts.
    pub(super) lasts: Duration,
}

/// Makes the schedule of a seed: rounds in which each of the faults comes once, in random order.
pub(super) fn plan(seed: u64, faults: &[Fault], length: Duration) -> Vec<Step> {
    let mut random = Rng::with_seed(seed);
    let mut steps = Vec::new();
    let mut at = Duration::from_millis(random.u64(GAP_MS));
    let mut round: Vec<Fault> = Vec::new();
    while at < length && !faults.is_empty() {
        if round.is_empty() {
            round = faults.to_vec();
            random.shuffle(&mut round);
        }
        let fault = round.pop().expect("the round was filled just now");
        let (from, to) = fault.lasts_ms();
        steps.push(Step {
            at,
            fault,
            host: random.usize(..HOSTS),
            pick: random.usize(..1000),
            lasts: Duration::from_millis(random.u64(from..=to)),
        });
        at += Duration::from_millis(random.u64(GAP_MS));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn the_same_seed_plays_the_same_schedule_and_another_one_does_not() {
        let once = plan(7, &Fault::ALL, MINUTE);
        assert_eq!(once, plan(7, &Fault::ALL, MINUTE));
        assert_ne!(once, plan(8, &Fault::ALL, MINUTE));
        assert!(once.len() > 30, "{}", once.len());
    }

    #[test]
    fn a_longer_run_begins_as_the_shorter_one() {
        let short = plan(7, &Fault::ALL, MINUTE / 4);
        assert_eq!(short, plan(7, &Fault::ALL, MINUTE)[..short.len()]);
    }

    #[test]
    fn each_fault_comes_once_in_each_round() {
        for seed in 0..50 {
            let steps = plan(seed, &Fault::ALL, MINUTE);
            let mut round: Vec<Fault> = steps[..Fault::ALL.len()]
                .iter()
                .map(|step| step.fault)
                .collect();
            round.sort_unstable();
            assert_eq!(round, Fault::ALL);
        }
    }

    #[test]
    fn only_the_chosen_faults_are_played() {
        let steps = plan(7, &[Fault::LockRows], MINUTE);
        assert!(steps.iter().all(|step| step.fault == Fault::LockRows));
        assert_eq!(plan(7, &[], MINUTE), []);
    }
}
