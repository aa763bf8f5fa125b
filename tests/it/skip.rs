//! Skipping what is finished on the way to the next due event.

use std::time::Duration;

use dispatchbox::store::skip::Reach;
use dispatchbox::store::{ClaimQuery, Position};

use crate::support::TestDb;
use crate::support::session::{query, session};

/// Goal: however far a step goes, no due event is passed, and each walk comes to its end. Method:
/// events of the same time, at the ends of what a clock can show, and with odd ids, among finished
/// ones; each event that a step ends in front of is claimed as a look would do it.
#[test]
fn no_step_passes_a_due_event() {
    let reaches = [
        (Reach::Time(Duration::from_micros(1)), Reach::Ids(1_000)),
        (Reach::Time(Duration::from_mins(30)), Reach::Ids(1)),
        (
            Reach::Time(Duration::from_secs(1 << 40)),
            Reach::Ids(i64::MAX),
        ),
    ];
    for (time, ids) in reaches {
        let db = TestDb::new();
        db.execute(
            "insert into outbox_event (id, aggregate_type, aggregate_id, event_type, payload, next_run_at, status)
             select id, 't', '1', 'order.created', '{}', time, status
               from (values (1, '-infinity'::timestamptz, 'pending'), (2, '1970-01-01', 'retry'), (3, '1970-01-01', 'pending'),
                            (-9, '1970-01-01', 'pending'), (0, '1970-01-01', 'pending'), (4, '2020-01-01', 'done'),
                            (1005, '2020-01-01', 'pending'), (1004, '2020-01-01', 'done'), (6, '2020-01-01 00:00:00.000001', 'pending'),
                            (1152921504606846976, now() - interval '1 hour', 'pending'), (7, now() - interval '1 hour', 'done'),
                            (8, now() + interval '1 hour', 'pending'), (9, 'infinity', 'pending')) as e (id, time, status)",
        );
        let mut session = session(&db);
        let mut at = Position::FRONT;
        let mut found = Vec::new();
        // By ids for a while at each place, as where many events stand at one point in time, then
        // on by time.
        for n in 0.. {
            assert!(n < 5_000, "{time:?}, {ids:?}: at {at:?}, found {found:?}");
            let is_first = at == Position::FRONT;
            let reach = match n % 3 {
                0 | 1 if !is_first => ids,
                _ if is_first || n % 5 > 0 => time,
                _ => Reach::Time(Duration::from_secs(1 << 30)),
            };
            let skipped = session.skip(&at, reach).unwrap();
            let Some(position) = skipped.reached else {
                break;
            };
            assert!(
                position == at || position.is_behind(&at),
                "from {at:?} back to {position:?}"
            );
            at = position;
            if skipped.is_before_event {
                let next = ClaimQuery {
                    limit: 1,
                    stretch: Some(1),
                    after: &at,
                    ..query("a")
                };
                let claimed = session.look(&next).unwrap().claimed.unwrap();
                found.push(claimed.events[0].id);
                at = claimed.last;
            }
        }
        assert_eq!(
            found,
            [1, -9, 0, 2, 3, 1005, 6, 1_152_921_504_606_846_976],
            "{time:?}, {ids:?}"
        );
    }
}
