//! The check before the first worker: whether the database can be reached, holds the schema that
//! the program needs, and grants the privileges.
//!
//! The preflight waits for a database that cannot be reached, only reads, or is locked, however
//! long it takes. It does not wait if a password is wrong or a database, a schema or a privilege is
//! missing, because waiting does not help then.

use std::io;
use std::time::Duration;

use crossbeam_channel::Sender;
use log::{info, warn};

use crate::store::dsn::Dsn;
use crate::store::{self, MissingPrerequisite, StoreError, Timeouts};
use crate::supervisor::FleetEvent;
use crate::system::incident::Incident;
use crate::system::pause::pause;
use crate::system::threads;

/// First wait after a failed look; doubles up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(100);

/// A database that has come up is noticed within this time.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Looks until the answer is known, then sends it. The thread is not joined: a daemon that is told
/// to leave does not wait for it.
pub(super) fn start(dsn: Dsn, timeouts: Timeouts, events: Sender<FleetEvent>) -> io::Result<()> {
    threads::detach("preflight", move || {
        let answer = wait_for_database(&dsn, &timeouts);
        // The supervisor may have left meanwhile.
        let _ = events.send(FleetEvent::Preflight(answer));
    })
}

fn wait_for_database(dsn: &Dsn, timeouts: &Timeouts) -> Result<(), String> {
    let mut wait = WAIT_FIRST;
    let mut incident = Incident::default();
    loop {
        match look(dsn, timeouts) {
            Ok(None) => {
                if incident.over().is_some() {
                    info!("database is there");
                }
                return Ok(());
            }
            // The message shows the database, which may not be the intended one.
            Ok(Some(
                missing @ (MissingPrerequisite::Schema(_) | MissingPrerequisite::OutOfReach(_)),
            )) => {
                return Err(format!("{missing}; the database is {}", dsn.display()));
            }
            Ok(Some(missing)) => return Err(missing.to_string()),
            Err(error) if error.is_connection_lost() || error.is_transient() => {
                if incident.met(error.reason()) {
                    warn!("waiting for the database: {error}");
                }
            }
            Err(error) if error.is_configuration() => {
                return Err(format!("{error}; the database is {}", dsn.display()));
            }
            Err(error) => return Err(error.to_string()),
        }
        pause(wait);
        wait = (wait * 2).min(WAIT_MAX);
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
