//! The signal thread: SIGTERM, SIGINT and SIGHUP become messages on a channel.
//!
//! Nothing runs inside a signal handler; signal-hook writes to a pipe that this thread reads.
//! SIGHUP drains like SIGTERM: it is what a closed terminal sends.
//!
//! A signal that was ignored when the process started was ignored on purpose, and the word of the
//! parent counts:
//! - SIGHUP stays ignored: `nohup` is used so that a closed terminal ends nothing;
//! - SIGINT is ignored by what a shell without job control puts into the background, so that Ctrl-C
//!   ends the script and not this process. It stays without effect when the terminal sends it; a
//!   process that sends it means this one.
//!
//! Workers inherit both, as any program does.

use std::fs;
use std::io;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;

use crate::system::threads::{self, Thread};
use signal_hook::iterator::{Handle, SignalsInfo};

/// A second signal means "at once"; more than a few waiting signals mean nothing more.
const WAITING_MAX: usize = 4;

/// The running signal thread.
pub struct SignalThread {
    /// The signals that arrived, by number.
    pub received: Receiver<i32>,
    handle: Handle,
    thread: Option<Thread>,
}

impl SignalThread {
    /// Starts to listen.
    pub fn start() -> io::Result<SignalThread> {
        let ignored = Ignored::inherited();
        let heard = [SIGTERM, SIGINT, SIGHUP]
            .into_iter()
            .filter(|&signal| signal != SIGHUP || !ignored.has(SIGHUP));
        let mut signals = SignalsInfo::<WithOrigin>::new(heard)?;
        let handle = signals.handle();
        let (sender, received) = bounded(WAITING_MAX);
        let thread = threads::start("signals", move || {
            for origin in signals.forever() {
                if ignored.has(origin.signal) && !is_sent(&origin) {
                    continue;
                }
                // A full channel already says that it is urgent.
                let _ = sender.try_send(origin.signal);
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

/// Says whether a process has sent the signal, and not the terminal.
fn is_sent(origin: &Origin) -> bool {
    origin.process.is_some()
}

/// The signals that this process ignores: a mask, signal 1 in its lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ignored(u64);

impl Ignored {
    /// The signals that the parent has set to be ignored, read before this process listens to any.
    /// Without /proc none is known.
    fn inherited() -> Ignored {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Ignored::in_status(&status)
    }

    fn in_status(status: &str) -> Ignored {
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Ignored(mask.unwrap_or_default())
    }

    fn has(self, signal: i32) -> bool {
        let bit = u32::try_from(signal - 1).ok();
        bit.and_then(|bit| self.0.checked_shr(bit))
            .is_some_and(|mask| mask & 1 == 1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_stand_in_the_status() {
        let ignored = Ignored::in_status("SigBlk:\t0\nSigIgn:\t0000000000001003\nSigCgt:\t4000\n");
        assert!(ignored.has(SIGHUP) && ignored.has(SIGINT));
        assert!(!ignored.has(SIGTERM) && !ignored.has(0) && !ignored.has(65));
        for status in ["", "SigIgn:\n", "SigIgn:\tx\n"] {
            assert_eq!(Ignored::in_status(status), Ignored(0));
        }
    }
}
