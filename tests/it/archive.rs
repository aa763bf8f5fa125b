//! The archive: what is moved there, and what stays.

use dispatchbox::event::Outcome;

use crate::support::TestDb;
use crate::support::session::{claim, session, settle};

#[test]
fn only_what_has_long_been_done_is_archived() {
    let db = TestDb::with_events(8);
    db.execute(
        "UPDATE outbox_event SET created_at = now() - interval '30 days';
         UPDATE outbox_event SET status = 'done', finished_at = now() - interval '8 days', last_error = 'once' WHERE id IN (1, 2);
         UPDATE outbox_event SET status = 'done', finished_at = now() - interval '6 days' WHERE id = 3;
         UPDATE outbox_event SET status = 'dead', finished_at = now() - interval '8 days' WHERE id = 4;
         UPDATE outbox_event SET status = 'done', headers = '{}' WHERE id = 5;
         UPDATE outbox_event SET status = 'done' WHERE id = 6;
         INSERT INTO outbox_event_archive SELECT id, 'older', '1', 'older', '{}', 'done', 1, now(), now() FROM outbox_event WHERE id = 2",
    );
    // Event 7 is done and still named by its lease.
    let mut session = session(&db);
    let token = claim(&mut session, "a", 1).token;
    settle(&mut session, "a", token, &[7], &Outcome::Done);
    db.execute("UPDATE outbox_event SET finished_at = now() - interval '8 days' WHERE id = 7");

    db.execute("SET search_path = pg_catalog; SELECT public.archive_outbox_events()");

    let left = "SELECT array_agg(id ORDER BY id) FROM outbox_event";
    let moved = "SELECT array_agg(format('%s %s %s', id, aggregate_type, coalesce(last_error, headers::text)) ORDER BY id) FROM outbox_event_archive";
    let mut client = db.client();
    assert_eq!(
        client.query_one(left, &[]).unwrap().get::<_, Vec<i64>>(0),
        [2, 3, 4, 7, 8]
    );
    assert_eq!(
        client
            .query_one(moved, &[])
            .unwrap()
            .get::<_, Vec<String>>(0),
        ["1 order once", "2 older ", "5 order {}", "6 order "]
    );
    db.execute("DELETE FROM outbox_lease; SELECT archive_outbox_events(9)");
    assert_eq!(db.number("SELECT count(*) FROM outbox_event", &[]), 5);
    db.execute("SELECT archive_outbox_events(0)");
    assert_eq!(
        client.query_one(left, &[]).unwrap().get::<_, Vec<i64>>(0),
        [2, 4, 8]
    );
}
