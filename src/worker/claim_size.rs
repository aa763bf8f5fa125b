//! How many events a claim asks for: few at first, twice as many while claims come full and the
//! runners work them off quickly, so that a slow handler does not sit on hundreds of events that
//! another worker could start.

use std::time::{Duration, Instant};

use crate::domain::config::CLAIM_EVENTS_FIRST;
use crate::worker::ledger::Ledger;

/// A full claim that was worked off within this time asks for a larger one.
const FAST: Duration = Duration::from_millis(50);

/// A claim that took longer than this to work off was too large.
const SLOW: Duration = Duration::from_millis(250);

/// The size of the next general claim.
#[derive(Debug)]
pub(super) struct ClaimSize {
    size: usize,
    max: usize,
    watched: Option<Watched>,
}

/// A full claim on its way through the runners.
#[derive(Debug, Clone, Copy)]
struct Watched {
    since: Instant,
    /// The claim is worked off when this many runs have ended.
    runs: u64,
}

impl ClaimSize {
    /// Makes the size of the first claim, which is small.
    pub(super) fn new(max: u16) -> ClaimSize {
        ClaimSize {
            size: usize::from(CLAIM_EVENTS_FIRST.min(max)),
            max: usize::from(max),
            watched: None,
        }
    }

    /// How many events a general claim asks for now, after `n_handed` were sent to so many runners;
    /// 0 while the queue still has enough.
    pub(super) fn room(&self, ledger: &Ledger, runners: usize, n_handed: u64) -> usize {
        // The number of idle runners is no measure: a runner that has just taken an event from the
        // queue still counts as idle, and a second event claimed for it would wait behind the
        // first, while another worker is idle.
        let ended = ledger.runs_ended();
        let handed = usize::try_from(n_handed.saturating_sub(ended)).unwrap_or(usize::MAX);
        let idle = runners.saturating_sub(handed);
        let low = self.low_water();
        ledger.tell_at(low);
        if ledger.queued() > low {
            return 0;
        }
        // Where handlers are slow, claim no more than can start at once.
        let ask = if low == 0 { idle } else { self.size.max(idle) };
        ask.min(self.max).min(ledger.queue_room())
    }

    /// The queue length at which the fetcher makes the next claim. It is above zero only if events
    /// are worked off quickly.
    fn low_water(&self) -> usize {
        if self.size > usize::from(CLAIM_EVENTS_FIRST) {
            self.size / 2
        } else {
            0
        }
    }

    /// Notes that a full claim was handed to the runners at `since`, and is worked off when so many
    /// runs have ended.
    pub(super) fn handed_full(&mut self, since: Instant, runs: u64) {
        if self.watched.is_none() {
            self.watched = Some(Watched { since, runs });
        }
    }

    /// Grows or shrinks by how quickly a full claim was worked off. An empty queue says nothing
    /// about that: idle runners take even an event that keeps them busy for an hour.
    pub(super) fn adapt(&mut self, runs_ended: u64) {
        let Some(watched) = self.watched.take_if(|watched| runs_ended >= watched.runs) else {
            return;
        };
        let took = watched.since.elapsed();
        if took < FAST {
            self.size = (self.size * 2).min(self.max);
        } else if took > SLOW {
            self.size = (self.size / 2).max(1);
        }
    }
}
