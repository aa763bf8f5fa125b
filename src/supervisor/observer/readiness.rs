//! The looks for /ready and for the log: whether events could be delivered now.
//!
//! A look does to no row what workers do to many, so it meets the errors that they would meet, also
//! while they have nothing to do. The observer logs a refusal that is reported, with its remedy
//! where one is known, because workers that have nothing to settle never meet it. That the database
//! is away the workers notice and log by themselves.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::domain::failure::FailureKind;
use crate::domain::protocol::DatabaseAccess;
use crate::status::published::Published;
use crate::status::readiness::NotReady;
use crate::status::state::{Finding, State, WorkerState};
use crate::store::dsn::Dsn;
use crate::store::{MissingPrerequisite, Pool, StoreError, Timeouts};
use crate::system::incident::Incident;

/// Bounds the connect, and again the query, of one look.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// The refusal that was logged, by its remedy.
type Complaint = Incident<(FailureKind, Option<String>)>;

/// Makes the looks that are due, until there are to be no more.
pub(super) fn run(dsn: Dsn, published: &Published) {
    let timeouts = Timeouts {
        connect: LOOK_MAX,
        query: LOOK_MAX,
    };
    let pool = Pool::new(dsn, timeouts, NonZeroU16::MIN, "dispatchbox ready");
    let mut complaint = Complaint::default();
    while published.looks.next() {
        let began = Instant::now();
        let finding = look(&pool);
        published.looks.conclude(finding, began, |reported| {
            complain(&mut complaint, reported, &published.health.state());
        });
    }
}

/// Logs when a refusal on a working connection begins, and when it ends.
fn complain(complaint: &mut Complaint, reported: Option<(&Finding, Instant)>, state: &State) {
    let Some((finding, since)) = reported else {
        if let Some(lasted) = complaint.over() {
            info!(
                "nothing is refused any more: that lasted {:.0} s",
                lasted.as_secs_f64()
            );
        }
        return;
    };
    if finding.is_ours_to_tell(state) && complaint.met_since(finding.remedy(), since) {
        warn!(
            "not ready: {}: {}",
            NotReady::from(finding.failure_kind),
            finding.detail
        );
    }
}

impl Finding {
    /// The remedy of the finding. A finding with another remedy is logged again: one remedy may
    /// uncover the need of another.
    fn remedy(&self) -> (FailureKind, Option<String>) {
        let has_remedy = matches!(
            self.failure_kind,
            FailureKind::Schema | FailureKind::PermissionDenied
        );
        (self.failure_kind, has_remedy.then(|| self.detail.clone()))
    }

    /// Says whether the observer logs the finding: workers that meet the trouble have logged it
    /// already, but know no remedy for the schema or a privilege.
    fn is_ours_to_tell(&self, state: &State) -> bool {
        let is_failing = |worker: &WorkerState| {
            matches!(worker.report, Some((DatabaseAccess::Failing { .. }, _)))
        };
        match self.failure_kind {
            FailureKind::Unavailable => false,
            FailureKind::Schema | FailureKind::PermissionDenied => true,
            FailureKind::ReadOnly
            | FailureKind::TableLocked
            | FailureKind::TimedOut
            | FailureKind::Refused => !state.workers.iter().any(is_failing),
        }
    }
}

fn look(pool: &Pool) -> Option<Finding> {
    // A connection may have been broken: a second attempt on a fresh one tells that from a database
    // that is away.
    let found = try_look(pool).or_else(|error| {
        if error.is_connecting() || !error.is_connection_lost() {
            return Err(error);
        }
        debug!("readiness: {error}");
        try_look(pool)
    });
    found.unwrap_or_else(|error| {
        debug!("readiness: {error}");
        Some(Finding {
            failure_kind: error.failure_kind(),
            detail: error.to_string(),
        })
    })
}

fn try_look(pool: &Pool) -> Result<Option<Finding>, StoreError> {
    let mut session = pool.get()?;
    let Some(missing) = session.missing_prerequisite()? else {
        return session.rehearse().map(|()| None);
    };
    let failure_kind = match missing {
        MissingPrerequisite::Schema(_)
        | MissingPrerequisite::OutOfReach(_)
        | MissingPrerequisite::Types(_) => FailureKind::Schema,
        MissingPrerequisite::Privileges { .. } | MissingPrerequisite::RowSecurity(_) => {
            FailureKind::PermissionDenied
        }
    };
    Ok(Some(Finding {
        failure_kind,
        detail: missing.to_string(),
    }))
}
