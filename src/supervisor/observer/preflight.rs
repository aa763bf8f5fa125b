//! The check before the first worker: whether the database can be reached, holds the schema that
//! the program needs, and grants the privileges.
//!
//! The preflight waits for a database that cannot be reached, only reads, or is locked, however
//! long it takes. It does not wait if a password is wrong or a database, a schema or a privilege is
//! missing, because waiting does not help then.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{info, warn};

use crate::store::dsn::Dsn;
use crate::store::{self, MissingPrerequisite, StoreError, Timeouts};
use crate::system::incident::Incident;

/// First wait after a failed look; doubles up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(100);

/// A database that has come up is noticed within this time.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Looks until the answer is known, and returns it; returns `None` if `stopped` is disconnected
/// before.
pub(super) fn wait_for_database(
    dsn: &Dsn,
    timeouts: &Timeouts,
    stopped: &Receiver<()>,
) -> Option<Result<(), String>> {
    let mut wait = WAIT_FIRST;
    let mut incident = Incident::default();
    loop {
        match look(dsn, timeouts) {
            Ok(None) => {
                if incident.over().is_some() {
                    info!("database is there");
                }
                return Some(Ok(()));
            }
            Ok(Some(missing)) => return Some(Err(remedy(&missing, dsn))),
            Err(error) if error.is_connection_lost() || error.is_transient() => {
                if incident.met(error.reason()) {
                    warn!("waiting for the database: {error}");
                }
            }
            Err(error) if error.is_configuration() => {
                return Some(Err(format!("{error}; the database is {}", dsn.display())));
            }
            Err(error) => return Some(Err(error.to_string())),
        }
        if stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
            return None;
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Says what a person has to do, and for which database if it may not be the intended one.
fn remedy(missing: &MissingPrerequisite, dsn: &Dsn) -> String {
    match missing {
        MissingPrerequisite::Schema(_) | MissingPrerequisite::OutOfReach(_) => {
            format!("{missing}; the database is {}", dsn.display())
        }
        MissingPrerequisite::Privileges { .. }
        | MissingPrerequisite::Types(_)
        | MissingPrerequisite::RowSecurity(_) => missing.to_string(),
    }
}

fn look(dsn: &Dsn, timeouts: &Timeouts) -> Result<Option<MissingPrerequisite>, StoreError> {
    let mut session = store::connect(dsn, timeouts, "dispatchbox start")?;
    let missing = session.missing_prerequisite()?;
    if missing.is_none() {
        session.rehearse()?;
        if session.is_shared() {
            info!(
                "a connection pooler stands before the database: each call is a transaction that brings its own settings"
            );
        }
    }
    Ok(missing)
}
