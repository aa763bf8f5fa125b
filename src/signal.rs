//! The signal thread: SIGTERM, SIGINT and SIGHUP become messages on a channel.
//!
//! Nothing runs inside a signal handler; signal-hook writes to a pipe that this thread reads. SIGHUP drains like SIGTERM: it is
//! what a closed terminal sends.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// A second signal means "at once"; more than a few waiting ones say nothing new.
const WAITING_MAX: usize = 4;

/// The running signal thread.
pub struct SignalThread {
    /// The signals that arrived, by number.
    pub received: Receiver<i32>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalThread {
    /// Starts to listen.
    pub fn start() -> io::Result<SignalThread> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        let (sender, received) = bounded(WAITING_MAX);
        let thread = thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    // A full channel already says that it is urgent.
                    let _ = sender.try_send(signal);
                }
            })?;
        Ok(SignalThread {
            received,
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The name of a signal that [`SignalThread`] listens to.
pub fn name(signal: i32) -> &'static str {
    match signal {
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "a signal",
    }
}
