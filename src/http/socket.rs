//! The private socket between the guard and the server behind it.
//!
//! A name in the file system is needed to bind it and for nothing else: an open descriptor leads to
//! the socket as well, by its link in /proc. So the name lives for microseconds, in a directory
//! that only this user may enter, and a killed daemon leaves nothing behind. If a daemon is killed
//! in those microseconds, a later start removes what it has left.
//!
//! Refused: an abstract address, which every user of the host could connect to, and a loopback port
//! for the same reason. A process that reaches this socket can claim any peer address for a
//! request.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

/// Prefix of the directories that sockets are bound in.
const PREFIX: &str = "http-";

/// The socket's name in its directory.
const NAME: &str = "dispatchbox";

/// A directory of ours that is older than this is no longer needed by the daemon that made it.
const LEFT_SECONDS: i64 = 60;

/// The way to the listener. Dropping it connects once more, which wakes the accept loop, so that a
/// loop that is to stop ends.
pub(super) struct Socket {
    socket: OwnedFd,
    /// tiny_http knows its address by the number of this descriptor, and removes the file there
    /// when it ends.
    _directory: File,
}

impl Socket {
    /// Binds a socket below `private`.
    pub(super) fn bind(private: &Path) -> io::Result<(UnixListener, Socket)> {
        let path = private.join(format!("{PREFIX}{:016x}", fastrand::u64(..)));
        DirBuilder::new().mode(0o700).create(&path)?;
        let bound = File::open(&path).and_then(|directory| {
            remove_left(private, &directory);
            // The path leads through the descriptor: a socket's path ends at 107 bytes, and the
            // directory's path may be longer.
            let name = link(directory.as_raw_fd()).join(NAME);
            let listener = UnixListener::bind(&name)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let socket = openat(&directory, NAME, flags, Mode::empty())?;
            fs::remove_file(&name)?;
            let socket = Socket {
                socket,
                _directory: directory,
            };
            Ok((listener, socket))
        });
        let removed = fs::remove_dir(&path);
        let bound = bound?;
        removed?;
        Ok(bound)
    }

    /// Connects to the listener.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(link(self.socket.as_raw_fd()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.connect();
    }
}

fn link(descriptor: i32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{descriptor}"))
}

/// Removes directories that were left long before `newest` was made. The file system dates both, so
/// no clock is read.
fn remove_left(private: &Path, newest: &File) {
    let (Ok(entries), Ok(newest)) = (fs::read_dir(private), newest.metadata()) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes());
        let is_left = entry
            .metadata()
            .is_ok_and(|found| found.is_dir() && newest.mtime() - found.mtime() > LEFT_SECONDS);
        if is_ours && is_left {
            let _ = fs::remove_file(entry.path().join(NAME));
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_socket_has_no_name_and_is_reached_all_the_same() -> io::Result<()> {
        let directory = std::env::temp_dir().join(format!("dbx-socket-{}", std::process::id()));
        // Longer than the path of a socket may be.
        let private = directory.join("a".repeat(150));
        fs::create_dir_all(&private)?;

        let (listener, socket) = Socket::bind(&private)?;

        assert_eq!(fs::read_dir(&private)?.count(), 0);
        let mut client = socket.connect()?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"hello")?;
        drop(client);
        let mut heard = String::new();
        server.read_to_string(&mut heard)?;
        assert_eq!(heard, "hello");
        drop(socket);
        assert!(listener.accept().is_ok(), "the accept loop is woken");
        fs::remove_dir_all(&directory)
    }

    #[test]
    fn what_a_killed_start_left_is_removed_and_what_a_running_one_needs_is_not() -> io::Result<()> {
        let private = std::env::temp_dir().join(format!("dbx-left-{}", std::process::id()));
        for name in ["http-old", "http-new", "other"] {
            fs::create_dir_all(private.join(name))?;
            fs::write(private.join(name).join(NAME), "")?;
        }
        for name in ["http-old", "other"] {
            let directory = File::open(private.join(name))?;
            let made = directory.metadata()?.modified()?;
            directory.set_modified(made - Duration::from_mins(2))?;
        }

        Socket::bind(&private)?;

        assert!(!private.join("http-old").exists());
        assert!(private.join("http-new").join(NAME).exists());
        assert!(private.join("other").join(NAME).exists());
        fs::remove_dir_all(&private)
    }
}
