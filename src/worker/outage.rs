//! What the log is told about a database that is away or refuses: once when it begins, when it changes, and when it ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::store::StoreError;

/// The same complaint about a working connection is logged once in this time: a locked table fails every call for minutes.
const REPEAT_AFTER: Duration = Duration::from_mins(1);

/// Says that the database is away, or refuses, when that begins and ends, not on every call.
#[derive(Debug, Default)]
pub(super) struct Outage {
    state: Mutex<OutageState>,
}

#[derive(Debug, Default)]
struct OutageState {
    away_since: Option<Instant>,
    refused: HashMap<&'static str, Instant>,
}

impl Outage {
    /// Notes a failed call.
    pub(super) fn failed(&self, error: &StoreError) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if error.is_connection_lost() {
            if state.away_since.is_none() {
                state.away_since = Some(now);
                warn!("database is away, trying until it is back: {error}");
            }
            return;
        }
        let is_news = state
            .refused
            .get(error.reason())
            .is_none_or(|&told| now.duration_since(told) >= REPEAT_AFTER);
        if is_news {
            state.refused.insert(error.reason(), now);
            warn!("{error}; trying again");
        }
    }

    /// Notes a successful call.
    pub(super) fn succeeded(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = state.away_since.take() {
            info!(
                "database is back after {:.1} s",
                since.elapsed().as_secs_f64()
            );
        }
    }
}
