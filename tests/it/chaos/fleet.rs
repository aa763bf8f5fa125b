//! Several daemons on one database or in one directory, and their restarts.

use super::{assert_done_at_first_attempt, wait_runs};
use crate::support::{
    Daemon, Receiver, Recorder, RunningDaemon, TestDb, TestDir, n_events, wait_until,
};
use std::time::Duration;

/// Restarts of an upgrade after the other, under load.
const RESTARTS: usize = 20;

/// Goal: an upgrade, which is one restart of every daemon after the other, is no fault at all.
#[test]
fn daemons_that_are_restarted_under_load_run_no_event_twice() {
    let db = TestDb::new();
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(8));
    let start = || {
        Daemon::new(&db)
            .route(receiver.route("*"))
            .args(["--processes", "2", "--max-parallel", "4"])
            .start()
    };
    let mut daemons = [start(), start()];

    let mut ids = Vec::new();
    for turn in 0..RESTARTS {
        let daemon = &mut daemons[turn % 2];
        daemon.wait_ready();
        // New work in each turn, so that every restart meets some, however long the ones before it
        // took.
        let n_runs = receiver.history().len();
        let n_new = n_events(4000) / u32::try_from(RESTARTS).unwrap();
        ids.extend(db.insert_events("order.created", n_new));
        wait_runs(n_runs + 20, || receiver.history());
        assert_eq!(daemon.terminate(), 0, "turn {turn}: {}", daemon.log());
        assert!(daemon.processes().is_empty());
        *daemon = start();
    }

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    receiver.history().assert_complete(ids, 0);
}

/// Goal: a second daemon in the same directory takes none of the first one's files for those of a
/// dead worker.
#[test]
fn daemons_may_share_a_runtime_directory() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 40);
    let runtime = TestDir::new();
    let recorder = Recorder::new().gated();
    let start = || -> RunningDaemon {
        Daemon::new(&db)
            .route(recorder.route("*"))
            .args(["--processes", "2", "--max-parallel", "2"])
            .env("RUNTIME_DIRECTORY", runtime.path())
            .start()
    };

    let mut daemons = vec![start()];
    recorder.wait_runs(4);
    daemons.push(start());
    recorder.wait_runs(8);
    recorder.open_gate();

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    recorder.history().assert_complete(ids, 0);
    assert!(runtime.entries().is_empty(), "{:?}", runtime.entries());
    for daemon in &daemons {
        assert!(!daemon.log().contains("ending what it left"));
    }
}

/// Goal: what a daemon left that was killed with its workers is recovered by another one that runs
/// on, not only by the next that starts.
#[test]
fn a_daemon_recovers_what_another_one_left_that_was_killed_with_its_workers() {
    let db = TestDb::new();
    let runtime = TestDir::new();
    let recorder = Recorder::new().gated();
    let start = || -> RunningDaemon {
        Daemon::new(&db)
            .route(recorder.route("*"))
            .args(["--max-parallel", "2", "--lease-seconds", "3600"])
            .args(["--retry-backoff-seconds", "3600"])
            .env("RUNTIME_DIRECTORY", runtime.path())
            .start()
    };
    let mut survivor = start();
    survivor.wait_ready();
    let mut killed = start();
    killed.wait_ready();
    let ids = db.insert_events("order.created", 12);
    recorder.wait_runs(4);

    killed.kill_tree();
    let charged = "select count(*) from outbox_event where status = 'retry' and attempts = 1 and next_run_at > now()";
    wait_until("what was in hand is charged", || {
        db.number(charged, &[]) == 2
    });
    recorder.open_gate();
    wait_until("all the others are done", || db.count("done") == 10);

    recorder.history().assert_complete(ids, 0);
    assert_eq!(survivor.terminate(), 0, "{}", survivor.log());
    assert_eq!(db.leases(), 0);
    assert!(runtime.entries().is_empty(), "{:?}", runtime.entries());
}
