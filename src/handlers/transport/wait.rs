//! Waiting for a socket, bounded by a deadline of the client.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

/// When a call has to be over, and which of the client's limits that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// `None`: later than a clock can express.
    at: Option<Instant>,
    reason: Timeout,
}

impl Deadline {
    pub(super) fn of(timeout: NextTimeout) -> Deadline {
        Deadline {
            at: Instant::now().checked_add(*timeout.after),
            reason: timeout.reason,
        }
    }

    /// The time that is left, at most a day.
    pub(super) fn left(self) -> Result<Duration, Error> {
        let day = Duration::from_hours(24);
        let left = self.at.map_or(day, |at| {
            at.saturating_duration_since(Instant::now()).min(day)
        });
        if left.is_zero() {
            return Err(Error::Timeout(self.reason));
        }
        Ok(left)
    }
}

/// The conditions that end a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Bytes, or an end, can be read.
    Input,
    /// The same, or bytes can be written.
    Either,
    /// Bytes can be written.
    Output,
}

/// Says whether a call would have had to wait.
pub(super) fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted))
}

/// Waits for a socket, and says whether there is something to read; an error counts as that, since
/// the next read returns it.
pub(super) fn wait(socket: &TcpStream, wanted: Wanted, deadline: Deadline) -> Result<bool, Error> {
    let flags = match wanted {
        Wanted::Input => PollFlags::IN,
        Wanted::Either => PollFlags::IN | PollFlags::OUT,
        Wanted::Output => PollFlags::OUT,
    };
    loop {
        let left = deadline.left()?;
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut polled = [PollFd::new(socket, flags)];
        match poll(&mut polled, Some(&left)) {
            // The deadline says whether the time is over.
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(polled[0].revents() != PollFlags::OUT),
            Err(error) => return Err(Error::Io(error.into())),
        }
    }
}
