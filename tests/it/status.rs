//! /api/status tells how the daemon, its workers and its work stand.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Daemon, Recorder, RunningDaemon, TestDb, cluster, signal_pid, wait_until};

#[track_caller]
fn status(daemon: &RunningDaemon) -> Value {
    let (code, body) = daemon.get("/api/status");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn known_work_gives_known_numbers() {
    let db = TestDb::new();
    db.insert_events("order.created", 20);
    db.insert_events("mail.sent", 3);
    let refusing = Recorder::exiting(65);
    let gated = Recorder::new().gated();
    let daemon = Daemon::new(&db)
        .route("order.*=log")
        .route(refusing.route("mail.*"))
        .route(gated.route("slow.*"))
        .args(["--processes", "2"])
        .start();
    wait_until("everything is settled", || {
        db.count("done") == 20 && db.count("dead") == 3
    });
    db.insert_events("slow.one", 2);
    gated.wait_runs(2);

    wait_until("the totals are told", || {
        let totals = &status(&daemon)["totals"];
        totals["claimed"] == 25 && totals["done"] == 20 && totals["dead"] == 3
    });
    wait_until("what runs is told", || status(&daemon)["in_flight"] == 2);
    wait_until("a step of the history is told", || {
        status(&daemon)["history"]
            .as_array()
            .is_some_and(|steps| !steps.is_empty())
    });

    let status = status(&daemon);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["phase"], "running");
    assert_eq!(status["ready"], true);
    assert_eq!(status["reason"], Value::Null);
    let names: Vec<&Value> = (0..2)
        .map(|slot| &status["workers"][slot]["name"])
        .collect();
    assert_eq!(names, ["worker-00", "worker-01"]);
    let pids = daemon.worker_pids();
    for worker in status["workers"].as_array().unwrap() {
        assert_eq!(worker["state"], "running");
        assert_eq!(worker["restarts"], 0);
        assert_eq!(worker["stuck"], 0);
        assert_eq!(worker["db_connected"], true);
        assert_eq!(worker["trouble"], Value::Null);
        assert!(pids.iter().any(|pid| worker["pid"] == *pid), "{worker}");
        assert!(worker["report_age_seconds"].as_f64().unwrap() < 10.0);
        assert!(worker["uptime_seconds"].as_f64().unwrap() > 0.0);
    }
    let step = &status["history"][0];
    for key in [
        "claimed",
        "done",
        "retry",
        "dead",
        "age_seconds",
        "in_flight",
    ] {
        assert!(step[key].is_number(), "{key} in {step}");
    }
    gated.open_gate();
}

/// Goal: a worker that died leaves its count of restarts; one that leaves says so.
#[test]
fn workers_that_come_and_go_are_told() {
    let db = TestDb::new();
    let recorder = Recorder::new().gated();
    let mut daemon = Daemon::new(&db).route(recorder.route("*")).start();
    let killed = daemon.wait_workers(1)[0];
    wait_until("it runs", || {
        status(&daemon)["workers"][0]["state"] == "running"
    });

    signal_pid(killed, Signal::KILL);
    wait_until("another one runs", || {
        let worker = &status(&daemon)["workers"][0];
        worker["state"] == "running" && worker["restarts"] == 1 && worker["pid"] != killed
    });
    db.insert_events("order.created", 1);
    recorder.wait_runs(1);
    daemon.signal(Signal::TERM);
    wait_until("it is draining", || {
        let status = status(&daemon);
        status["phase"] == "draining"
            && status["reason"] == "draining"
            && status["workers"][0]["state"] == "draining"
    });
    recorder.open_gate();
    daemon.assert_exits(0);
}

/// Goal: the status is there when it is needed most, and says what is wrong.
#[test]
fn a_database_that_is_away_is_told_without_waiting_for_it() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    server
        .stop(dispatchbox::dev::cluster::StopMode::Immediate)
        .unwrap();

    wait_until("the status says so", || {
        let status = status(&daemon);
        status["ready"] == false
            && status["reason"] == "database not connected"
            && status["workers"][0]["db_connected"] == false
    });
    server.start_again().unwrap();
    wait_until("it is over", || {
        let status = status(&daemon);
        status["ready"] == true && status["workers"][0]["trouble"] == Value::Null
    });
}
