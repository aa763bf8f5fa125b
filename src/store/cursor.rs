//! Walks over the index of due events: a position in it, and the part of the time that a walk may
//! take.
//!
//! The fetcher and the statistics walk this index. The entries in front of the first due event are
//! those of finished events, and while a transaction elsewhere stays open they pile up. Therefore
//! both start most walks at a later position. An event that appears in front of it, because it
//! commits late or its time lies in the past, is found in two ways: by starting a while before the
//! database's clock ([`Position::recent`]), and by walking the front again, for a [`Share`] of the
//! time.
//!
//! The rest stays apart, because it has another purpose. The fetcher claims, so each of its cursors
//! stands where a look has ended, and a look reads a bounded stretch. The statistics only count, so
//! they start at the first due event that they found. [`DeadCursor`](super::DeadCursor) is a
//! position in the list of dead letters: in another order, and as a text that people hand back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::store::time::DbTime;

/// A position in the due index: behind the event that was due at this time and has this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub(super) next_run_at: DbTime,
    pub(super) id: i64,
}

impl Position {
    /// Before all events.
    pub const FRONT: Position = Position {
        next_run_at: DbTime::NegInfinity,
        id: i64::MIN,
    };

    /// Before all events that are due at this time or later, in microseconds since 1970.
    pub fn at(micros: i64) -> Position {
        let distance = Duration::from_micros(micros.unsigned_abs());
        let time = if micros < 0 {
            UNIX_EPOCH - distance
        } else {
            UNIX_EPOCH + distance
        };
        Position {
            next_run_at: DbTime::Value(time),
            id: i64::MIN,
        }
    }

    /// Behind all events that are due at this time, in microseconds since 1970.
    pub fn behind(micros: i64) -> Position {
        Position {
            id: i64::MAX,
            ..Position::at(micros)
        }
    }

    /// Before all events that became due within this time before now, in microseconds since 1970:
    /// what commits so long after it became due lies behind.
    pub fn recent(now_micros: i64, within: Duration) -> Position {
        let within = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
        Position::at(now_micros.saturating_sub(within))
    }

    /// Says whether this position comes after `other`.
    pub fn is_behind(&self, other: &Position) -> bool {
        self.key() > other.key()
    }

    fn key(&self) -> (u8, Option<SystemTime>, i64) {
        match self.next_run_at {
            DbTime::NegInfinity => (0, None, self.id),
            DbTime::Value(time) => (1, Some(time), self.id),
            DbTime::PosInfinity => (2, None, self.id),
        }
    }
}

/// The part of the time that some work may take.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    one_in: u32,
    pause_max: Duration,
}

impl Share {
    /// One part in `one_in` of the time, with no pause longer than `pause_max`.
    pub const fn one_in(one_in: u32, pause_max: Duration) -> Share {
        Share { one_in, pause_max }
    }

    /// The pause after work that took so long.
    pub fn pause(self, took: Duration) -> Duration {
        took.saturating_mul(self.one_in).min(self.pause_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_pauses_for_many_times_what_it_took_up_to_the_longest_pause() {
        let share = Share::one_in(20, Duration::from_secs(30));

        assert_eq!(share.pause(Duration::ZERO), Duration::ZERO);
        assert_eq!(share.pause(Duration::from_secs(1)), Duration::from_secs(20));
        assert_eq!(share.pause(Duration::MAX), Duration::from_secs(30));
    }

    #[test]
    fn what_became_due_within_the_time_lies_behind_the_recent_position() {
        let recent = Position::recent(100_000_000, Duration::from_mins(1));

        assert!(Position::at(40_000_001).is_behind(&recent));
        assert!(recent.is_behind(&Position::behind(39_999_999)));
        assert!(!Position::recent(i64::MIN, Duration::MAX).is_behind(&recent));
    }
}
