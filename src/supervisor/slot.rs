//! A worker's place: its number survives restarts, and it knows when the next worker may be started.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::in_hand::Owner;
use crate::settings::WorkerSettings;
use crate::store::dsn::Dsn;
use crate::supervisor::child::WorkerProcess;

/// Wait before the successor of a worker that lived long: together with its start less than a second.
const WAIT_FIRST: Duration = Duration::from_millis(250);

/// A worker that dies again and again is started this often.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A worker that lived this long was no part of a crash loop.
const SOUND_AFTER: Duration = Duration::from_mins(1);

/// One worker's place.
pub(super) struct Slot {
    /// Its number: the metric label, and part of the worker's name.
    pub(super) number: u16,
    /// Who works there now.
    pub(super) worker: Option<WorkerProcess>,
    start_at: Option<Instant>,
    last_wait: Option<Duration>,
    last_started: Option<Instant>,
}

impl Slot {
    /// An empty one.
    pub(super) fn new(number: u16) -> Slot {
        Slot {
            number,
            worker: None,
            start_at: None,
            last_wait: None,
            last_started: None,
        }
    }

    /// Takes in a worker; says whether it is the successor of another.
    pub(super) fn started(&mut self, worker: WorkerProcess) -> bool {
        let is_restart = self.last_started.is_some();
        self.last_started = Some(worker.started);
        self.start_at = None;
        self.worker = Some(worker);
        is_restart
    }

    /// Notes that the worker has ended, or could not be started; returns when its successor is due.
    pub(super) fn ended(&mut self) -> Duration {
        let was_sound = self
            .last_started
            .is_some_and(|started| started.elapsed() >= SOUND_AFTER);
        let wait = match self.last_wait {
            Some(last) if !was_sound => (last * 2).min(WAIT_MAX),
            _ => WAIT_FIRST,
        };
        self.last_wait = Some(wait);
        self.start_at = Some(Instant::now() + wait);
        wait
    }

    /// Says whether a worker is to be started now.
    pub(super) fn is_start_due(&self, now: Instant) -> bool {
        self.worker.is_none() && self.start_at.is_some_and(|at| now >= at)
    }
}

/// What the workers' ids are made of.
pub(super) struct Identity {
    host: String,
    database: String,
    random: RandomState,
    n_started: u64,
}

impl Identity {
    /// Of this host, for workers on `database`.
    pub(super) fn new(database: String) -> Identity {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Identity {
            host,
            database,
            random: RandomState::new(),
            n_started: 0,
        }
    }

    /// The settings of a new worker, with an id that never returns.
    pub(super) fn settings(
        &mut self,
        slot: u16,
        directory: &Path,
        config: &Config,
        dsn: &Dsn,
    ) -> WorkerSettings {
        self.n_started += 1;
        // std seeds this hasher from the operating system's randomness; with the pid and the count no two starts meet.
        let random = self.random.hash_one((std::process::id(), self.n_started));
        let owner = Owner {
            worker: format!("{}/worker-{slot:02}/{random:016x}", self.host),
            application_name: format!("dispatchbox worker-{slot:02} {random:016x}"),
            database: self.database.clone(),
        };
        WorkerSettings {
            slot,
            owner,
            directory: directory.to_owned(),
            in_hand_name: format!("worker-{slot:02}-{random:016x}"),
            config: config.clone(),
            dsn: dsn.clone(),
        }
    }
}
