//! Files that are read again when they change: a secret, a certificate and its key.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a look at the files counts: long beside the pace of those who ask, short beside the
/// time in which a secret is exchanged or a certificate renewed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A few files that belong together.
#[derive(Debug)]
pub struct FileWatch {
    paths: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked_at: Option<Instant>,
    /// The files as they were when they were taken; a file that cannot be looked at has no stamp.
    taken: Option<Vec<Option<Stamp>>>,
}

impl FileWatch {
    /// Watches files of which none has been read: the first look finds them changed.
    pub fn unread(paths: Vec<String>) -> FileWatch {
        FileWatch {
            paths,
            state: Mutex::default(),
        }
    }

    /// Watches files that are read behind this call: what changes meanwhile is found changed.
    pub fn read_now(paths: Vec<String>) -> FileWatch {
        let state = State {
            looked_at: Some(Instant::now()),
            taken: Some(stamps(&paths)),
        };
        FileWatch {
            paths,
            state: Mutex::new(state),
        }
    }

    /// Calls `take` if a file has changed since it was taken, once a second at most, and by one
    /// thread at a time. While `take` says that it has not taken them, they count as changed.
    pub fn look(&self, take: impl FnOnce() -> bool) {
        // Another thread is looking at the files.
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        if state
            .looked_at
            .is_some_and(|before| before.elapsed() < LOOK_EVERY)
        {
            return;
        }
        state.looked_at = Some(Instant::now());
        // Before they are read: what changes meanwhile is read again.
        let stamps = Some(stamps(&self.paths));
        if state.taken != stamps && take() {
            state.taken = stamps;
        }
    }
}

fn stamps(paths: &[String]) -> Vec<Option<Stamp>> {
    let stamp = |path: &String| Some(Stamp::of(&fs::metadata(path).ok()?));
    paths.iter().map(stamp).collect()
}

/// What tells that a file has changed: another file in its place, or other bytes in it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    changed_at: (i64, i64),
    n_bytes: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            file: (metadata.dev(), metadata.ino()),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
            n_bytes: metadata.len(),
        }
    }
}
