//! Finds the Unix socket that the driver has just opened, which it does not expose: the new one among
//! those of this process, while no other thread of the store opens one.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::debug;
use rustix::net::{SocketAddrUnix, getpeername};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The longest wait for the turn to open a Unix socket. Other threads need their turns for a moment
/// each.
const TURN_MAX: Duration = Duration::from_secs(1);

/// The search for the Unix socket that is opened while this lives. Only one search runs at a time,
/// so that the new socket is the one.
pub(super) struct Search {
    directory: PathBuf,
    name: String,
    before: Vec<String>,
    _turn: Turn,
}

impl Search {
    /// Begins before the socket for this port in `directory` is opened.
    pub(super) fn begin(directory: &Path, port: u16) -> Option<Search> {
        let turn = Turn::take()?;
        Some(Search {
            directory: directory.to_owned(),
            name: format!(".s.PGSQL.{port}"),
            before: sockets().into_iter().map(|(_, socket)| socket).collect(),
            _turn: turn,
        })
    }

    /// Duplicates the new socket that leads to a server; `None` if there is not exactly one.
    pub(super) fn end(self) -> Option<OwnedFd> {
        let mut found: Vec<(PathBuf, OwnedFd)> = sockets()
            .into_iter()
            .filter(|(_, socket)| !self.before.contains(socket))
            .filter_map(|(number, _)| duplicate(number))
            .filter_map(|socket| Some((peer_path(&socket)?, socket)))
            .filter(|(peer, _)| peer.ends_with(&self.name))
            .collect();
        // The directory is compared only where another part of the process has connected to
        // another server meanwhile: a directory may have several names.
        if found.len() > 1 {
            let socket = self.directory.join(&self.name);
            found.retain(|(peer, _)| *peer == socket);
        }
        if found.len() != 1 {
            debug!(
                "a connection cannot be cut: {} sockets are new",
                found.len()
            );
            return None;
        }
        found.pop().map(|(_, socket)| socket)
    }
}

/// The path of the server's end of a Unix socket, in the server's own spelling.
fn peer_path(socket: &OwnedFd) -> Option<PathBuf> {
    let peer = SocketAddrUnix::try_from(getpeername(socket).ok()??).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(peer.path_bytes()?)))
}

/// Number and name of each socket that this process holds; the name is never that of another one.
fn sockets() -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            let name = target.to_str().filter(|name| name.starts_with("socket:"))?;
            Some((number, name.to_owned()))
        })
        .collect()
}

fn duplicate(number: i32) -> Option<OwnedFd> {
    pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()))
        .inspect_err(|error| debug!("a connection cannot be cut: {error}"))
        .ok()
}

/// The right to open a Unix socket to a server. It is not a lock, because another function may give
/// it back.
pub(super) struct Turn;

impl Turn {
    /// Waits for the turn; `None` when that takes too long.
    pub(super) fn take() -> Option<Turn> {
        Turn::place().0.send_timeout((), TURN_MAX).ok()?;
        Some(Turn)
    }

    fn place() -> &'static (Sender<()>, Receiver<()>) {
        static PLACE: LazyLock<(Sender<()>, Receiver<()>)> = LazyLock::new(|| bounded(1));
        &PLACE
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = Turn::place().1.try_recv();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// Port of no other test of this process.
    const PORT: u16 = 7;

    #[test]
    fn a_socket_is_found_beside_one_that_leads_to_another_server() {
        let directory = std::env::temp_dir().join(format!("dispatchbox-line-{}", getpid()));
        let [ours, other] = ["ours", "other"].map(|name| directory.join(name));
        let listen = |directory: &Path| {
            fs::create_dir_all(directory).expect("a directory");
            UnixListener::bind(directory.join(format!(".s.PGSQL.{PORT}"))).expect("a socket")
        };
        let servers = [listen(&ours), listen(&other)];
        let connect = |server: &UnixListener| {
            let address = server.local_addr().expect("an address");
            UnixStream::connect_addr(&address).expect("a connection")
        };

        let search = Search::begin(&ours, PORT).expect("a turn");
        let streams = servers.each_ref().map(connect);
        let found = search.end().expect("it is found");

        let path = |number| fs::read_link(format!("/proc/self/fd/{number}")).expect("a socket");
        assert_eq!(path(found.as_raw_fd()), path(streams[0].as_raw_fd()));
        fs::remove_dir_all(&directory).expect("the directory is gone");
    }
}
