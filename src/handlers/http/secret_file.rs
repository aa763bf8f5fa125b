//! A file that holds one secret of a route: its URL, the value of a header, a key. Read at the
//! start, and again when it changes.

use std::fs;
use std::io::{self, Read as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::system::stamp::Stamp;

/// Longest secret that a file may hold.
const BYTES_MAX: u64 = 64 * 1024;

/// How long a look at the file counts: long beside a busy route's pace, short beside the time in
/// which a secret is exchanged.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The file of one secret.
#[derive(Debug)]
pub(super) struct SecretFile {
    /// What it holds, in the words of the log.
    what: String,
    path: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked_at: Option<Instant>,
    /// The file as it was when its secret was taken.
    taken: Option<Stamp>,
    /// The last complaint, which is logged once.
    complaint: Option<String>,
}

impl SecretFile {
    pub(super) fn new(what: &str, path: &str) -> SecretFile {
        SecretFile {
            what: what.to_owned(),
            path: path.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Hands a changed secret to `take`, which may refuse it. A file that cannot be used changes
    /// nothing: it may be half written, and is looked at again.
    pub(super) fn look(&self, take: impl FnOnce(&str) -> Result<(), String>) {
        // Another runner is looking at the file.
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
        let result = fs::metadata(&self.path).and_then(|metadata| {
            let stamp = Stamp::of(&metadata);
            if state.taken.as_ref() == Some(&stamp) {
                return Ok(());
            }
            take(&read(&self.path)?).map_err(io::Error::other)?;
            state.taken = Some(stamp);
            Ok(())
        });
        let complaint = result.err().map(|error| error.to_string());
        if let Some(complaint) = &complaint
            && state.complaint.as_ref() != Some(complaint)
        {
            ::log::warn!(
                "could not use the {what} file `{path}`, the {what} before stays: {complaint}",
                what = self.what,
                path = self.path
            );
        }
        state.complaint = complaint;
    }
}

/// Reads a secret from a file; space around it is no part of it. An error shows nothing of the file.
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
