//! Dead letters: listed, counted, made due again, moved to the archive.
//!
//! The order is everywhere that of the list, newest first: `created_at DESC, id DESC`. What changes
//! events leaves alone what is not dead any more and what a lease still names, and returns the ids
//! that it changed: so a person's word and a stale worker's never mix. Nothing here destroys an
//! event.
//!
//! Whole sets are changed a batch at a time, by [`BulkChange`](super::BulkChange): one statement
//! for a million events would hold their locks for minutes and be undone as a whole by the
//! statement timeout.

use crate::domain::event::json_text;
use crate::store::dead_cursor::DeadCursor;
use crate::store::dead_event::{DeadEvent, dead_event};
use crate::store::error::StoreError;
use crate::store::session::Session;
use crate::store::text::Text;
use crate::store::time::{DbTime, db_time};

/// Most events that one transaction of a [`BulkChange`](super::BulkChange) requeues or discards:
/// some tenths of a second of row locks.
pub const DEAD_BATCH: u32 = 10_000;

/// Bytes of payloads, as they are stored, that a list reads at once. How many they are as text is
/// known only then: compressed ones are up to ninety times as many with pglz, of which this is 45
/// MiB.
const READ_BYTES: u64 = 512 * 1024;

const DOING_READ: &str = "read dead events";

/// Stands in place of a payload that cannot be read, with the reason.
const UNREADABLE: &str = "dispatchbox_unreadable";

/// Which dead letters; what is `None` lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Exactly this.
    pub aggregate_type: Option<String>,
    /// Exactly this.
    pub event_type: Option<String>,
    /// What the event type begins with, byte for byte.
    pub event_type_prefix: Option<String>,
    /// A part of `last_error`, as it is spelled: no pattern.
    pub error: Option<String>,
    /// Written at this time or later, in microseconds since 1970.
    pub since_micros: Option<i64>,
    /// Written before this time.
    pub until_micros: Option<i64>,
}

/// What a person wants done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadChange {
    /// Try them again, from the first attempt on.
    Requeue,
    /// Move them to the archive.
    Discard,
}

/// The result of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The events that were changed.
    pub ids: Vec<i64>,
    /// Those that are dead and were left alone.
    pub left: Vec<LeftAlone>,
}

/// An event that a change left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its id.
    pub id: i64,
    /// Why, in words that complete "was left alone:".
    pub reason: String,
}

impl Session {
    /// Lists one page of the dead letters; it ends early behind `bytes_max` bytes of payloads and
    /// headers, but not before its first event.
    pub fn dead_events(
        &mut self,
        filter: &DeadFilter,
        limit: u32,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Vec<DeadEvent>, StoreError> {
        let (since, until) = filter.range();
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let ids: Vec<i64> = self.query(
            "list dead events",
            include_str!("../../sql/dead_list.sql"),
            &[
                &filter.aggregate_type,
                &filter.event_type,
                &filter.error,
                &since,
                &until,
                &i64::from(limit),
                &offset,
                &filter.event_type_prefix,
            ],
            |row| row.try_get(0),
        )?;
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut rest = ids.as_slice();
        while !rest.is_empty() && (events.is_empty() || bytes < bytes_max) {
            let read = self.dead_events_of(rest, READ_BYTES)?;
            // What does not come back at all is not dead any more.
            let Some(last) = read.last() else { break };
            let last_at = rest.iter().position(|id| *id == last.id);
            rest = &rest[last_at.map_or(rest.len(), |at| at + 1)..];
            for event in read {
                if !events.is_empty() && bytes >= bytes_max {
                    break;
                }
                bytes += event.bytes();
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Reads one dead letter; `None` when no event with this id is dead.
    pub fn dead_event(&mut self, id: i64) -> Result<Option<DeadEvent>, StoreError> {
        Ok(self.dead_events_of(&[id], u64::MAX)?.pop())
    }

    /// Reads dead letters by their ids, in their order, until `bytes_max` bytes of payloads and
    /// headers as they are stored are reached; the first that is dead always comes. What is not
    /// dead any more does not come back. One that cannot be read as a whole comes without what
    /// cannot be read, and with a payload that says so.
    pub fn dead_events_of(
        &mut self,
        ids: &[i64],
        bytes_max: u64,
    ) -> Result<Vec<DeadEvent>, StoreError> {
        match self.whole_dead_events(ids, bytes_max) {
            Err(error) if error.is_about_a_row() => self.each_dead_event(ids, bytes_max),
            read => read,
        }
    }

    fn whole_dead_events(
        &mut self,
        ids: &[i64],
        bytes_max: u64,
    ) -> Result<Vec<DeadEvent>, StoreError> {
        self.query(
            DOING_READ,
            include_str!("../../sql/dead_show.sql"),
            &[&ids, &i64::try_from(bytes_max).unwrap_or(i64::MAX)],
            dead_event,
        )
    }

    fn each_dead_event(
        &mut self,
        ids: &[i64],
        bytes_max: u64,
    ) -> Result<Vec<DeadEvent>, StoreError> {
        let mut events: Vec<DeadEvent> = Vec::new();
        let mut bytes = 0;
        for id in ids {
            let read = match self.whole_dead_events(&[*id], bytes_max) {
                Err(error) if error.is_about_a_row() => self.part_of_dead_event(*id, &error)?,
                read => read?,
            };
            bytes += read.iter().map(|event| event.bytes() as u64).sum::<u64>();
            events.extend(read);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(events)
    }

    fn part_of_dead_event(
        &mut self,
        id: i64,
        why: &StoreError,
    ) -> Result<Vec<DeadEvent>, StoreError> {
        let part = include_str!("../../sql/dead_part.sql");
        let bare = include_str!("../../sql/dead_bare.sql");
        let read = match self.query(DOING_READ, part, &[&id], dead_event) {
            Err(error) if error.is_about_a_row() => {
                self.query(DOING_READ, bare, &[&id], dead_event)
            }
            read => read,
        };
        let payload = format!(r#"{{"{UNREADABLE}":{}}}"#, json_text(why.cause()));
        let with_reason = |event: DeadEvent| DeadEvent {
            payload: payload.clone(),
            ..event
        };
        Ok(read?.into_iter().map(with_reason).collect())
    }

    /// Counts all dead letters that the filter lets pass.
    pub fn count_dead(&mut self, filter: &DeadFilter) -> Result<u64, StoreError> {
        let (since, until) = filter.range();
        let counts = self.query(
            "count dead events",
            include_str!("../../sql/dead_count.sql"),
            &[
                &filter.aggregate_type,
                &filter.event_type,
                &filter.error,
                &since,
                &until,
                &filter.event_type_prefix,
            ],
            |row| row.try_get::<_, i64>(0),
        )?;
        Ok(counts.first().map_or(0, |count| count.unsigned_abs()))
    }

    /// Counts dead letters by event type, the `limit` most frequent ones, most frequent first.
    pub fn dead_by_type(
        &mut self,
        filter: &DeadFilter,
        limit: u32,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let (since, until) = filter.range();
        self.query(
            "count dead events by type",
            include_str!("../../sql/dead_by_type.sql"),
            &[
                &filter.aggregate_type,
                &filter.event_type,
                &filter.error,
                &since,
                &until,
                &i64::from(limit),
                &filter.event_type_prefix,
            ],
            |row| {
                let event_type: Text = row.try_get(0)?;
                Ok((event_type.into(), row.try_get::<_, i64>(1)?.unsigned_abs()))
            },
        )
    }

    /// Finds the next `limit` dead letters behind the cursor and moves it behind them. None means
    /// that all have been met; what becomes dead meanwhile may be met or not, and nothing is met
    /// twice.
    pub fn matching_dead(
        &mut self,
        filter: &DeadFilter,
        cursor: &mut DeadCursor,
        limit: u32,
    ) -> Result<Vec<i64>, StoreError> {
        let (since, until) = filter.range();
        let found: Vec<(i64, Option<DbTime>)> = self.query(
            "find dead events",
            include_str!("../../sql/dead_ids.sql"),
            &[
                &filter.aggregate_type,
                &filter.event_type,
                &filter.error,
                &since,
                &until,
                &cursor.undated_id,
                &cursor.created_at,
                &cursor.id,
                &i64::from(limit),
                &filter.event_type_prefix,
            ],
            |row| Ok((row.try_get(0)?, row.try_get(1)?)),
        )?;
        if let Some(&(id, created_at)) = found.last() {
            cursor.advance(id, created_at);
        }
        Ok(found.into_iter().map(|(id, _)| id).collect())
    }

    /// Says whether the table holds ids below one: its sequence was set to the negative half.
    pub fn has_ids_below_one(&mut self) -> Result<bool, StoreError> {
        let found = self.query(
            "look for ids below one",
            "select exists (select from outbox_event where id < 1)",
            &[],
            |row| row.try_get(0),
        )?;
        Ok(found.first().copied().unwrap_or_default())
    }

    /// Requeues or discards dead events.
    pub fn change_dead(&mut self, change: DeadChange, ids: &[i64]) -> Result<Changed, StoreError> {
        match change {
            DeadChange::Requeue => self.requeue(ids),
            DeadChange::Discard => self.discard(ids),
        }
    }

    /// Makes dead events due again from the first attempt on: not what is not dead, is locked by
    /// another session at this moment, or is named by a lease, and not one that a trigger or a
    /// constraint refuses.
    pub fn requeue(&mut self, ids: &[i64]) -> Result<Changed, StoreError> {
        self.changed(
            "requeue dead events",
            include_str!("../../sql/requeue.sql"),
            ids,
        )
    }

    /// Moves dead events to the archive: not what [`Session::requeue`] leaves alone, not an event
    /// whose id is in the archive already, and not one that a foreign key, a trigger or a
    /// constraint keeps.
    pub fn discard(&mut self, ids: &[i64]) -> Result<Changed, StoreError> {
        self.changed(
            "discard dead events",
            include_str!("../../sql/discard.sql"),
            ids,
        )
    }

    fn changed(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        ids: &[i64],
    ) -> Result<Changed, StoreError> {
        let rows: Vec<(i64, Option<String>)> = self.query(doing, sql, &[&ids], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })?;
        let mut changed = Changed::default();
        for (id, reason) in rows {
            match reason {
                None => changed.ids.push(id),
                Some(reason) => changed.left.push(LeftAlone { id, reason }),
            }
        }
        Ok(changed)
    }
}

impl DeadFilter {
    fn range(&self) -> (Option<DbTime>, Option<DbTime>) {
        (
            self.since_micros.map(db_time),
            self.until_micros.map(db_time),
        )
    }
}
