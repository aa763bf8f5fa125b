//! How many events a look at the due events reads.
//!
//! A stretch grows while looks are cheap and find too little, and shrinks when they are dear or
//! fail.

use std::time::Duration;

use crate::worker::skip::{CHEAP, DEAR, Skip};

/// The first number of events: as many as a large claim takes, and some that other workers have
/// claimed.
pub(super) const EVENTS_FIRST: i32 = 1_000;

/// The most events of a look, some 50 ms on a slow machine, since the other routes wait for it.
pub(super) const EVENTS_MAX: i32 = 65_536;

/// The fewest events: the due event behind the skipped ones, without the finished ones between it
/// and the next.
const EVENTS_LEAST: i32 = 1;

/// How many events a look reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) events: i32,
    /// The most events; a look over more has failed lately.
    most: i32,
    /// Looks in a row that were not dear.
    n_good: u8,
    /// How the finished events before the due ones are skipped.
    pub(super) skip: Skip,
}

impl Stretch {
    pub(super) const FIRST: Stretch = Stretch {
        events: EVENTS_FIRST,
        most: EVENTS_MAX,
        n_good: 0,
        skip: Skip::FIRST,
    };

    /// The number of good looks after which more events are tried again. If that fails each time,
    /// it costs one look in nine.
    const GOOD: u8 = 8;

    /// Notes the cost and the result of a look.
    pub(super) fn adapt(&mut self, is_end: bool, is_cut: bool, took: Duration) {
        self.n_good = if took > DEAR { 0 } else { self.n_good + 1 };
        if self.n_good >= Stretch::GOOD {
            self.n_good = 0;
            self.most = self.most.saturating_mul(2).min(EVENTS_MAX);
        }
        let is_short = self.events < EVENTS_FIRST;
        if took > DEAR {
            self.events = (self.events / 2).max(EVENTS_LEAST);
        } else if is_cut && !is_short {
            self.events = (self.events / 2).max(EVENTS_FIRST);
        } else if took < CHEAP && (is_short || !is_end) {
            self.events = self.events.saturating_mul(4).min(self.most);
        }
    }

    /// Notes that a look over so many events took too long.
    pub(super) fn failed(&mut self, events: i32) {
        self.n_good = 0;
        self.most = (events / 2).max(EVENTS_LEAST);
        self.events = (events / 8).max(EVENTS_LEAST);
    }
}
