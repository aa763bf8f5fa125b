//! The reporter writes one line a second to the supervisor, and one at the end.
//!
//! It alone writes to standard output. A full pipe, a stopped or a dead supervisor stops this
//! thread at most: nothing waits for it.

use std::io::{self, Write as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::domain::protocol::{Phase, Report};
use crate::system::logging;
use crate::worker::shared::Shared;

/// The interval of reports. The supervisor adds them up, and metrics are rarely scraped more often
/// than each second.
const EVERY: Duration = Duration::from_secs(1);

/// Reports at once, then each second, when asked for an extra one, and a last time when the channel
/// is disconnected.
pub(super) fn run(asked: Receiver<()>, shared: &Shared) {
    loop {
        let phase = if shared.is_draining.load(Ordering::Relaxed) {
            Phase::Draining
        } else {
            Phase::Running
        };
        write(&report(phase, shared));
        match asked.recv_timeout(EVERY) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                write(&report(Phase::Drained, shared));
                return;
            }
        }
    }
}

fn report(phase: Phase, shared: &Shared) -> Report {
    shared.metrics.log_lines_dropped(logging::n_dropped());
    let in_flight = shared.ledger.in_flight();
    shared
        .metrics
        .in_flight
        .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    Report {
        phase,
        in_flight: in_flight as u64,
        access: shared.outage.access(shared.watchdog.longest_call()),
        longest_call_ms: u64::try_from(shared.watchdog.longest_call().as_millis())
            .unwrap_or(u64::MAX),
        metrics: shared.metrics.snapshot(),
    }
}

fn write(report: &Report) {
    let mut out = io::stdout().lock();
    // An error means that the supervisor is gone, which the end of standard input shows, too.
    let _ = out
        .write_all(report.encode().as_bytes())
        .and_then(|()| out.flush());
}
