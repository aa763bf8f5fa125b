//! Orphan recovery: takes over the in-hand files of workers that ended together with their
//! supervisor. No process locks such a file.
//!
//! The supervisor looks for these files at its start, because most often this daemon's predecessor
//! was killed. It goes on looking as long as it runs, because another daemon on this host may be
//! killed with its workers at any time. A living supervisor reaps its own workers within moments.
//! Therefore a later look takes only a file that was unlocked at the look before, too. The look at
//! the start takes every unlocked file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::info;

use crate::supervisor::sweeper::Dead;
use crate::system::in_hand::{self, Leader, Remains};
use crate::system::process;

/// The time between two looks, which is as long as the keeper waits before it looks for expired
/// leases. A look opens each file in the directory, which holds one file per worker.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks for the in-hand files of dead workers.
pub(super) struct OrphanRecovery {
    directory: PathBuf,
    database: String,
    /// Files that were unlocked at the last look.
    free: HashSet<PathBuf>,
    look_at: Instant,
}

impl OrphanRecovery {
    /// Watches the files in this directory that belong to workers of this database.
    pub(super) fn new(directory: PathBuf, database: String) -> OrphanRecovery {
        OrphanRecovery {
            directory,
            database,
            free: HashSet::new(),
            look_at: Instant::now() + LOOK_EVERY,
        }
    }

    /// Takes over every unlocked file.
    pub(super) fn take_all(&self) -> Vec<Dead> {
        in_hand::files(&self.directory, &self.database)
            .iter()
            .filter_map(|path| Remains::take(path))
            .map(dead)
            .collect()
    }

    /// Takes over the files that were unlocked at the last look and still are; does nothing until a
    /// look is due. `is_ours` says which files belong to workers that this supervisor reaps itself.
    pub(super) fn take_due(&mut self, now: Instant, is_ours: impl Fn(&Path) -> bool) -> Vec<Dead> {
        if now < self.look_at {
            return Vec::new();
        }
        self.look_at = now + LOOK_EVERY;
        let free: Vec<Remains> = in_hand::files(&self.directory, &self.database)
            .iter()
            .filter(|path| !is_ours(path))
            .filter_map(|path| Remains::take(path))
            .collect();
        let before = std::mem::take(&mut self.free);
        let (due, new): (Vec<Remains>, Vec<Remains>) = free
            .into_iter()
            .partition(|remains| before.contains(remains.path()));
        // Dropping the new ones unlocks them: their own supervisor may be about to reap these
        // workers.
        self.free = new
            .iter()
            .map(|remains| remains.path().to_owned())
            .collect();
        due.into_iter().map(dead).collect()
    }
}

/// Ends the processes that the worker left running.
fn dead(remains: Remains) -> Dead {
    info!(
        "worker {} of another daemon is gone: ending what it left",
        remains.owner.worker
    );
    remains.kill_groups(Leader::MustLive);
    process::kill_programs_of(&remains.owner.worker);
    Dead {
        owner: remains.owner.clone(),
        end: "killed together with its daemon, or at the end of its drain".to_owned(),
        remains: Some(remains),
    }
}
