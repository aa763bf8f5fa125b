//! Threads: each has a name, and its end is an event, also where that is a panic.
//!
//! A thread stops when what it waits for ends: a channel is disconnected, a pipe is closed. So
//! nothing here tells it to stop. The code that started it does, and waits for its end no longer
//! than it can afford: a call to a stuck server cannot be ended.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// A running thread. Dropped, it runs on.
#[derive(Debug)]
pub struct Thread<T = ()> {
    handle: JoinHandle<T>,
    /// Nothing is sent on this channel; it is disconnected at the end of the thread.
    ended: Receiver<()>,
}

/// Starts a thread.
pub fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    let (running, ended) = bounded::<()>(0);
    let handle = builder(name).spawn(move || {
        let _running = running;
        work()
    })?;
    Ok(Thread { handle, ended })
}

/// Starts a thread whose name is sent to `ends` when it ends. The channel must have room for the
/// names of all its threads.
pub fn start_telling(
    name: &str,
    ends: &Sender<String>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    let end = End {
        name: name.to_owned(),
        ends: ends.clone(),
    };
    start(name, move || {
        let _end = end;
        work();
    })
}

/// Starts a thread that is never waited for.
pub fn detach(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    builder(name).spawn(work).map(drop)
}

/// Starts a thread with this many bytes of stack, which is never waited for.
pub fn detach_with_stack(
    name: &str,
    bytes: usize,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    builder(name).stack_size(bytes).spawn(work).map(drop)
}

/// Why work on a thread of its own has no result.
#[derive(Debug)]
pub enum Unfinished {
    /// The thread could not be started.
    NotStarted(io::Error),
    /// The work goes on, and its result will be dropped.
    TooSlow,
    /// The work panicked.
    Panicked,
}

/// Does work that cannot be interrupted on a thread of its own, and waits for it no longer than
/// `limit`.
pub fn within<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (sender, result) = bounded(1);
    detach(name, move || {
        // Where the wait is over, the result is dropped here.
        let _ = sender.send(work());
    })
    .map_err(Unfinished::NotStarted)?;
    result.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => Unfinished::TooSlow,
        RecvTimeoutError::Disconnected => Unfinished::Panicked,
    })
}

impl<T> Thread<T> {
    /// Says whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for the end of the thread; the error is the value that it panicked with.
    pub fn join(self) -> thread::Result<T> {
        self.handle.join()
    }

    /// Waits for the end of the thread no longer than `limit`; `None` where it runs on.
    pub fn join_within(self, limit: Duration) -> Option<thread::Result<T>> {
        let ended = self.ended.recv_timeout(limit);
        (ended == Err(RecvTimeoutError::Disconnected)).then(|| self.handle.join())
    }
}

fn builder(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned())
}

/// Sends the name of its thread when the thread ends.
struct End {
    name: String,
    ends: Sender<String>,
}

impl Drop for End {
    fn drop(&mut self) {
        // The channel has room, as [`start_telling`] asks for.
        let _ = self.ends.try_send(std::mem::take(&mut self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_also_when_it_is_a_panic() {
        let (ends, ended) = bounded(2);
        let good = start_telling("good", &ends, || ()).expect("a thread starts");
        assert_eq!(ended.recv().as_deref(), Ok("good"));
        let bad = start_telling("bad", &ends, || panic!("as planned")).expect("a thread starts");
        assert_eq!(ended.recv().as_deref(), Ok("bad"));
        assert!(good.join().is_ok());
        assert!(bad.join().is_err());
    }

    #[test]
    fn a_thread_that_runs_on_is_left() {
        let (stop, stopped) = bounded::<()>(0);
        let thread = start("slow", move || stopped.recv().is_err()).expect("a thread starts");
        assert!(thread.join_within(Duration::ZERO).is_none());
        drop(stop);

        let (stop, stopped) = bounded::<()>(0);
        let thread = start("quick", move || stopped.recv().is_err()).expect("a thread starts");
        drop(stop);
        let end = thread.join_within(Duration::from_mins(1));
        assert!(end.is_some_and(|result| result.is_ok_and(|stopped| stopped)));
    }

    #[test]
    fn what_takes_too_long_or_panics_has_no_result() {
        let (stop, stopped) = bounded::<()>(0);
        let slow = within("slow", Duration::ZERO, move || stopped.recv().is_err());
        assert!(matches!(slow, Err(Unfinished::TooSlow)));
        drop(stop);
        let long = Duration::from_mins(1);
        let bad = within("bad", long, || -> i32 { panic!("as planned") });
        assert!(matches!(bad, Err(Unfinished::Panicked)));
        assert!(matches!(within("good", long, || 7), Ok(7)));
    }
}
