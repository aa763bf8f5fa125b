//! The option `--event-type` of the commands `dead-events …`: exact, or a pattern as in routes. The
//! API's `event_type` is exact, as it was.

use serde_json::Value;

use crate::support::{Cli, Daemon, TestDb};

/// One dead event of each of these types.
const TYPES: [&str; 7] = [
    "order",
    "order.created",
    "order.paid",
    "order.*",
    "orders.created",
    "Order.created",
    "order_created",
];

fn with_types() -> TestDb {
    let db = TestDb::new();
    for event_type in TYPES {
        db.insert_events(event_type, 1);
    }
    db.execute("UPDATE outbox_event SET status = 'dead', attempts = 5, finished_at = now()");
    db
}

fn run(db: &TestDb, args: &[&str]) -> String {
    let dsn = db.dsn();
    let said = Cli::new(["dead-events"])
        .args(args.iter().copied())
        .args(["--dsn", &dsn])
        .run();
    assert_eq!(said.status, 0, "{args:?}: {}", said.stderr);
    said.stdout
}

/// The types of the events that are listed with this filter.
fn listed(db: &TestDb, event_type: &str) -> Vec<String> {
    let page: Value =
        serde_json::from_str(&run(db, &["list", "--json", "--event-type", event_type])).unwrap();
    let types = page["events"].as_array().unwrap().iter();
    let mut types: Vec<String> = types
        .map(|event| event["event_type"].as_str().unwrap().to_owned())
        .collect();
    types.sort();
    types
}

#[test]
fn a_pattern_means_what_it_means_in_a_route() {
    let db = with_types();

    assert_eq!(
        listed(&db, "order.*"),
        ["order.*", "order.created", "order.paid"]
    );
    assert_eq!(listed(&db, "order"), ["order"]);
    assert_eq!(listed(&db, "order_created"), ["order_created"]);
    assert_eq!(listed(&db, "*").len(), TYPES.len());
    // What means something in LIKE means nothing here.
    assert!(listed(&db, "order_%.*").is_empty());

    let stats: Value =
        serde_json::from_str(&run(&db, &["stats", "--json", "--event-type=order.*"])).unwrap();
    assert_eq!(
        (&stats["total"], &stats["event_type"]),
        (&3.into(), &"order.*".into())
    );
    assert_eq!(stats["by_type"].as_array().unwrap().len(), 3);
    let exported = run(&db, &["export", "--event-type=order.*"]);
    assert_eq!(exported.lines().count(), 3, "{exported}");
}

#[test]
fn a_pattern_chooses_what_is_changed() {
    let db = with_types();

    let args = ["retry-batch", "--event-type=order.*", "--dry-run"];
    assert_eq!(run(&db, &args), "would retry 3 events\n");
    let args = ["retry-batch", "--event-type=order.*", "--yes"];
    assert_eq!(run(&db, &args), "requeued 3 events\n");
    let pending =
        "SELECT count(*) FROM outbox_event WHERE status = 'pending' AND event_type LIKE 'order.%'";
    assert_eq!((db.count("pending"), db.number(pending, &[])), (3, 3));

    let args = ["discard", "--event-type=orders.*", "--yes"];
    assert_eq!(run(&db, &args), "discarded 1 event\n");
    let args = ["discard", "--event-type=*", "--yes"];
    assert_eq!(run(&db, &args), "discarded 3 events\n");
    assert_eq!(db.count("dead"), 0);
}

#[test]
fn a_star_that_no_route_could_have_is_refused() {
    for wrong in ["order*", "*.created", "order.*.created", "**", ".*"] {
        Cli::new(["dead-events", "stats", "--dsn=host=/nonexistent", "--event-type", wrong])
            .stderr(format!(
                "error: --event-type must be an event type, `*`, or a pattern that ends in a dot and a star, such as `order.*`, not `{wrong}`\n\
                 hint: `dispatchbox help dead-events stats` lists its options\n"
            ))
            .status(2)
            .check();
    }
}

#[test]
fn the_api_takes_an_event_type_as_it_is_spelled() {
    let db = with_types();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    let (status, answer) = daemon.get("/api/dead-events/stats?event_type=order.*");

    assert_eq!(status, 200);
    assert!(answer.contains(r#""total":1,"#), "{answer}");
}
