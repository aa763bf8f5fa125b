//! Dead events as they are listed, counted and shown.

use super::{Holding, shown, with_dead};
use crate::support::TestDb;

#[test]
fn the_list_is_newest_first_with_all_columns() {
    let db = with_dead(3);
    db.execute("UPDATE outbox_event SET created_at = (SELECT created_at FROM outbox_event WHERE id = 2) WHERE id = 1");
    db.insert_events("order.created", 1);
    let holding = Holding::on(&db);

    let first = shown(1).replace("03:01:05", "03:02:05");
    let list = format!(
        r#"{{"events":[{},{},{first}],"count":3,"limit":100,"offset":0}}"#,
        shown(3),
        shown(2)
    );
    holding.check("GET", "/api/dead-events", "", 200, &list);
    let empty = r#"{"events":[],"count":0,"limit":1,"offset":3}"#;
    holding.check("GET", "/api/dead-events?limit=1&offset=3", "", 200, empty);
}

#[test]
fn the_list_comes_in_pages() {
    let db = with_dead(5);
    let holding = Holding::on(&db);

    assert_eq!(holding.listed("limit=2"), [5, 4]);
    assert_eq!(holding.listed("limit=2&offset=2"), [3, 2]);
    assert_eq!(holding.listed("limit=2&offset=4"), [1]);
    assert_eq!(holding.listed("offset=9223372036854775807"), [0; 0]);
    let (_, body) = holding.daemon.get("/api/dead-events?limit=5000");
    assert!(
        body.ends_with(r#""count":5,"limit":1000,"offset":0}"#),
        "{body}"
    );
}

#[test]
fn filters_are_exact_and_utf_8() {
    let db = with_dead(4);
    db.execute(
        "UPDATE outbox_event SET event_type = 'grüße 📮' WHERE id = 2;
         UPDATE outbox_event SET aggregate_type = 'a+b&c' WHERE id IN (2, 3);
         UPDATE outbox_event SET last_error = '100% _' WHERE id = 4",
    );
    let holding = Holding::on(&db);

    assert_eq!(
        holding.listed("event_type=gr%C3%BC%C3%9Fe+%F0%9F%93%AE"),
        [2]
    );
    assert_eq!(holding.listed("event_type=gr%C3%BC"), [0; 0]);
    assert_eq!(holding.listed("aggregate_type=a%2Bb%26c"), [3, 2]);
    assert_eq!(
        holding.listed("aggregate_type=a%2Bb%26c&event_type=order.created"),
        [3]
    );
    assert_eq!(holding.listed("error=%25"), [4]);
    assert_eq!(holding.listed("error=said"), [3, 2, 1]);
    assert_eq!(holding.listed("event_type=&aggregate_type="), [4, 3, 2, 1]);
}

#[test]
fn since_is_inclusive_and_until_is_not() {
    let db = with_dead(4);
    let holding = Holding::on(&db);

    assert_eq!(holding.listed("since=2025-01-02T03:03:05.123456Z"), [4, 3]);
    assert_eq!(
        holding.listed("since=2025-01-02T04:03:05.123456+01:00"),
        [4, 3]
    );
    assert_eq!(holding.listed("until=2025-01-02T03:03:05.123456Z"), [2, 1]);
    assert_eq!(
        holding.listed("since=2025-01-02T03:02:00Z&until=2025-01-02T03:04:00Z"),
        [3, 2]
    );
}

#[test]
fn stats_count_what_the_filter_lets_pass() {
    let db = with_dead(3);
    db.execute("UPDATE outbox_event SET event_type = 'order.\"x\"' WHERE id = 2");
    db.insert_events("order.created", 2);
    let holding = Holding::on(&db);

    for (query, answer) in [
        ("", r#"{"total":3,"aggregate_type":null,"event_type":null}"#),
        (
            "?event_type=order.%22x%22",
            r#"{"total":1,"aggregate_type":null,"event_type":"order.\"x\""}"#,
        ),
        (
            "?aggregate_type=order&event_type=",
            r#"{"total":3,"aggregate_type":"order","event_type":null}"#,
        ),
        (
            "?since=2025-01-02T03:03:00Z&limit=nonsense",
            r#"{"total":1,"aggregate_type":null,"event_type":null}"#,
        ),
    ] {
        let path = format!("/api/dead-events/stats{query}");
        holding.check("GET", &path, "", 200, answer);
    }
}

#[test]
fn one_event_is_the_same_object_as_in_the_list() {
    let db = with_dead(2);
    let holding = Holding::on(&db);

    holding.check("GET", "/api/dead-events/2", "", 200, &shown(2));
    holding.check(
        "GET",
        "/api/dead-events/9",
        "",
        404,
        r#"{"error":"Dead event 9 not found"}"#,
    );
    let pending = db.insert_events("order.created", 1)[0];
    let not_found = format!(r#"{{"error":"Dead event {pending} not found"}}"#);
    holding.check(
        "GET",
        &format!("/api/dead-events/{pending}"),
        "",
        404,
        &not_found,
    );
}

#[test]
fn a_payload_is_shown_byte_for_byte() {
    let db = TestDb::new();
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    db.execute(&format!(
        r#"INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload, headers, status, created_at) VALUES
               ('', '', '', '{{"n": 1e40, "d": 123456789012345678901234567890.10, "t": "<\u00fc>"}}', '{{"v": 1.00}}', 'dead', 'infinity'),
               ('', '', '', '{deep}', null, 'dead', '-infinity')"#
    ));
    let holding = Holding::on(&db);

    let (_, body) = holding.daemon.get("/api/dead-events/1");
    let payload = r#""payload":{"d": 123456789012345678901234567890.10, "n": 10000000000000000000000000000000000000000, "t": "<ü>"}"#;
    assert!(body.contains(payload), "{body}");
    assert!(body.contains(r#""headers":{"v": 1.00}"#), "{body}");
    assert!(body.contains(r#""created_at":"infinity""#), "{body}");
    let (_, body) = holding.daemon.get("/api/dead-events");
    assert!(body.contains(&deep), "{body}");
}

#[test]
fn a_list_of_large_payloads_ends_early_and_goes_on_behind_its_count() {
    let db = with_dead(4);
    db.execute(
        "ALTER TABLE outbox_event ALTER payload SET STORAGE EXTERNAL;
         UPDATE outbox_event SET payload = jsonb_build_object('n', id, 'x', repeat('x', 9 * 1024 * 1024)) WHERE id > 1",
    );
    let holding = Holding::on(&db);

    assert_eq!(holding.listed(""), [4, 3]);
    assert_eq!(holding.listed("offset=2"), [2, 1]);
    assert_eq!(holding.listed("offset=1&limit=1"), [3]);
}

/// Goal: what the table holds in kilobytes cannot fill the supervisor's memory. Method: payloads of
/// two megabytes of one letter.
#[test]
fn a_list_counts_payloads_as_large_as_they_are_sent() {
    let db = with_dead(12);
    db.execute(
        "UPDATE outbox_event SET payload = to_jsonb(repeat('x', 2 * 1024 * 1024)) WHERE id > 1",
    );
    let stored = db.number(
        "SELECT sum(pg_column_size(payload))::bigint FROM outbox_event",
        &[],
    );
    assert!(stored < 512 * 1024, "{stored}");
    let holding = Holding::on(&db);

    assert_eq!(holding.listed(""), [12, 11, 10, 9, 8, 7, 6, 5]);
    assert_eq!(holding.listed("offset=8"), [4, 3, 2, 1]);
}

#[test]
fn head_works_wherever_get_does() {
    let db = with_dead(1);
    let holding = Holding::on(&db);

    for (path, status) in [
        ("/api/dead-events", 200),
        ("/api/dead-events/stats", 200),
        ("/api/dead-events/1", 200),
        ("/api/dead-events/2", 404),
        ("/api/dead-events/1/retry", 405),
        ("/api/dead-events?limit=0", 400),
        ("/api/status", 200),
    ] {
        let host = "Host: localhost\r\n";
        let head = holding.daemon.exchange("127.0.0.1", "HEAD", path, host, "");
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{path}");
        assert_eq!(
            head.header("Content-Type"),
            Some("application/json"),
            "{path}"
        );
    }
    assert_eq!(db.count("dead"), 1);
}
