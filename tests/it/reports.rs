//! What workers report reaches the metrics, whatever handlers print and however late it is read.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Daemon, Recorder, TestDb, outlast, process, signal_pid, wait_until};

/// The standard output of the worker that runs a program.
const WORKERS_OUTPUT: &str = "/proc/$PPID/fd/1";

/// Goal: what a handler prints without ending the line is no part of the report that comes next.
/// Method: it is printed when only the last report is still to come, which no other would make up
/// for.
#[test]
fn what_a_handler_prints_spoils_no_report() {
    let db = TestDb::new();
    db.insert_events("order.created", 1);
    let gate = Recorder::new().gated();
    let recorder = Recorder::new().then(&format!(
        "DISPATCHBOX_EVENT_ID=1 {}; printf printed >{WORKERS_OUTPUT}",
        gate.program()
    ));
    let daemon = Daemon::new(&db).route(recorder.route("*")).start();
    let worker = daemon.wait_workers(1)[0];
    gate.wait_runs(1);

    signal_pid(worker, Signal::TERM);
    daemon.wait_log("draining");
    gate.open_gate();

    wait_until("another worker is there", || {
        daemon.metric("dispatchbox_worker_restarts_total", &[]) == Some(1.0)
    });
    assert_eq!(n_done(&daemon), Some(1.0), "{}", daemon.log());
}

#[test]
fn a_handler_that_floods_standard_output_stops_nothing() {
    let db = TestDb::new();
    db.insert_events("loud.one", 3);
    let recorder = Recorder::new().then(&format!("head -c 20000000 /dev/zero >{WORKERS_OUTPUT}"));

    let mut daemon = Daemon::new(&db)
        .route(recorder.route("loud.*"))
        .route("*=log")
        .start();
    wait_until("the loud events are done", || db.count("done") == 3);
    db.insert_events("order.created", 2);

    wait_until("all are counted", || n_done(&daemon) == Some(5.0));
    assert_eq!(daemon.log().matches("is no report").count(), 1);
    assert_eq!(
        daemon.metric("dispatchbox_worker_restarts_total", &[]),
        Some(0.0)
    );
    assert_eq!(daemon.terminate(), 0);
}

/// Goal: what a worker has counted is not lost because its end is seen before its last report is
/// read. Method: the supervisor is stopped meanwhile, and finds the ends and the reports of several
/// workers at once.
#[test]
fn the_last_report_of_a_worker_counts_even_when_its_end_is_seen_first() {
    const N_WORKERS: usize = 6;
    let db = TestDb::new();
    let recorder = Recorder::new().gated();
    let daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--processes", &N_WORKERS.to_string()])
        .args(["--max-parallel", "1"])
        .start();
    let workers = daemon.wait_workers(N_WORKERS);
    let ids = db.insert_events("order.created", u32::try_from(N_WORKERS).unwrap());
    recorder.wait_runs(N_WORKERS);

    daemon.signal(Signal::STOP);
    let stopped = Instant::now();
    for &worker in &workers {
        signal_pid(worker, Signal::TERM);
    }
    recorder.open_gate();
    wait_until("the workers have ended", || {
        !workers.iter().any(|&worker| process::is_alive(worker))
    });
    assert_eq!(db.count("done"), i64::try_from(ids.len()).unwrap());
    outlast(
        stopped,
        Duration::from_millis(500),
        "its look at the workers is overdue",
    );
    daemon.signal(Signal::CONT);

    wait_until("others are there", || {
        daemon.metric("dispatchbox_worker_restarts_total", &[]) == Some(6.0)
    });
    assert_eq!(n_done(&daemon), Some(6.0), "{}", daemon.log());
}

fn n_done(daemon: &crate::support::RunningDaemon) -> Option<f64> {
    daemon.metric("dispatchbox_events_settled_total", &[("outcome", "done")])
}
