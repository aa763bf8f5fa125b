//! The library's way: a program with a handler of its own is the whole daemon.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::Command;

use crate::support::{Daemon, History, TestDb, TestDir, example, wait_until};

#[test]
fn a_program_with_its_own_handler_is_a_daemon() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 200);
    db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
         values ('order', '', 'order.created', '{}'), ('user', '1', 'user.registered', '{}')",
    );
    let directory = TestDir::new();
    let orders = directory.file("orders");

    let mut daemon = Daemon::new(&db)
        .program(example("own_handler"))
        .args(["--processes", "2", "--max-attempts", "1"])
        .env("ORDERS_FILE", &orders)
        .start();
    wait_until("everything is settled", || {
        db.count("done") == 200 && db.count("dead") == 2
    });

    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    let written = std::fs::read_to_string(&orders).unwrap();
    let runs = written.lines().map(|line| {
        let mut words = line.split(' ');
        let mut number = || words.next().unwrap();
        (number().parse().unwrap(), number().parse().unwrap())
    });
    History::new(runs).assert_complete(ids, 0);
    assert!(
        written.lines().all(|line| line.contains(" 1 {")),
        "{written}"
    );
    let said = |text: &str| {
        db.number(
            "select count(*) from outbox_event where last_error = $1",
            &[&text],
        )
    };
    assert_eq!(said("the order has no number"), 1);
    assert_eq!(said("No handler for event_type=user.registered"), 1);
}

#[test]
fn a_worker_whose_runners_are_all_stuck_is_replaced() {
    let db = TestDb::new();
    // More than a pipe holds: the handler's write waits until somebody reads.
    db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
         values ('order', '1', 'order.created', to_jsonb(repeat('x', 200000)))",
    );
    let directory = TestDir::new();
    let orders = directory.file("orders");
    assert!(
        Command::new("mkfifo")
            .arg(&orders)
            .status()
            .unwrap()
            .success()
    );
    let mut reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&orders)
        .unwrap();

    let daemon = Daemon::new(&db)
        .program(example("own_handler"))
        .args([
            "--max-parallel",
            "1",
            "--handler-timeout",
            "0.5",
            "--retry-backoff-seconds",
            "0.05",
        ])
        .env("ORDERS_FILE", &orders)
        .start();
    wait_until("the stuck worker was replaced", || {
        daemon.metric("dispatchbox_worker_restarts_total", &[]) >= Some(1.0)
    });
    wait_until("the attempt was charged", || {
        db.count_where("status = 'retry' and attempts >= 1") == 1
    });
    assert!(daemon.log().contains("stuck"), "{}", daemon.log());

    // Somebody reads again.
    let drain = std::thread::spawn(move || {
        let mut sink = [0; 8192];
        while reader
            .read(&mut sink)
            .is_ok_and(|read| !sink[..read].contains(&b'!'))
        {}
    });
    wait_until("the event is done", || db.count("done") == 1);
    std::fs::write(&orders, "!").unwrap();
    drain.join().unwrap();
}

#[test]
fn config_check_shows_the_routes_that_a_program_brings_along() {
    let directory = TestDir::new();
    let check = Command::new(example("own_handler"))
        .args(["config", "check", "--dsn=host=x"])
        .env("ORDERS_FILE", directory.file("orders"))
        .output()
        .unwrap();

    let shown = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success(), "{shown}");
    let routes: Vec<Vec<&str>> = shown
        .lines()
        .filter(|line| line.starts_with("route "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(routes.len(), 1, "{shown}");
    assert!(routes[0][1].starts_with("order."), "{shown}");
    assert_eq!(routes[0].last(), Some(&"program"), "{shown}");
}
