//! A change of very many dead events, batch by batch, each a transaction of its own.
//!
//! How many events one statement can change depends on the table's triggers and indexes and on what
//! else the server does. So a batch that takes longer than a statement may is undone by the server
//! and tried again with a small part of it, down to single events; batches grow again while they
//! are quick. A batch that failed leaves the position where it was.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::store::dead::{Changed, DEAD_BATCH, DeadChange, DeadFilter};
use crate::store::dead_cursor::DeadCursor;
use crate::store::error::StoreError;
use crate::store::session::Session;

/// A batch that took less time than this is followed by a larger one.
const QUICK: Duration = Duration::from_millis(500);

/// A batch that took more time than this is followed by a smaller one, because other sessions wait
/// for its locks.
const SLOW: Duration = Duration::from_secs(2);

/// The divisor for the size of a batch that was too slow. It takes few steps down to one event,
/// since each step costs the time of a whole statement.
const TOO_SLOW_DIVISOR: usize = 32;

/// A change under way.
pub struct BulkChange {
    change: DeadChange,
    source: Source,
    size: BatchSize,
}

/// The events to change.
enum Source {
    /// The events with these ids, without those of earlier batches.
    Ids(VecDeque<i64>),
    /// All events that a filter lets pass.
    Matching {
        filter: DeadFilter,
        /// The position behind the last batch that was changed.
        reached: DeadCursor,
        /// The position behind the batch that was found last.
        found: DeadCursor,
    },
}

impl BulkChange {
    /// A change of the events with these ids.
    pub fn of_ids(change: DeadChange, ids: Vec<i64>) -> BulkChange {
        BulkChange {
            change,
            source: Source::Ids(ids.into()),
            size: BatchSize::new(DEAD_BATCH),
        }
    }

    /// A change of all that `filter` lets pass behind `after`.
    pub fn matching(change: DeadChange, filter: DeadFilter, after: DeadCursor) -> BulkChange {
        let source = Source::Matching {
            filter,
            found: after.clone(),
            reached: after,
        };
        BulkChange {
            change,
            source,
            size: BatchSize::new(DEAD_BATCH),
        }
    }

    /// Starts with batches of this size, where the time for the whole change is short.
    #[must_use]
    pub fn starting_with(mut self, n_events: u32) -> BulkChange {
        self.size = BatchSize::new(n_events);
        self
    }

    /// Finds the next batch; an empty one means that all have been met.
    pub fn find(&mut self, session: &mut Session) -> Result<Vec<i64>, StoreError> {
        let n_events = self.size.next;
        match &mut self.source {
            Source::Ids(ids) => Ok(ids.iter().take(n_events).copied().collect()),
            Source::Matching {
                filter,
                reached,
                found,
            } => {
                *found = reached.clone();
                let limit = u32::try_from(n_events).unwrap_or(DEAD_BATCH);
                session.matching_dead(filter, found, limit)
            }
        }
    }

    /// Changes the batch that was found last, and returns the result; `None` when it was too slow.
    /// The next batch that is found is a part of it then.
    pub fn apply(
        &mut self,
        session: &mut Session,
        batch: &[i64],
    ) -> Result<Option<Changed>, StoreError> {
        let began = Instant::now();
        match session.change_dead(self.change, batch) {
            Ok(changed) => {
                match &mut self.source {
                    Source::Ids(ids) => drop(ids.drain(..batch.len())),
                    Source::Matching { reached, found, .. } => *reached = found.clone(),
                }
                self.size.took(began.elapsed());
                Ok(Some(changed))
            }
            Err(error) if error.is_statement_timeout() && self.size.was_too_slow(batch.len()) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How far a change by a filter has come; another one goes on from there.
    pub fn reached(&self) -> DeadCursor {
        match &self.source {
            Source::Ids(_) => DeadCursor::default(),
            Source::Matching { reached, .. } => reached.clone(),
        }
    }
}

/// How many events the next batch holds.
struct BatchSize {
    next: usize,
}

impl BatchSize {
    fn new(n_events: u32) -> BatchSize {
        BatchSize {
            next: n_events.clamp(1, DEAD_BATCH) as usize,
        }
    }

    /// A batch was changed in this time.
    fn took(&mut self, time: Duration) {
        if time < QUICK {
            self.next = (self.next * 2).min(DEAD_BATCH as usize);
        } else if time > SLOW {
            self.next = (self.next / 2).max(1);
        }
    }

    /// A batch of so many took longer than a statement may; says whether a smaller one exists.
    fn was_too_slow(&mut self, n_events: usize) -> bool {
        self.next = (n_events / TOO_SLOW_DIVISOR).max(1);
        n_events > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_they_are_quick_and_shrink_to_one_where_they_are_too_slow() {
        let mut size = BatchSize::new(1000);
        for expected in [2000, 4000, 8000, 10_000, 10_000] {
            size.took(Duration::ZERO);
            assert_eq!(size.next, expected);
        }
        size.took(Duration::from_secs(1));
        assert_eq!(size.next, 10_000);
        size.took(Duration::from_secs(3));
        assert_eq!(size.next, 5000);
        for expected in [156, 4, 1] {
            assert!(size.was_too_slow(size.next));
            assert_eq!(size.next, expected);
        }
        assert!(!size.was_too_slow(1));
        size.took(Duration::from_secs(3));
        assert_eq!(size.next, 1);
    }
}
