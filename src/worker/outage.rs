//! What the log is told about a database that is away or refuses: once when it begins, when it changes, and when it ends.
//!
//! An outage is over when every stage that met it has got through again: where only some can connect, the log does not go back and
//! forth between the two. A connection that did not survive it is no new one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::store::StoreError;
use crate::worker::pulse::Stage;

/// The same complaint about a working connection is logged once in this time: a locked table fails every call for minutes.
const REPEAT_AFTER: Duration = Duration::from_mins(1);

/// Says that the database is away, or refuses, when that begins and ends, not on every call.
#[derive(Debug, Default)]
pub(super) struct Outage {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    away_since: Option<Instant>,
    /// By stage: it has met the outage and not got through since.
    is_cut_off: [bool; 3],
    back_at: Option<Instant>,
    refused: HashMap<&'static str, Instant>,
}

impl Outage {
    /// Notes a failed call; `since` is when its connection had been opened, or when it began to open one.
    pub(super) fn failed(&self, stage: Stage, error: &StoreError, since: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if error.is_connection_lost() || error.is_connecting() && error.is_transient() {
            if known.back_at.is_some_and(|back| since < back) {
                // Another stage's connection, or attempt at one, was lost in the outage that is over.
                debug!("the last outage still shows: {error}");
                return;
            }
            known.is_cut_off[stage as usize] = true;
            if known.away_since.is_none() {
                known.away_since = Some(now);
                warn!("database is away, trying until it is back: {error}");
            }
            return;
        }
        let is_news = known
            .refused
            .get(error.reason())
            .is_none_or(|&told| now.duration_since(told) >= REPEAT_AFTER);
        if is_news {
            known.refused.insert(error.reason(), now);
            warn!("{error}; trying again");
        }
    }

    /// Notes a successful call.
    pub(super) fn succeeded(&self, stage: Stage) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.is_cut_off[stage as usize] = false;
        if known.is_cut_off.contains(&true) {
            return;
        }
        if let Some(since) = known.away_since.take() {
            known.back_at = Some(Instant::now());
            info!(
                "database is back after {:.1} s",
                since.elapsed().as_secs_f64()
            );
        }
    }
}
