//! A stream with one deadline for all reads and writes, however many pieces the data comes in.
//!
//! A timeout per read, which is all that a socket offers, never ends the connection of a client
//! that sends a byte a second.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A socket whose next call can be bounded.
pub(super) trait Bounded {
    fn bound_read(&self, limit: Duration) -> io::Result<()>;
    fn bound_write(&self, limit: Duration) -> io::Result<()>;
}

impl Bounded for TcpStream {
    fn bound_read(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn bound_write(&self, limit: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(limit))
    }
}

impl Bounded for UnixStream {
    fn bound_read(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn bound_write(&self, limit: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(limit))
    }
}

/// A stream that fails with `TimedOut` once the deadline has passed.
pub(super) struct Timed<'a, S> {
    stream: &'a S,
    deadline: Instant,
}

impl<'a, S: Bounded> Timed<'a, S> {
    /// Wraps `stream`: all reads and writes through this value end within `limit` from now.
    pub(super) fn new(stream: &'a S, limit: Duration) -> Timed<'a, S> {
        Timed {
            stream,
            deadline: Instant::now() + limit,
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

impl<'a, S: Bounded> Read for Timed<'a, S>
where
    &'a S: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.bound_read(self.left()?)?;
        let mut stream = self.stream;
        stream.read(buffer).map_err(timed_out)
    }
}

impl<'a, S: Bounded> Write for Timed<'a, S>
where
    &'a S: Write,
{
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.bound_write(self.left()?)?;
        let mut stream = self.stream;
        stream.write(buffer).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Turns the error of a socket whose timeout has passed into `TimedOut`.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock {
        ErrorKind::TimedOut.into()
    } else {
        error
    }
}
