//! The metrics say what has happened, and never take it back.

mod exposition;
mod text;

use rustix::process::Signal;

use crate::support::{Daemon, Recorder, TestDb, signal_pid, wait_until};

#[test]
fn known_work_gives_known_values() {
    let db = TestDb::new();
    db.insert_events("order.created", 20);
    db.insert_events("mail.sent", 3);
    db.insert_events("unknown.type", 1);
    let refusing = Recorder::exiting(65);

    let daemon = Daemon::new(&db)
        .route("order.*=log")
        .route(refusing.route("mail.*"))
        .args(["--max-attempts", "1", "--processes", "2"])
        .start();
    wait_until("everything is settled", || {
        db.count("done") == 20 && db.count("dead") == 4
    });

    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        let name = format!("dispatchbox_{name}");
        wait_until(&format!("{name}{labels:?} is {value}"), || {
            daemon.metric(&name, labels) == Some(value)
        });
    };
    is("events_claimed_total", &[], 24.0);
    is(
        "events_settled_total",
        &[("outcome", "done"), ("event_type", "order.*")],
        20.0,
    );
    is(
        "events_settled_total",
        &[("outcome", "dead"), ("event_type", "mail.*")],
        3.0,
    );
    is(
        "events_settled_total",
        &[("outcome", "dead"), ("event_type", "other")],
        1.0,
    );
    is("events_settled_total", &[("outcome", "released")], 0.0);
    is("dead_events_total", &[("event_type", "mail.*")], 3.0);
    is(
        "handler_duration_seconds_count",
        &[("event_type", "order.*"), ("outcome", "done")],
        20.0,
    );
    is("delivery_latency_seconds_count", &[], 20.0);
    is("event_attempts_before_dead_sum", &[], 4.0);
    is("claim_batch_size_sum", &[], 24.0);
    is("events_in_flight", &[], 0.0);
    is("leases_lost_total", &[], 0.0);
    is("worker_up", &[], 2.0);
    is("worker_restarts_total", &[], 0.0);
    is("db_connected", &[], 1.0);
    is("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
}

#[test]
fn counters_survive_their_worker() {
    let db = TestDb::new();
    db.insert_events("order.created", 50);
    let daemon = Daemon::new(&db).route("*=log").start();
    let worker = daemon.wait_workers(1)[0];
    wait_until("it has counted", || {
        daemon.metric("dispatchbox_events_claimed_total", &[]) == Some(50.0)
    });

    signal_pid(worker, Signal::KILL);
    wait_until("another one runs", || {
        daemon.worker_pids().iter().any(|&pid| pid != worker)
    });
    assert_eq!(
        daemon.metric("dispatchbox_events_claimed_total", &[]),
        Some(50.0)
    );
    db.insert_events("order.created", 5);

    wait_until("it goes on", || {
        daemon.metric("dispatchbox_events_claimed_total", &[]) == Some(55.0)
    });
}

#[test]
fn an_event_from_the_far_past_does_not_hide_the_others_in_the_sum_of_latencies() {
    let db = TestDb::with_events(1);
    db.execute("UPDATE outbox_event SET created_at = '0044-03-15 BC'");
    let daemon = Daemon::new(&db).route("*=log").start();
    let latency =
        |what| daemon.metric(&format!("dispatchbox_delivery_latency_seconds_{what}"), &[]);
    wait_until("it is counted", || latency("count") == Some(1.0));

    let years = latency("sum").unwrap() / (366.0 * 86400.0);

    assert!((10.0..10.01).contains(&years), "{years}");
}
