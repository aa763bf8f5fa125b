//! What workers left that died without a supervisor to bury them: files in the directory that nobody locks.
//!
//! They are looked for at the start, since most often it is this daemon's predecessor that was killed, and then as long as the daemon
//! runs: another one on this host may be killed, with its workers, at any time. A worker whose supervisor lives is buried by that
//! within moments, so in passing only a file is taken that was free at the look before, too; at the start nobody waits for that.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::info;

use crate::in_hand::{self, Leader, Remains};
use crate::process;
use crate::supervisor::sweeper::Dead;

/// As often as keepers look for expired leases. A look opens each file in the directory, of which there is one per worker.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks for what dead workers left.
pub(super) struct Leftovers {
    directory: PathBuf,
    database: String,
    /// Files that were free at the last look.
    free: HashSet<PathBuf>,
    look_at: Instant,
}

impl Leftovers {
    /// For the workers of a database whose files are in this directory.
    pub(super) fn new(directory: PathBuf, database: String) -> Leftovers {
        Leftovers {
            directory,
            database,
            free: HashSet::new(),
            look_at: Instant::now() + LOOK_EVERY,
        }
    }

    /// Takes over everything that nobody holds.
    pub(super) fn take_all(&self) -> Vec<Dead> {
        in_hand::files(&self.directory, &self.database)
            .iter()
            .filter_map(|path| Remains::take(path))
            .map(dead)
            .collect()
    }

    /// When it is time for a look: takes over what nobody has held for a while. `is_ours` says which files belong to workers that this
    /// supervisor will bury.
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
        // Dropped, and so unlocked: their own supervisor may be just about to bury them.
        self.free = new
            .iter()
            .map(|remains| remains.path().to_owned())
            .collect();
        due.into_iter().map(dead).collect()
    }
}

/// Ends what the worker left running.
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
