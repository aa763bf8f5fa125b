//! The writer of the daemon's lines to standard error: a bounded queue, and one thread that writes.
//!
//! Standard error may be a pipe whose reader has stalled, and then a write lasts until the reader
//! goes on, perhaps for ever. With the thread, only the log waits: a line that finds the queue full
//! is dropped and counted, and the count is written where the lines would have stood. Refused: a
//! descriptor that does not block, since that property belongs to the pipe or the terminal and not
//! to this process, and other processes write there, too.
//!
//! Lines of one process keep their order. At the end of the process, queued lines are waited for as
//! long as the reader reads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use crate::system::threads;
use rustix::event::{PollFd, PollFlags, poll};

/// Most bytes of lines that wait: some seconds of the busiest log, and no burden for a process.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of the queue that lines below a warning may fill: a flood of them must not be the
/// reason that an error is missing.
const LESSER_BYTES_MAX: usize = QUEUE_BYTES_MAX / 4 * 3;

/// Bytes that a line takes beside its text.
const LINE_OVERHEAD: usize = 64;

/// At the end of the process, a reader that has taken no line for this long is not waited for.
const STALLED: Duration = Duration::from_millis(300);

/// Longest wait for a slow reader at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Renders the line that tells how many lines were dropped.
type Notice = Box<dyn Fn(u64) -> String + Send>;

/// The queue. Cheap to clone: all clones are the same one.
#[derive(Clone)]
pub(super) struct Writer {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// There is a line to write.
    queued: Condvar,
    /// A line was written, or could not be.
    written: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    n_bytes: usize,
    /// The thread has a line in hand.
    is_writing: bool,
    n_written: u64,
    n_dropped: u64,
    /// Lines dropped since the last line that stands in the queue.
    n_untold: u64,
    /// The last write failed: the reader is gone, or the disk is full. The next line tries again.
    is_broken: bool,
}

struct Line {
    text: String,
    n_dropped_before: u64,
}

/// The next thing that the thread writes.
enum Next {
    Line(Line),
    /// A notice of dropped lines: the reader is back, and no queued line follows that could carry
    /// it.
    Notice(u64),
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(notice: Notice) -> io::Result<Writer> {
        // A descriptor of its own: a write that lasts holds no lock of the standard library.
        let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Writer::start_on(out, notice)
    }

    fn start_on(out: File, notice: Notice) -> io::Result<Writer> {
        let queue = Arc::new(Queue::default());
        let writer = Writer {
            queue: Arc::clone(&queue),
        };
        // The thread is never joined: its write may never return, and it ends with the process.
        threads::detach("log", move || queue.write_all(&out, &notice))?;
        Ok(writer)
    }

    /// Queues a line, or counts it where there is no room.
    pub(super) fn push(&self, level: Level, text: String) {
        let limit = if level <= Level::Warn {
            QUEUE_BYTES_MAX
        } else {
            LESSER_BYTES_MAX
        };
        let mut state = self.queue.lock();
        let n_bytes = text.len() + LINE_OVERHEAD;
        if state.n_bytes + n_bytes > limit {
            state.n_dropped += 1;
            state.n_untold += 1;
            return;
        }
        state.n_bytes += n_bytes;
        let n_dropped_before = std::mem::take(&mut state.n_untold);
        state.lines.push_back(Line {
            text,
            n_dropped_before,
        });
        drop(state);
        self.queue.queued.notify_one();
    }

    /// Lines dropped since the start.
    pub(super) fn n_dropped(&self) -> u64 {
        self.queue.lock().n_dropped
    }

    /// Waits until the queue is empty, or its reader has stalled.
    pub(super) fn flush(&self) {
        let began = Instant::now();
        let mut state = self.queue.lock();
        let (mut n_written, mut since) = (state.n_written, began);
        while !state.lines.is_empty() || state.is_writing {
            if state.n_written != n_written {
                (n_written, since) = (state.n_written, Instant::now());
            }
            let left = STALLED
                .saturating_sub(since.elapsed())
                .min(FLUSH_MAX.saturating_sub(began.elapsed()));
            if left.is_zero() {
                return;
            }
            let waited = self.queue.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one line after the other, for as long as the process lives.
    fn write_all(&self, out: &File, notice: &Notice) {
        loop {
            let (text, n_dropped_before) = match self.next() {
                Next::Line(line) => (Some(line.text), line.n_dropped_before),
                Next::Notice(n_dropped) => (None, n_dropped),
            };
            let mut result = Ok(());
            if n_dropped_before > 0 {
                result = write_line(out, &notice(n_dropped_before));
            }
            let is_told = result.is_ok();
            if let (Ok(()), Some(text)) = (&result, &text) {
                result = write_line(out, text);
            }
            let mut state = self.lock();
            state.is_writing = false;
            state.n_written += 1;
            state.is_broken = result.is_err();
            if !is_told {
                state.n_untold += n_dropped_before;
            }
            if result.is_err() && text.is_some() {
                state.n_dropped += 1;
                state.n_untold += 1;
            }
            drop(state);
            self.written.notify_all();
        }
    }

    fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.n_bytes -= line.text.len() + LINE_OVERHEAD;
                state.is_writing = true;
                return Next::Line(line);
            }
            if state.n_untold > 0 && !state.is_broken {
                state.is_writing = true;
                return Next::Notice(std::mem::take(&mut state.n_untold));
            }
            let waited = self.queued.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes a line with one call where the pipe takes it whole, so that the lines of several
/// processes stay apart.
fn write_line(mut out: &File, line: &str) -> io::Result<()> {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n_bytes) => rest = &rest[n_bytes..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process has set the pipe or terminal to non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(out, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, PipeReader, pipe};
    use std::os::fd::OwnedFd;

    use super::*;

    fn on_a_pipe() -> io::Result<(BufReader<PipeReader>, Writer)> {
        let (reader, writer) = pipe()?;
        let out = File::from(OwnedFd::from(writer));
        let notice = Box::new(|n_dropped| format!("dropped {n_dropped}\n"));
        Ok((BufReader::new(reader), Writer::start_on(out, notice)?))
    }

    fn line(level: Level, number: usize) -> (Level, String) {
        (level, format!("{number:>1000}\n"))
    }

    /// Pushes more lines than pipe and queue hold. The pipe is full before the queue is filled, so
    /// that no line is taken out in between, and only the newest are dropped.
    fn stall(writer: &Writer) {
        for number in 0..2000 {
            if number == 200 {
                writer.flush();
            }
            let (level, text) = line(Level::Info, number);
            writer.push(level, text);
        }
    }

    /// Goal: a reader that stalls stops no caller, costs the newest lines, and learns how many they
    /// were, where they would have stood.
    #[test]
    fn a_reader_that_stalls_costs_lines_which_are_counted_where_they_are_missing() -> io::Result<()>
    {
        let (reader, writer) = on_a_pipe()?;
        stall(&writer);
        let n_dropped = writer.n_dropped();
        assert!((500..1500).contains(&n_dropped), "{n_dropped}");
        // A line of a higher level still has room.
        writer.push(Level::Error, "an error\n".to_owned());
        assert_eq!(writer.n_dropped(), n_dropped);
        let began = Instant::now();
        writer.flush();
        assert!(
            began.elapsed() < FLUSH_MAX,
            "a stalled reader is not waited for"
        );

        let n_kept = 2000 - usize::try_from(n_dropped).map_err(io::Error::other)?;
        let mut lines = reader.lines();
        for number in 0..n_kept {
            let read = lines.next().ok_or(ErrorKind::UnexpectedEof)??;
            assert_eq!(read.trim(), number.to_string());
        }
        let mut next = || lines.next().ok_or(ErrorKind::UnexpectedEof)?;
        assert_eq!(next()?, format!("dropped {n_dropped}"));
        assert_eq!(next()?, "an error");
        writer.push(Level::Debug, "later\n".to_owned());
        writer.flush();
        assert_eq!(next()?, "later");
        Ok(())
    }

    #[test]
    fn a_count_that_no_line_follows_is_told_by_itself() -> io::Result<()> {
        let (reader, writer) = on_a_pipe()?;
        stall(&writer);

        let told = reader.lines().map_while(Result::ok);
        let mut told = told.skip_while(|line| !line.starts_with("dropped "));

        assert_eq!(told.next(), Some(format!("dropped {}", writer.n_dropped())));
        Ok(())
    }

    #[test]
    fn lines_that_nobody_can_read_any_more_are_counted_and_harm_nothing() -> io::Result<()> {
        let (reader, writer) = on_a_pipe()?;
        drop(reader);

        for _ in 0..3 {
            writer.push(Level::Info, "x\n".to_owned());
            writer.flush();
        }

        assert_eq!(writer.n_dropped(), 3);
        Ok(())
    }
}
