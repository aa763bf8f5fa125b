//! Several daemons on one database or in one directory, and their restarts.

use std::time::Duration;

use super::{assert_done_at_first_attempt, wait_runs};
use crate::support::{
    Daemon, Receiver, Recorder, RunningDaemon, TestDb, TestDir, n_events, wait_until,
};

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
    for turn in 0..10 {
        let daemon = &mut daemons[turn % 2];
        daemon.wait_ready();
        // New work in each turn, so that every restart meets some, however long the ones before it took.
        let n_runs = receiver.history().len();
        ids.extend(db.insert_events("order.created", n_events(4000) / 10));
        wait_runs(n_runs + 20, || receiver.history());
        assert_eq!(daemon.terminate(), 0, "turn {turn}: {}", daemon.log());
        assert!(daemon.processes().is_empty());
        *daemon = start();
    }

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    receiver.history().assert_complete(ids, 0);
}

/// Goal: a second daemon in the same directory takes none of the first one's files for those of a dead worker.
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
    wait_until("the first one's handlers run", || {
        recorder.history().len() == 4
    });
    daemons.push(start());
    wait_until("the second one's handlers run", || {
        recorder.history().len() == 8
    });
    recorder.open_gate();

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    recorder.history().assert_complete(ids, 0);
    assert!(runtime.entries().is_empty(), "{:?}", runtime.entries());
    for daemon in &daemons {
        assert!(!daemon.log().contains("of an earlier daemon was killed"));
    }
}
