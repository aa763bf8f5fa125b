//! Where the next look at the due events starts, which groups of routes it serves, and how far it
//! reads.
//!
//! Due events are passed in the order of the due index by *cursors*: one for each route with a
//! limit, and one for all other routes together. A look reads a bounded stretch from a cursor on,
//! claims the events that may run now, and moves the cursor to where it ended, even if it found
//! nothing. So the events of a full route are passed once, however many there are and however many
//! types they have, and a route that has room again goes on at the last event it took. Cursors that
//! stand at the same place are served by one look.
//!
//! An event that commits late, is released or is retried lies behind a cursor. Two things find it:
//! a look starts ten seconds before the clock where that is cheap, and the *front* is walked again,
//! in stretches, from the first due event to the last cursor. The front walk is for all routes
//! together and takes at most a twentieth of the fetcher's time: after each step it pauses for
//! twenty times the step's duration. While a front is cheap that is no pause at all, and each look
//! is a front walk; while a long transaction elsewhere keeps the dead index entries of all settled
//! events, or a full route has millions of events, only the walk reads them again, and the claims
//! stay fast.
//!
//! A stretch grows while looks are cheap and find too little, and shrinks when they are dear. A
//! look that failed is made again with a shorter one, never as it was. Since a stretch counts
//! events and not the entries between them, finished events are skipped first, in steps of their
//! own ([`Reach`]), up to the next due event. What the statistics do alike stands in
//! [`crate::store::cursor`].

mod advance;

use std::time::{Duration, Instant};

use crate::store::cursor::{Position, Share};
use crate::store::skip::Reach;
use crate::worker::stretch::Stretch;

/// The longest pause between two steps of the front walk, and between two looks that start before
/// their cursor: a step that took long because it waited for a lock says nothing about the front.
const FRONT_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The longest pause of a cursor, whatever its last look cost. It is less than an idle fetcher
/// waits by default.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The front is walked for at most this part of the time.
const FRONT: Share = Share::one_in(20, FRONT_PAUSE_MAX);

/// Looks that start before their cursor take at most this part of the time.
const RECENT: Share = Share::one_in(100, FRONT_PAUSE_MAX);

/// A cursor at the end of what is due is looked at for this part of the time, while others have
/// work.
const END: Share = Share::one_in(60, PAUSE_MAX);

/// The least pause of such a cursor.
const END_PAUSE: Duration = Duration::from_millis(5);

/// While there are other events to claim, passing over those that a limited route does not want
/// takes at most this part of the time.
const PASSING: Share = Share::one_in(20, PAUSE_MAX);

/// Transactions that insert events rarely take longer; what commits later than this after it became
/// due is found by the front walk.
const LATE_COMMIT: Duration = Duration::from_secs(10);

/// The group of all routes without a limit, and of events without a route.
pub(super) const REST: usize = 0;

/// Why a look is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A step of the front walk.
    Front,
    /// From the cursor of the routes without a limit.
    Rest,
    /// From the cursor of one route with a limit, or of several at the same place.
    Limited,
}

/// One look to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    purpose: Purpose,
    /// Where it starts.
    pub(super) after: Position,
    /// The groups of routes whose events it may claim.
    pub(super) groups: Vec<usize>,
    /// How many due events it reads; `None`: where everything may run, a look ends with the first
    /// events that it finds.
    pub(super) stretch: Option<i32>,
    /// It only skips finished events, this far, and claims nothing.
    pub(super) skip: Option<Reach>,
    /// It starts before its cursor.
    is_recent: bool,
}

/// The cursor of one group.
#[derive(Debug, Clone)]
struct Cursor {
    position: Position,
    /// The last look came to the end of what is due.
    is_at_end: bool,
    /// The last look claimed as many events as it asked for, so there are more.
    is_dense: bool,
    /// The earliest time of its next look.
    not_before: Instant,
}

/// The walk over the events that lie behind the cursors.
#[derive(Debug)]
struct Front {
    /// Where the next step starts.
    at: Position,
    /// The earliest time of the next step.
    not_before: Instant,
}

/// All cursors of a worker.
#[derive(Debug)]
pub(super) struct Cursors {
    /// The cursors by group: first the rest, then the routes with a limit.
    groups: Vec<Cursor>,
    front: Front,
    /// How far to read, by purpose.
    stretches: [Stretch; 3],
    /// The earliest time of the next look that starts before its cursor.
    recent_from: Instant,
    /// The database's clock, and when it was read.
    clock: Option<(i64, Instant)>,
    is_limited_turn: bool,
    /// A look may pass over many events that it may not claim, so that it has to be bounded.
    chooses: bool,
    /// A look has failed. Every look is bounded until one reaches the end of the due events.
    is_careful: bool,
}

impl Cursors {
    /// Makes cursors that all stand at the front; `n_limited` routes have a limit, and `chooses` says
    /// whether looks pass over events that they may not claim.
    pub(super) fn new(n_limited: usize, chooses: bool, now: Instant) -> Cursors {
        let cursor = Cursor {
            position: Position::FRONT,
            is_at_end: false,
            is_dense: false,
            not_before: now,
        };
        Cursors {
            groups: vec![cursor; 1 + n_limited],
            front: Front {
                at: Position::FRONT,
                not_before: now,
            },
            stretches: [Stretch::FIRST; 3],
            recent_from: now,
            clock: None,
            is_limited_turn: false,
            chooses,
            is_careful: false,
        }
    }

    /// Chooses the next look for the groups that may claim events now; `None` if the cursors of all
    /// of them pause.
    pub(super) fn next(&mut self, runnable: &[usize], now: Instant) -> Option<Look> {
        if runnable.is_empty() {
            return None;
        }
        if self.front.not_before <= now {
            return Some(self.look(Purpose::Front, self.front.at, runnable.to_vec(), false));
        }
        let ready = |&&group: &&usize| self.groups[group].not_before <= now;
        let rest = runnable
            .iter()
            .filter(ready)
            .any(|&group| group == REST)
            .then_some(self.groups[REST].position);
        let limited = runnable
            .iter()
            .filter(ready)
            .filter(|&&group| group != REST)
            .map(|&group| self.groups[group].position)
            .reduce(|first, other| {
                if first.is_behind(&other) {
                    other
                } else {
                    first
                }
            });
        let (purpose, position) = match (rest, limited) {
            (None, None) => return None,
            (Some(rest), None) => (Purpose::Rest, rest),
            (None, Some(limited)) => (Purpose::Limited, limited),
            (Some(rest), Some(limited)) => {
                self.is_limited_turn = !self.is_limited_turn;
                if self.is_limited_turn {
                    (Purpose::Limited, limited)
                } else {
                    (Purpose::Rest, rest)
                }
            }
        };
        let groups: Vec<usize> = runnable
            .iter()
            .filter(ready)
            .copied()
            .filter(|&group| self.groups[group].position == position)
            // While the rest has more events than it can take it is claimed alone, which costs
            // less.
            .filter(|&group| {
                (group == REST) == (purpose == Purpose::Rest) || !self.groups[REST].is_dense
            })
            .collect();
        let purpose = if groups == [REST] {
            Purpose::Rest
        } else {
            Purpose::Limited
        };
        let recent = (self.recent_from <= now)
            .then(|| self.recent(now))
            .flatten()
            .filter(|recent| position.is_behind(recent));
        Some(self.look(
            purpose,
            recent.unwrap_or(position),
            groups,
            recent.is_some(),
        ))
    }

    /// Says whether the cursor of one of these groups has not reached the end of the due events.
    pub(super) fn has_more(&self, groups: &[usize]) -> bool {
        groups.iter().any(|&group| !self.groups[group].is_at_end)
    }

    fn look(&self, purpose: Purpose, after: Position, groups: Vec<usize>, is_recent: bool) -> Look {
        let stretch = &self.stretches[purpose as usize];
        Look {
            purpose,
            after,
            groups,
            stretch: (self.chooses || self.is_careful).then_some(stretch.events),
            skip: stretch.skip.is_skipped.then_some(stretch.skip.reach),
            is_recent,
        }
    }

    /// The position from which late commits are expected.
    fn recent(&self, now: Instant) -> Option<Position> {
        let (micros, read) = self.clock?;
        let passed = i64::try_from(now.duration_since(read).as_micros()).unwrap_or(i64::MAX);
        Some(Position::recent(micros.saturating_add(passed), LATE_COMMIT))
    }
}
