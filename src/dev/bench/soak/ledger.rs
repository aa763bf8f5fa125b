//! What the handlers noted: which attempts of which event were run.

use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dev::bench::BenchError;
use crate::dev::bench::soak::MAX_ATTEMPTS;
use crate::dev::bench::soak::handler::{NOTE_BYTES, Note, n_failures};
use crate::system::threads::{self, Thread};

/// Marks an event that fails always.
const POISON_MARK: u8 = 0x80;

/// More ids than any soak has: a larger one is not an event of ours.
const IDS_MAX: usize = 1 << 32;

/// Bytes that one read takes from the pipe: as many as it holds.
const READ_BYTES: usize = 64 * 1024;

/// The thread that reads the pipe.
pub(super) struct Ledger {
    /// Events whose handler has succeeded.
    delivered: Arc<AtomicU64>,
    /// The end for writing. Workers open it by its path, and the thread ends when nothing has it.
    pipe: PipeWriter,
    thread: Thread<io::Result<Runs>>,
}

impl Ledger {
    /// Makes the pipe and starts its reader.
    pub(super) fn start() -> Result<Ledger, BenchError> {
        let failed = |source| BenchError::Start {
            what: "the reader of the handlers' notes",
            source,
        };
        let (reader, pipe) = io::pipe().map_err(failed)?;
        let delivered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&delivered);
        let thread =
            threads::start("soak-ledger", move || read(reader, &counter)).map_err(failed)?;
        Ok(Ledger {
            delivered,
            pipe,
            thread,
        })
    }

    /// The path by which a process of the same user opens the pipe. Nothing of it is left behind
    /// however this process ends.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.pipe.as_raw_fd())
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Waits for the end of the notes, once the daemon has ended.
    pub(super) fn finish(self) -> Result<Runs, BenchError> {
        drop(self.pipe);
        match self.thread.join() {
            Ok(Ok(runs)) => Ok(runs),
            Ok(Err(error)) => Err(BenchError::Ended(format!("the notes were lost: {error}"))),
            Err(_) => Err(BenchError::Ended("a thread panicked".to_owned())),
        }
    }
}

fn read(mut pipe: PipeReader, delivered: &AtomicU64) -> io::Result<Runs> {
    let mut runs = Runs::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let n = pipe.read(&mut buffer[filled..])?;
        if n == 0 {
            return Ok(runs);
        }
        filled += n;
        let (notes, rest) = buffer[..filled].as_chunks::<NOTE_BYTES>();
        let n_done = notes
            .iter()
            .filter(|bytes| runs.add(Note::of_bytes(bytes)))
            .count();
        delivered.fetch_add(n_done as u64, Ordering::Relaxed);
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
    }
}

/// The runs of each event, by its id: a bit for each attempt.
#[derive(Debug, Default)]
pub(super) struct Runs {
    by_id: Vec<u8>,
    /// All runs.
    pub(super) total: u64,
    /// Runs of an attempt that had been run before, or that was not to be.
    pub(super) twice: u64,
}

impl Runs {
    /// Adds a run; says whether it delivers the event.
    fn add(&mut self, note: Note) -> bool {
        self.total += 1;
        let planned = planned_runs(note.event_id, note.is_poison);
        let at = usize::try_from(note.event_id).unwrap_or(IDS_MAX);
        if at >= IDS_MAX || note.attempt < 1 || note.attempt > planned {
            self.twice += 1;
            return false;
        }
        if at >= self.by_id.len() {
            self.by_id.resize(at + 1, 0);
        }
        let runs = &mut self.by_id[at];
        let bit = 1 << (note.attempt - 1);
        if *runs & bit != 0 {
            self.twice += 1;
            return false;
        }
        *runs |= bit;
        if note.is_poison {
            *runs |= POISON_MARK;
        }
        !note.is_poison && note.attempt == planned
    }

    /// How many of the events 1 to `n_events` have not had all their runs.
    pub(super) fn n_unfinished(&self, n_events: u64) -> u64 {
        (1..=n_events)
            .filter(|&id| {
                let at = usize::try_from(id).unwrap_or(IDS_MAX);
                let runs = self.by_id.get(at).copied().unwrap_or(0);
                let id = i64::try_from(id).unwrap_or(i64::MAX);
                let all = (1_u8 << planned_runs(id, runs & POISON_MARK != 0)) - 1;
                runs & !POISON_MARK != all
            })
            .count() as u64
    }
}

/// How many runs an event is to have.
fn planned_runs(event_id: i64, is_poison: bool) -> u32 {
    if is_poison {
        MAX_ATTEMPTS
    } else {
        n_failures(event_id) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(event_id: i64, attempt: u32) -> Note {
        Note {
            event_id,
            attempt,
            is_poison: event_id == 5,
        }
    }

    #[test]
    fn each_planned_run_counts_once() {
        let mut runs = Runs::default();

        // 7 is to fail once, 5 is poison.
        assert!(runs.add(run(1, 1)));
        assert!(!runs.add(run(7, 1)));
        assert!(runs.add(run(7, 2)));
        assert!((1..=MAX_ATTEMPTS).all(|attempt| !runs.add(run(5, attempt))));

        assert_eq!((runs.total, runs.twice), (u64::from(MAX_ATTEMPTS) + 3, 0));
        assert_eq!(runs.n_unfinished(1), 0);
        assert_eq!(runs.n_unfinished(7), 4, "2, 3, 4 and 6 were never run");
    }

    #[test]
    fn a_run_too_many_is_found() {
        let mut runs = Runs::default();
        assert!(runs.add(run(1, 1)));
        for again in [
            run(1, 1),
            run(1, 2),
            run(7, 3),
            run(5, MAX_ATTEMPTS + 1),
            run(-1, 1),
            run(2, 0),
        ] {
            let before = runs.twice;
            assert!(!runs.add(again), "{again:?}");
            assert_eq!(runs.twice, before + 1, "{again:?}");
        }
    }

    #[test]
    fn an_event_whose_last_run_is_missing_is_unfinished() {
        let mut runs = Runs::default();
        runs.add(run(1, 1));
        runs.add(run(5, 1));
        runs.add(run(5, MAX_ATTEMPTS));
        runs.add(run(7, 1));
        assert_eq!(runs.n_unfinished(7), 6);
    }
}
