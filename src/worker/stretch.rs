//! How many entries a look at the due events reads.
//!
//! A stretch grows while looks are cheap and find too little, and shrinks when they are dear or
//! fail.

use std::time::Duration;

use crate::worker::skip::{CHEAP, DEAR, Skip};

/// The first number of entries: as many as a large claim takes, and some that other workers have
/// claimed.
pub(super) const ENTRIES_FIRST: i32 = 1_000;

/// The most entries of a look, some 50 ms on a slow machine, since the other routes wait for it.
pub(super) const ENTRIES_MAX: i32 = 65_536;

/// The fewest entries: the due event behind the skipped ones, without the finished ones between it
/// and the next.
const ENTRIES_LEAST: i32 = 1;

/// How many entries a look reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) entries: i32,
    /// The most entries; a look over more has failed lately.
    most: i32,
    /// Looks in a row that were not dear.
    n_good: u8,
    /// How the finished events before the due ones are skipped.
    pub(super) skip: Skip,
}

impl Stretch {
    pub(super) const FIRST: Stretch = Stretch {
        entries: ENTRIES_FIRST,
        most: ENTRIES_MAX,
        n_good: 0,
        skip: Skip::FIRST,
    };

    /// The number of good looks after which more entries are tried again. If that fails each time,
    /// it costs one look in nine.
    const GOOD: u8 = 8;

    /// Notes the cost and the result of a look.
    pub(super) fn adapt(&mut self, is_end: bool, is_cut: bool, took: Duration) {
        self.n_good = if took > DEAR { 0 } else { self.n_good + 1 };
        if self.n_good >= Stretch::GOOD {
            self.n_good = 0;
            self.most = self.most.saturating_mul(2).min(ENTRIES_MAX);
        }
        let is_short = self.entries < ENTRIES_FIRST;
        if took > DEAR {
            self.entries = (self.entries / 2).max(ENTRIES_LEAST);
        } else if is_cut && !is_short {
            self.entries = (self.entries / 2).max(ENTRIES_FIRST);
        } else if took < CHEAP && (is_short || !is_end) {
            self.entries = self.entries.saturating_mul(4).min(self.most);
        }
    }

    /// Notes that a look over so many entries took too long.
    pub(super) fn failed(&mut self, entries: i32) {
        self.n_good = 0;
        self.most = (entries / 2).max(ENTRIES_LEAST);
        self.entries = (entries / 8).max(ENTRIES_LEAST);
    }
}
