//! What tells that a file has changed: another file in its place, or other bytes in it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// A file as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    changed_at: (i64, i64),
    n_bytes: u64,
}

impl Stamp {
    /// The stamp of the file that has these metadata.
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            file: (metadata.dev(), metadata.ino()),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
            n_bytes: metadata.len(),
        }
    }
}
