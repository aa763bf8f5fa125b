//! Sessions of the store on a test's database, and the usual calls with the usual values.

use std::time::Duration;

use dispatchbox::domain::event::Outcome;
use dispatchbox::store::dsn::Dsn;
use dispatchbox::store::{
    ClaimQuery, ClaimedEvents, Position, Session, SettleBatch, Settlement, Timeouts, Written,
    connect,
};

use super::database::TestDb;

/// Long enough that nothing here runs into it.
pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    query: Duration::from_secs(30),
};

/// Records what the session that settles an event has set; a function's own settings are seen from
/// inside it.
pub const RECORD_SETTINGS: &str = "
    CREATE TABLE settings AS SELECT ''::text AS lock_timeout, ''::text AS statement_timeout, ''::text AS search_path,
        ''::text AS isolation, ''::text AS jit LIMIT 0;
    CREATE FUNCTION record_settings() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO settings VALUES (current_setting('lock_timeout'), current_setting('statement_timeout'),
            current_setting('search_path'), current_setting('transaction_isolation'), current_setting('jit'));
        RETURN NEW; END $$;
    CREATE TRIGGER record_settings BEFORE UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION record_settings()";

/// A claim of up to 100 events of any type from the front, for a worker.
pub fn query(worker: &str) -> ClaimQuery<'_> {
    ClaimQuery {
        worker,
        limit: 100,
        lease: Duration::from_mins(1),
        after: &Position::FRONT,
        stretch: None,
        selection: None,
        bytes_max: u64::MAX,
    }
}

/// Opens a session on a database.
pub fn session(db: &TestDb) -> Session {
    let dsn = Dsn::parse(&db.dsn()).unwrap();
    connect(&dsn, &TIMEOUTS, "test").unwrap()
}

/// Claims up to `limit` events that must be there.
#[track_caller]
pub fn claim(session: &mut Session, worker: &str, limit: u16) -> ClaimedEvents {
    let query = ClaimQuery {
        limit,
        ..query(worker)
    };
    session.claim(&query).unwrap().unwrap()
}

/// The ids of the events, in their order.
pub fn ids(claimed: &ClaimedEvents) -> Vec<i64> {
    claimed.events.iter().map(|event| event.id).collect()
}

/// Claims everything that can be claimed and returns the ids.
pub fn claim_all(session: &mut Session, worker: &str) -> Vec<i64> {
    let mut all = Vec::new();
    while let Some(claimed) = session.claim(&query(worker)).unwrap() {
        all.extend(ids(&claimed));
    }
    all
}

/// Settles some events of a lease with the same outcome; the lease stays for the others.
#[track_caller]
pub fn settle(
    session: &mut Session,
    worker: &str,
    token: i64,
    ids: &[i64],
    outcome: &Outcome,
) -> Vec<Written> {
    settle_and_end(session, worker, token, ids, outcome, &[])
}

/// Settles the last events of a lease with the same outcome, and ends leases.
#[track_caller]
pub fn settle_and_end(
    session: &mut Session,
    worker: &str,
    token: i64,
    ids: &[i64],
    outcome: &Outcome,
    ended: &[i64],
) -> Vec<Written> {
    let outcomes = settlements(token, ids, outcome);
    let mut written = session
        .settle(&SettleBatch {
            worker,
            outcomes: &outcomes,
            ended,
            expired: false,
        })
        .unwrap();
    written.sort_by_key(|one| one.event_id);
    written
}

/// The same outcome for several events of a lease.
pub fn settlements(token: i64, ids: &[i64], outcome: &Outcome) -> Vec<Settlement> {
    ids.iter()
        .map(|&event_id| Settlement {
            token,
            event_id,
            outcome: outcome.clone(),
        })
        .collect()
}

/// A failed attempt that is due again after a delay.
pub fn retry(delay: Duration) -> Outcome {
    Outcome::Retry {
        delay,
        reason: "receiver said 503".to_owned(),
    }
}

/// A failed attempt that was the last.
pub fn dead() -> Outcome {
    Outcome::Dead {
        reason: "receiver said 410".to_owned(),
    }
}

/// What `settle` returns for events that it wrote.
pub fn written(ids: &[i64]) -> Vec<Written> {
    ids.iter()
        .map(|&event_id| Written {
            event_id,
            written: true,
            kept: false,
        })
        .collect()
}

/// What `settle` returns for events that the lease names and that were finished before.
pub fn named_only(ids: &[i64]) -> Vec<Written> {
    ids.iter()
        .map(|&event_id| Written {
            event_id,
            written: false,
            kept: false,
        })
        .collect()
}

/// One text per event: status, attempts, and which of our columns are set.
pub fn table(db: &TestDb) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', id, status, attempts, \
                 CASE WHEN finished_at IS NOT NULL THEN 'finished' END, \
                 CASE WHEN last_error_at IS NOT NULL THEN 'failed' END, last_error) \
               FROM outbox_event ORDER BY id";
    let rows = db.client().query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
