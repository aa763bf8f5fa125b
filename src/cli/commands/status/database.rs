//! The part of the status that the database knows: backlog, dead events, and the workers that hold
//! leases.

use serde_json::{Value, json};

use crate::cli::commands::one_shot::Target;
use crate::cli::terminal::message::why_missing;
use crate::store::{Position, Session, StoreError};

/// Most events that are counted, as in the daemon.
const COUNT_MAX: u32 = 100_000;

/// Event types that are shown.
const TYPES_MAX: usize = 100;

/// A connection to the database, which is opened at the first look and again after a failure.
pub(super) struct TableClient {
    target: Target,
    session: Option<Session>,
    /// Why a table or function that the last look did not find is missing, where that is known.
    pub(super) why: Option<String>,
}

impl TableClient {
    /// Does not connect yet.
    pub(super) fn new(target: Target) -> TableClient {
        TableClient {
            target,
            session: None,
            why: None,
        }
    }

    /// Looks at the table; after a failure the next look connects anew.
    pub(super) fn ask(&mut self) -> Result<Value, StoreError> {
        self.why = None;
        self.try_ask().inspect_err(|error| {
            let session = self.session.take();
            self.why = session.and_then(|mut session| why_missing(&mut session, error));
        })
    }

    fn try_ask(&mut self) -> Result<Value, StoreError> {
        if self.session.is_none() {
            let mut session = self.target.connect("status")?;
            session.set_up_statistics()?;
            self.session = Some(session);
        }
        let session = self.session.as_mut().expect("it was just connected");
        let backlog = session.count_backlog(&Position::FRONT, COUNT_MAX)?;
        let dead = session.count_dead_by_type(COUNT_MAX)?;
        let workers: Vec<Value> = session
            .lease_holders()?
            .into_iter()
            .map(|holder| {
                json!({
                    "worker": holder.worker,
                    "leases": holder.n_leases,
                    "events": holder.n_events,
                    "expires_at": holder.expires_at,
                    "expired": holder.is_expired,
                })
            })
            .collect();
        let by_type = dead
            .counts
            .iter()
            .take(TYPES_MAX)
            .map(|(event_type, count)| json!({"event_type": event_type, "count": count}));
        Ok(json!({
            "backlog": {
                "events": backlog.n_events,
                "capped": backlog.is_capped,
                "unreadable": backlog.n_unreadable,
                "oldest_due_age_seconds": backlog.oldest_due_age.as_secs_f64(),
            },
            "dead": {
                "total": dead.counts.iter().map(|(_, count)| count).sum::<u64>(),
                "capped": dead.is_capped,
                "by_type": by_type.collect::<Vec<_>>(),
            },
            "workers": workers,
            "hidden": session.hidden_from_readers()?,
        }))
    }
}
