//! The text: its form by our own strict reader and by Prometheus' tool, and that its numbers fit
//! together.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::exposition::Exposition;
use crate::support::{Daemon, Recorder, RunningDaemon, TestDb, signal_pid, wait_until};

/// Scrapes and reads; the text comes back with it.
#[track_caller]
fn scrape(daemon: &RunningDaemon) -> (String, Exposition) {
    let (status, text) = daemon.get("/metrics");
    assert_eq!(status, 200, "{text}");
    let exposition = Exposition::parse(&text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    (text, exposition)
}

/// A daemon that has met every outcome and goes on delivering.
fn busy(db: &TestDb, refusing: &Recorder) -> RunningDaemon {
    db.insert_events("order.created", 3000);
    db.insert_events("mail.sent", 2);
    db.insert_events("unknown.type", 2);
    let daemon = Daemon::new(db)
        .route("order.*=log")
        .route(refusing.route("mail.*"))
        .route("we\"ird\\type=log")
        .args(["--processes", "2", "--retry-backoff-seconds", "3600"])
        .start();
    wait_until("the table is surveyed and all is settled", || {
        daemon.metric("dispatchbox_backlog_events", &[]).is_some() && db.count("done") == 3000
    });
    daemon
}

#[test]
fn the_text_keeps_every_rule_of_its_format_while_events_flow() {
    let db = TestDb::new();
    let refusing = Recorder::exiting(65);
    let daemon = busy(&db, &refusing);

    for _ in 0..20 {
        db.insert_events("order.created", 200);
        let (_, exposition) = scrape(&daemon);
        let families = exposition.families.keys();
        assert!(families.len() >= 25, "{families:?}");
        let bounded = exposition
            .samples()
            .filter_map(|(_, labels, _)| labels.get("event_type"))
            .all(|label| ["order.*", "mail.*", "we\"ird\\type", "other"].contains(&label.as_str()));
        assert!(bounded, "an event type that is no route");
    }
    let (text, exposition) = scrape(&daemon);
    assert!(text.contains(r#"event_type="we\"ird\\type""#), "{text}");
    for (name, family) in &exposition.families {
        if name.starts_with("dispatchbox_") {
            assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        }
    }
}

#[test]
fn promtool_has_nothing_to_complain_of() {
    let db = TestDb::new();
    let refusing = Recorder::exiting(65);
    let (text, _) = scrape(&busy(&db, &refusing));

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(
            "promtool is missing: run scripts/install-test-tools, or `apt-get install prometheus`",
        );
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let said = promtool.wait_with_output().unwrap();

    let complaints = String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success() && complaints.is_empty(),
        "{complaints}"
    );
}

#[test]
fn numbers_of_different_metrics_fit_together() {
    let db = TestDb::new();
    let refusing = Recorder::exiting(65);
    let daemon = busy(&db, &refusing);
    let outcome = |exposition: &Exposition, outcome| {
        exposition.count("dispatchbox_events_settled_total", &[("outcome", outcome)])
    };
    // A worker reports once a second.
    wait_until("the last report is in", || {
        let (_, exposition) = scrape(&daemon);
        ["done", "retry", "dead"].map(|name| outcome(&exposition, name)) == [3000, 2, 2]
            && exposition.count("dispatchbox_events_in_flight", &[]) == 0
    });

    let (text, exposition) = scrape(&daemon);
    let count = |name: &str| exposition.count(&format!("dispatchbox_{name}"), &[]);
    let check = |name: &str, expected: i64| assert_eq!(count(name), expected, "{name} in\n{text}");
    let released = outcome(&exposition, "released");
    check("events_settled_total", 3004 + released);
    check("events_claimed_total", 3004 + released);
    check("claim_batch_size_sum", 3004 + released);
    // What no route takes runs no handler.
    check("handler_duration_seconds_count", 3002);
    check("delivery_latency_seconds_count", 3000);
    check("dead_events_total", 2);
    check("event_attempts_before_dead_count", 2);
    check("event_attempts_before_dead_sum", 2);
    check("db_errors_total", 0);
    let calls = |call| {
        let labels = [("call", call)];
        exposition.count("dispatchbox_db_call_duration_seconds_count", &labels)
    };
    let claims = count("claim_batch_size_count");
    assert!(calls("claim") >= claims && claims >= 4, "{text}");
    assert!(calls("settle") >= 1, "{text}");
    for worker in ["00", "01"] {
        let labels = [("worker", worker)];
        let bytes = exposition.sum("dispatchbox_worker_resident_memory_bytes", &labels);
        assert!((1e6..1e9).contains(&bytes), "{bytes}");
        let seconds = exposition.sum("dispatchbox_worker_cpu_seconds_total", &labels);
        assert!((0.0..100.0).contains(&seconds), "{seconds}");
    }
}

/// Goal: no counter runs backwards, and no series of one goes away, while workers are killed at any
/// moment. Method: scrapes without a pause around each kill, under load.
#[test]
fn counters_never_run_backwards_while_workers_are_killed_under_load() {
    let db = TestDb::with_events(2000);
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--processes", "2"])
        .start();
    let mut before = scrape(&daemon).1.growing();
    for kill in 0..4 {
        db.insert_events("order.created", 2000);
        let victim = daemon.wait_workers(2)[kill % 2];
        signal_pid(victim, Signal::KILL);
        wait_until("another worker has reported", || {
            let (text, exposition) = scrape(&daemon);
            let now = exposition.growing();
            for (series, value) in &before {
                let after = now.get(series).copied();
                assert!(
                    after >= Some(*value),
                    "{series:?}: {value} {after:?}\n{text}"
                );
            }
            before = now;
            let workers = daemon.worker_pids();
            workers.len() == 2
                && !workers.contains(&victim)
                && exposition.count("dispatchbox_worker_up", &[]) == 2
        });
    }
    assert_eq!(
        daemon.metric("dispatchbox_worker_restarts_total", &[]),
        Some(4.0)
    );
}

/// A poisonous event ends no handler, and its worker cannot count it any more.
#[test]
fn an_event_that_becomes_dead_by_the_death_of_its_worker_is_counted_and_told() {
    let db = TestDb::with_events(1);
    let recorder = Recorder::new().gated();
    let daemon = Daemon::new(&db)
        .route(recorder.route("order.*"))
        .args(["--max-attempts", "1"])
        .start();
    recorder.wait_runs(1);

    signal_pid(daemon.wait_workers(1)[0], Signal::KILL);
    wait_until("the event is dead", || db.count("dead") == 1);

    wait_until("the sweep is over", || {
        daemon.metric("dispatchbox_lease_sweeps_total", &[]) == Some(1.0)
    });
    let (text, exposition) = scrape(&daemon);
    let count = |name: &str, labels: &[(&str, &str)]| {
        exposition.count(&format!("dispatchbox_{name}"), labels)
    };
    let route = ("event_type", "order.*");
    assert_eq!(count("dead_events_total", &[route]), 1, "{text}");
    let dead = [("outcome", "dead"), route];
    assert_eq!(count("events_settled_total", &dead), 1, "{text}");
    assert_eq!(count("event_attempts_before_dead_sum", &[]), 1, "{text}");
    assert!(
        daemon
            .log()
            .contains("event 1 is dead after 1 attempt: worker ")
    );
}
