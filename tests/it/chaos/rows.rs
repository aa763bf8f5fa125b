//! Rows that a person removes or changes while they are handled.

use super::{assert_all_left, assert_done_at_first_attempt, lines_with};
use crate::support::{Daemon, Recorder, TestDb, wait_until};

#[test]
fn an_event_that_a_person_removed_or_ended_meanwhile_is_left_as_it_is_and_counted() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 3);
    let (recorder, mut daemon) = Daemon::new(&db).start_gated(3);

    db.client()
        .execute("delete from outbox_event where id = $1", &[&ids[0]])
        .unwrap();
    db.client()
        .execute(
            "update outbox_event set status = 'dead', last_error = 'by hand' where id = $1",
            &[&ids[1]],
        )
        .unwrap();
    recorder.open_gate();

    wait_until("both are counted", || {
        daemon.metric("dispatchbox_events_missing_total", &[]) == Some(2.0)
    });
    wait_until("the third is done", || db.count("done") == 1);
    let kept = "select count(*) from outbox_event where id = $1 and status = 'dead' and attempts = 0 and last_error = 'by hand'";
    assert_eq!(db.number(kept, &[&ids[1]]), 1);
    assert_eq!(db.number("select count(*) from outbox_event", &[]), 2);
    assert_eq!(lines_with(&daemon, "removed or finished elsewhere"), 2);
    assert_eq!(recorder.history().len(), 3);
    assert_all_left(&db, [&mut daemon]);
}

/// Goal: a table that is emptied and counts its ids from 1 again hands out its new events, whatever
/// still runs under the old ids.
#[test]
fn new_events_under_the_ids_of_truncated_ones_are_all_delivered() {
    let db = TestDb::new();
    let old = db.insert_events("order.created", 30);
    let recorder = Recorder::new().gated();
    let fresh = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("order.*"))
        .route(fresh.route("fresh.*"))
        .args(["--max-parallel", "6", "--poll-interval", "0.05"])
        .start();
    recorder.wait_runs(6);

    wait_until("the table is emptied", || {
        // It may lose a deadlock against a claim, as any statement of a person may.
        db.client()
            .batch_execute("truncate outbox_event restart identity")
            .is_ok()
    });
    let new = db.insert_events("fresh.created", 30);
    assert_eq!(old, new);
    assert_eq!(fresh.history().len(), 0);
    recorder.open_gate();

    assert_done_at_first_attempt(&db, [&mut daemon], &new);
    fresh.history().assert_complete(new, 0);
}
