//! Outcomes whose rows are locked or refused.

use std::time::Duration;

use super::{config, exec};
use crate::support::{Daemon, Recorder, TestDb, TestDir, wait_until, wait_until_within};

/// Goal: an outcome whose row was locked is written soon after the lock is gone, also while others pour in.
/// Method: settling is made slow, so that outcomes wait at every moment until the last event is done; the row is freed long before.
#[test]
fn an_outcome_set_aside_is_written_while_others_pour_in() {
    let db = TestDb::new();
    db.execute(
        "create function slowly() returns trigger language plpgsql as $$ begin perform pg_sleep(0.1); return null; end $$;
         create trigger slowly after update on outbox_event for each statement execute function slowly()",
    );
    let held = db.insert_events("held.one", 1)[0];
    let (directory, recorder) = (TestDir::new(), Recorder::new().gated());
    let routes = [
        exec("held.*", &recorder.program(), ""),
        "[[route]]\nevent_type = \"*\"\nhandler = \"log\"\n".to_owned(),
    ];
    let daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--query-timeout", "1"])
        .args(["--batch-size", "500", "--lease-seconds", "60"])
        .start();
    wait_until("its handler runs", || recorder.history().len() == 1);
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.execute(
        "select from outbox_event where id = $1 for update",
        &[&held],
    )
    .unwrap();
    db.insert_events("order.created", 60_000);

    recorder.open_gate();
    wait_until_within(
        Duration::from_secs(30),
        "its outcome has met the lock",
        || daemon.metric("dispatchbox_db_errors_total", &[("reason", "lock_timeout")]) >= Some(3.0),
    );
    lock.rollback().unwrap();

    let state = "select case when (select status = 'done' from outbox_event where id = $1) then 1 \
                 when exists (select from outbox_event where status = 'pending' and id <> $1) then 0 else 2 end::bigint";
    let mut found = 0;
    wait_until_within(
        Duration::from_mins(1),
        "it or everything else is done",
        || {
            found = db.number(state, &[&held]);
            found != 0
        },
    );
    assert_eq!(
        found, 1,
        "it was written only when nothing else was left to do"
    );
}
