//! A short directory of a test's own, for files, fifos and sockets.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed with this value. Its path is short: socket paths end at 107 bytes.
pub struct TestDir(PathBuf);

impl TestDir {
    /// Makes one under /tmp.
    pub fn new() -> TestDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/dbx-test-{}-{n}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        TestDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it, as text for command lines.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// What is in it.
    pub fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // A panic here would hide the test's own.
        let _ = fs::remove_dir_all(&self.0);
    }
}
