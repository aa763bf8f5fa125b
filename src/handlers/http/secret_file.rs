//! A file that holds one secret of a route: its URL, the value of a header, a key. Read at the
//! start, and again when it changes.

use std::fs;
use std::io::{self, Read as _};
use std::sync::{Mutex, PoisonError};

use crate::system::file_watch::FileWatch;

/// Longest secret that a file may hold.
const BYTES_MAX: u64 = 64 * 1024;

/// The file of one secret.
#[derive(Debug)]
pub(super) struct SecretFile {
    /// What it holds, in the words of the log.
    what: String,
    path: String,
    watch: FileWatch,
    /// The last complaint, which is logged once.
    complaint: Mutex<Option<String>>,
}

impl SecretFile {
    pub(super) fn new(what: &str, path: &str) -> SecretFile {
        SecretFile {
            what: what.to_owned(),
            path: path.to_owned(),
            watch: FileWatch::unread(vec![path.to_owned()]),
            complaint: Mutex::default(),
        }
    }

    /// Hands a changed secret to `take`, which may refuse it. A file that cannot be used changes
    /// nothing: it may be half written, and is looked at again.
    pub(super) fn look(&self, take: impl FnOnce(&str) -> Result<(), String>) {
        self.watch.look(|| {
            let taken = read(&self.path).and_then(|text| take(&text).map_err(io::Error::other));
            let complaint = taken.err().map(|error| error.to_string());
            let is_taken = complaint.is_none();
            self.complain(complaint);
            is_taken
        });
    }

    /// Logs a complaint that is not the last one.
    fn complain(&self, complaint: Option<String>) {
        let mut last = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(complaint) = &complaint
            && last.as_ref() != Some(complaint)
        {
            ::log::warn!(
                "could not use the {what} file `{path}`, the {what} before stays: {complaint}",
                what = self.what,
                path = self.path
            );
        }
        *last = complaint;
    }
}

/// Reads a secret from a file; space around it is no part of it. An error shows nothing of the
/// file.
pub(super) fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let n_bytes = fs::File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(n_bytes).unwrap_or(u64::MAX) > BYTES_MAX {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    let secret = text.trim();
    if secret.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(secret.to_owned())
}
