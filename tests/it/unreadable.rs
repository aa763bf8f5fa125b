//! Events that cannot be read: passed over, named, looked at again, and dead in the end, while all
//! others go on.

use std::time::Duration;

use dispatchbox::dev::cluster::StopMode;
use dispatchbox::store::{Position, SecondLook, Unreadable};

use crate::support::session::{claim_all, session};
use crate::support::{Cli, Daemon, Receiver, Recorder, TestDb, cluster, wait_until};

/// A byte that WIN1252 has no character for, as text of such a database: it can be stored, and no
/// session of ours can be sent it.
const BAD: &str = "chr(129)";

/// A database in WIN1252 with `n` due events; the payload of the one with the id `bad` cannot be
/// read.
fn with_bad_payload(n: u32, bad: i64) -> TestDb {
    let db = TestDb::in_encoding("WIN1252");
    db.insert_events("order.created", n);
    db.execute(&format!(
        "update outbox_event set payload = to_jsonb({BAD}) where id = {bad}"
    ));
    db
}

#[test]
fn neighbours_of_a_row_that_cannot_be_read_are_delivered_and_it_ends_dead() {
    let db = with_bad_payload(60, 7);
    db.execute(&format!(
        "update outbox_event set aggregate_id = {BAD} where id = 9"
    ));
    let recorder = Recorder::new();

    let daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--lease-seconds", "4", "--max-attempts", "3"])
        .args(["--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("the others are done", || db.count("done") == 58);
    wait_until("the two are dead", || db.count("dead") == 2);

    let exact = "select count(*) from outbox_event where status = 'done' and attempts = 1 \
                 or id in (7, 9) and attempts = 0 and last_error like 'could not be read: character with byte sequence 0x81%'";
    assert_eq!(db.number(exact, &[]), 60);
    wait_until("no lease is left", || db.leases() == 0);
    for id in [7, 9] {
        let named = format!(
            "event {id} is passed over: could not read the event: character with byte sequence"
        );
        assert_eq!(daemon.log().matches(&named).count(), 1, "{}", daemon.log());
        let dead = format!("event {id} is dead after 3 looks");
        assert_eq!(daemon.log().matches(&dead).count(), 1, "{}", daemon.log());
    }
    assert_eq!(recorder.history().len(), 58);

    // What cannot be read is listed with what can be, and says so.
    let (status, list) = daemon.get("/api/dead-events");
    assert_eq!(status, 200, "{list}");
    let told = r#""payload":{"dispatchbox_unreadable":"character with byte sequence 0x81"#;
    assert_eq!(list.matches(told).count(), 2, "{list}");
    let exported = Cli::new(["dead-events", "export", "--dsn", &db.dsn()]).run();
    assert_eq!(exported.stdout.matches("dispatchbox_unreadable").count(), 2);

    // An event type that cannot be read keeps neither the statistics nor `explain` from telling the
    // rest.
    db.execute(&format!(
        "update outbox_event set event_type = {BAD} where id = 9"
    ));
    let dead = session(&db).count_dead_by_type(100).unwrap();
    assert_eq!(dead.counts, [(String::new(), 2)]);
    let explained = Cli::new(["explain", "9", "--dsn", &db.dsn()]).run();
    assert!(
        explained.stdout.contains("it has been dead since"),
        "{}",
        explained.stderr
    );
}

#[test]
fn an_event_that_cannot_be_read_is_shown_and_delivered_once_it_is_mended() {
    let db = with_bad_payload(5, 3);
    let recorder = Recorder::new();
    let daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--lease-seconds", "4", "--retry-backoff-seconds", "3600"])
        .start();
    wait_until("the others are done", || db.count("done") == 4);

    wait_until("it is counted", || {
        daemon.metric("dispatchbox_events_unreadable", &[]) == Some(1.0)
    });
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    let told = Cli::new(["status", "--url", &url]).run().stdout;
    assert!(
        told.contains("1, passed over until the next look"),
        "{told}"
    );
    let explained = Cli::new(["explain", "3", "--dsn", &db.dsn()]).run().stdout;
    assert!(
        explained.contains("it was read in vain, 1 time"),
        "{explained}"
    );

    db.execute("update outbox_event set payload = '{}' where id = 3");
    db.expire_leases();
    wait_until("it is done", || db.count("done") == 5);
    let exact = "select count(*) from outbox_event where attempts = 1";
    assert_eq!(db.number(exact, &[]), 5);
    recorder.history().assert_complete([1, 2, 3, 4, 5], 0);
}

/// Goal: in a database that knows no encoding an event is delivered whatever its bytes are.
#[test]
fn bytes_that_are_no_text_are_delivered_with_replacements() {
    let db = TestDb::in_encoding("SQL_ASCII");
    let receiver = Receiver::start();
    let bytes = r#"insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)
                  values ('order', E'caf\351', 'order.created', E'{"a": "\351t\351"}'), ('order', 'née', E'odd.\351', '{}')"#;
    db.execute(&format!("set client_encoding = 'SQL_ASCII'; {bytes}"));
    db.insert_events("order.created", 20);

    let daemon = Daemon::new(&db)
        .route(receiver.route("order.*"))
        .args(["--max-attempts", "1"])
        .start();
    wait_until("all are handled", || db.count("pending") == 0);

    assert_eq!((db.count("done"), db.count("dead")), (21, 1));
    let bodies: Vec<String> = receiver
        .requests()
        .into_iter()
        .map(|request| String::from_utf8(request.body).unwrap())
        .collect();
    let odd = bodies.iter().find(|body| body.contains("caf\u{fffd}"));
    assert!(
        odd.is_some_and(|body| body.contains("\u{fffd}t\u{fffd}")),
        "{bodies:?}"
    );
    let (status, list) = daemon.get("/api/dead-events");
    assert_eq!(status, 200, "{list}");
    assert!(
        list.contains("odd.\u{fffd}") && list.contains("née"),
        "{list}"
    );
}

/// Goal: what is passed over is named by a lease that no claim takes and no sweep charges; only its
/// end leads to another look.
#[test]
fn a_row_that_is_passed_over_is_held_until_it_is_looked_at_again() {
    let db = with_bad_payload(4, 2);
    let mut session = session(&db);
    let mut client = db.client();
    let mut person = client.transaction().unwrap();
    person
        .execute("select from outbox_event where id = 2 for update", &[])
        .unwrap();
    let wait = Duration::from_hours(1);
    let mut pass_over = || {
        let passed = session.pass_over(&Position::FRONT, 100, wait).unwrap();
        passed
            .into_iter()
            .map(|one| one.event_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(pass_over(), [0; 0], "another session has it in hand");
    person.rollback().unwrap();

    assert_eq!(pass_over(), [2]);
    assert_eq!(pass_over(), [0; 0], "it is passed over already");
    assert_eq!(claim_all(&mut session, "a"), [1, 3, 4]);
    let waits = [wait, wait];
    assert_eq!(
        session.look_again(&waits).unwrap(),
        [],
        "its time is not over"
    );
    db.execute("update outbox_lease set expires_at = '-infinity' where worker = 'unreadable/1'");
    assert!(matches!(
        session.look_again(&waits).unwrap()[..],
        [SecondLook::Waits(Unreadable { event_id: 2, .. })]
    ));
    db.execute("update outbox_lease set expires_at = '-infinity' where worker = 'unreadable/2'");
    assert!(matches!(
        session.look_again(&waits).unwrap()[..],
        [SecondLook::Dead(Unreadable { event_id: 2, .. })]
    ));
    assert_eq!((db.count("dead"), db.leases()), (1, 1));
}

/// Goal: a row whose payload is damaged on the disk is passed over like one that has no text.
/// Method: the file in which the server keeps large values is emptied while the server is down.
#[test]
fn a_damaged_row_is_passed_over() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    db.insert_events("order.created", 30);
    db.execute(
        "alter table outbox_event alter payload set storage external;
         update outbox_event set payload = to_jsonb(repeat('x', 20000)) where id = 11",
    );
    db.execute("checkpoint");
    let path = "select pg_relation_filepath((select reltoastrelid from pg_class where relname = 'outbox_event'))";
    let path: String = db.client().query_one(path, &[]).unwrap().get(0);
    server.stop(StopMode::Fast).unwrap();
    let file = server.directory().join("data").join(path);
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0; usize::try_from(length).unwrap()]).unwrap();
    server.start_again().unwrap();

    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--lease-seconds", "4", "--max-attempts", "2"])
        .args(["--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("the others are done", || db.count("done") == 29);
    wait_until("it is dead", || db.count("dead") == 1);

    let log = daemon.log();
    assert!(
        log.contains("event 11 is passed over: could not read the event: missing chunk number 0"),
        "{log}"
    );
    let (status, list) = daemon.get("/api/dead-events");
    assert_eq!(status, 200, "{list}");
    assert!(
        list.contains(r#""payload":{"dispatchbox_unreadable":"missing chunk"#),
        "{list}"
    );
}
