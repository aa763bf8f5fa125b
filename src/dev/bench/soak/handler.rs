//! The handler of the soak: it fails as planned, and notes each of its runs in a pipe.
//!
//! The notes are independent of what the daemon counts and of what the rows say: a run that was
//! never charged, or a charge that no run explains, shows as a difference between the two.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::OnceLock;

use crate::domain::event::Event;
use crate::handlers::HandlerError;

/// Name of the handler. `run` does not know it.
pub(crate) const HANDLER: &str = "bench-soak";

/// The variable that names the pipe. Workers inherit it from the daemon.
pub(super) const PIPE: &str = "BENCH_SOAK_PIPE";

/// Type of the events that fail at every attempt.
pub(super) const POISON: &str = "soak.poison";

/// Type of all other events.
pub(super) const ORDER: &str = "soak.order";

/// Bytes of a note. A pipe takes as few at once or not at all, so that the notes of several
/// processes never mix.
pub(super) const NOTE_BYTES: usize = 16;

/// One run of the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) event_id: i64,
    pub(super) attempt: u32,
    pub(super) is_poison: bool,
}

impl Note {
    pub(super) fn to_bytes(self) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        bytes[..8].copy_from_slice(&self.event_id.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[12] = u8::from(self.is_poison);
        bytes
    }

    pub(super) fn of_bytes(bytes: &[u8; NOTE_BYTES]) -> Note {
        let (mut event_id, mut attempt) = ([0; 8], [0; 4]);
        event_id.copy_from_slice(&bytes[..8]);
        attempt.copy_from_slice(&bytes[8..12]);
        Note {
            event_id: i64::from_le_bytes(event_id),
            attempt: u32::from_le_bytes(attempt),
            is_poison: bytes[12] != 0,
        }
    }
}

/// How many attempts of this event fail before one succeeds: one of twenty events fails once, one
/// of 400 twice. `sql/soak_archived.sql` has the same rule.
pub(super) fn n_failures(event_id: i64) -> u32 {
    if event_id % 400 == 11 {
        2
    } else {
        u32::from(event_id % 20 == 7)
    }
}

/// Handles one event.
pub(crate) fn handle(event: &Event) -> Result<(), HandlerError> {
    let note = Note {
        event_id: event.id,
        attempt: event.attempt,
        is_poison: event.event_type == POISON,
    };
    write(note).map_err(|error| HandlerError::retry(format!("could not note the run: {error}")))?;
    if note.is_poison {
        return Err(HandlerError::retry("a poison event fails always"));
    }
    if event.attempt <= n_failures(event.id) {
        return Err(HandlerError::retry("this attempt was to fail"));
    }
    Ok(())
}

fn write(note: Note) -> io::Result<()> {
    static OPENED: OnceLock<File> = OnceLock::new();
    let pipe = if let Some(pipe) = OPENED.get() {
        pipe
    } else {
        let path = std::env::var_os(PIPE).ok_or(io::ErrorKind::NotFound)?;
        let opened = OpenOptions::new().write(true).open(path)?;
        OPENED.get_or_init(|| opened)
    };
    let mut pipe: &File = pipe;
    pipe.write_all(&note.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        for note in [
            Note {
                event_id: 1,
                attempt: 1,
                is_poison: false,
            },
            Note {
                event_id: i64::MAX,
                attempt: u32::MAX,
                is_poison: true,
            },
            Note {
                event_id: i64::MIN,
                attempt: 0x0102_0304,
                is_poison: false,
            },
        ] {
            assert_eq!(Note::of_bytes(&note.to_bytes()), note);
        }
    }

    #[test]
    fn of_400_events_20_fail_once_and_one_fails_twice() {
        let failures: Vec<u32> = (1..=400).map(n_failures).collect();
        let n = |times| failures.iter().filter(|&&found| found == times).count();
        assert_eq!((n(0), n(1), n(2)), (379, 20, 1));
    }
}
