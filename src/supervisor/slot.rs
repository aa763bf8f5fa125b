//! A worker's place: its number survives restarts, and it knows when the next worker may be
//! started.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::domain::config::Config;
use crate::domain::protocol::{Owner, WorkerSettings};
use crate::store::dsn::Dsn;
use crate::supervisor::child::WorkerProcess;

/// Wait before the successor of a worker that lived long: together with its start less than a
/// second.
const WAIT_FIRST: Duration = Duration::from_millis(250);

/// A worker that dies again and again is started this often.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A worker that lived this many times the wait before it was no part of a crash loop: a slot that
/// loses workers each few seconds, to the out-of-memory killer for instance, and did work in
/// between, is empty for a fraction of the time. With waits that only a life of a minute ended, one
/// worker of four killed each second left the daemon without any worker in 28 of 60 seconds.
const SOUND_LIVES: u32 = 8;

/// A worker that lived this long was no part of a crash loop either, whatever the wait before it.
const SOUND_AFTER: Duration = Duration::from_mins(1);

/// One worker's place.
pub(super) struct Slot {
    /// Its number: the metric label, and part of the worker's name.
    pub(super) number: u16,
    /// The worker in this slot.
    pub(super) worker: Option<WorkerProcess>,
    had_worker: bool,
    start_at: Option<Instant>,
    last_wait: Option<Duration>,
}

impl Slot {
    /// Makes an empty slot.
    pub(super) fn new(number: u16) -> Slot {
        Slot {
            number,
            worker: None,
            had_worker: false,
            start_at: None,
            last_wait: None,
        }
    }

    /// Takes in a worker; says whether it is the successor of another.
    pub(super) fn started(&mut self, worker: WorkerProcess) -> bool {
        self.start_at = None;
        self.worker = Some(worker);
        std::mem::replace(&mut self.had_worker, true)
    }

    /// Notes that the worker has ended after so long a life, none if it could not be started;
    /// returns how long its successor waits.
    pub(super) fn ended(&mut self, lived: Duration) -> Duration {
        let wait = next_wait(self.last_wait, lived);
        self.last_wait = Some(wait);
        self.start_at = Some(Instant::now() + wait);
        wait
    }

    /// Says whether a worker is to be started now.
    pub(super) fn is_start_due(&self, now: Instant) -> bool {
        self.worker.is_none() && self.start_at.is_some_and(|at| now >= at)
    }
}

/// The wait after a worker that lived so long, and was itself started after a wait of `last`.
fn next_wait(last: Option<Duration>, lived: Duration) -> Duration {
    match last {
        Some(last) if lived < (last * SOUND_LIVES).min(SOUND_AFTER) => (last * 2).min(WAIT_MAX),
        _ => WAIT_FIRST,
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
    ) -> WorkerSettings<Dsn> {
        self.n_started += 1;
        // std seeds this hasher from the operating system's randomness; with the pid and the count
        // no two starts meet.
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
            dsn: dsn.newest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits, in milliseconds, of a slot whose workers live so long each.
    fn waits(lives: impl IntoIterator<Item = Duration>) -> Vec<u128> {
        let mut slot = Slot::new(0);
        lives
            .into_iter()
            .map(|lived| slot.ended(lived).as_millis())
            .collect()
    }

    #[test]
    fn waits_of_a_crash_loop_double_up_to_half_a_minute() {
        let growing = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];

        assert_eq!(waits([Duration::ZERO; 9]), growing);
        assert_eq!(waits([Duration::from_millis(1900); 9]), growing);
    }

    #[test]
    fn a_worker_that_did_its_work_for_a_while_is_followed_at_once() {
        assert_eq!(waits([Duration::from_secs(2); 4]), [250; 4]);

        let mut lives = vec![Duration::ZERO; 8];
        lives.extend([Duration::from_secs(59), SOUND_AFTER, Duration::ZERO]);
        assert_eq!(waits(lives)[7..], [30_000, 30_000, 250, 500]);
    }
}
