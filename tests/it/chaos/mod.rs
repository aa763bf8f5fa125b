//! Things that break while work flows: the server, the network, the workers, the rows.
//!
//! Each test lets real daemons work on a real server, breaks something, mends it, and then holds
//! the whole run to the same laws: no event is lost, none is handed out twice without a reason,
//! attempts are what was run, no lease and no process is left, and the daemon leaves with 0. Runs
//! that are killed have their own bounds, and say them. `faults` is the list of all faults,
//! wherever their tests stand.

/// Clocks that jump.
mod clocks;
/// Connections that the server ends, or has none left of.
mod connections;
/// A server whose disk is full.
mod disk;
/// The table of all faults, with the tests that show what comes of each.
mod faults;
/// Several daemons on one database or in one directory, and their restarts.
mod fleet;
/// Leases that run out while their worker is alive, stopped, or cut off.
mod leases;
/// Locks that somebody else holds.
mod locks;
/// Answers that are lost, and a server that goes silent.
mod network;
/// Processes that cannot be started, end themselves, or whose program is replaced.
mod processes;
/// Rows that a person removes or changes while they are handled.
mod rows;
/// The server restarts, or is away.
mod server;
/// Workers that are killed again and again.
mod workers;

use crate::support::{History, RunningDaemon, TestDb, wait_until};

/// Waits until all events are done, and each was done at its first attempt; then checks what must
/// hold after every run.
#[track_caller]
fn assert_done_at_first_attempt<'a>(
    db: &TestDb,
    daemons: impl IntoIterator<Item = &'a mut RunningDaemon>,
    ids: &[i64],
) {
    wait_all_done(db, ids);
    let more = "select count(*) from outbox_event where attempts <> 1";
    assert_eq!(db.number(more, &[]), 0, "events with more than one attempt");
    let daemons: Vec<&mut RunningDaemon> = daemons.into_iter().collect();
    for daemon in &daemons {
        assert_eq!(n_restarts(daemon), Some(0.0), "{}", daemon.log());
    }
    assert_all_left(db, daemons);
}

#[track_caller]
fn wait_all_done(db: &TestDb, ids: &[i64]) {
    let n = i64::try_from(ids.len()).unwrap();
    wait_until("all events are done", || db.count("done") == n);
}

/// Every daemon is ready and then leaves with 0, and no lease, process or file is left.
#[track_caller]
fn assert_all_left<'a>(db: &TestDb, daemons: impl IntoIterator<Item = &'a mut RunningDaemon>) {
    for daemon in daemons {
        daemon.wait_ready();
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert!(daemon.processes().is_empty(), "{:?}", daemon.processes());
        daemon.assert_no_files();
    }
    assert_eq!(db.leases(), 0);
}

/// The daemon has heard of every outcome what became of it: none was taken for lost, or for written
/// by somebody else.
#[track_caller]
fn assert_no_outcome_missed(daemon: &RunningDaemon) {
    for metric in [
        "dispatchbox_leases_lost_total",
        "dispatchbox_events_missing_total",
    ] {
        assert_eq!(
            daemon.metric(metric, &[]),
            Some(0.0),
            "{metric}\n{}",
            daemon.log()
        );
    }
}

/// Waits until handlers have begun this many runs.
#[track_caller]
fn wait_runs(n: usize, history: impl Fn() -> History) {
    wait_until(&format!("{n} runs have begun"), || history().len() >= n);
}

/// Lines of the daemon's log that hold this text.
fn lines_with(daemon: &RunningDaemon, text: &str) -> usize {
    daemon
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

/// Waits until the daemon says that the database is not there, while it stays up itself.
#[track_caller]
fn assert_up_and_not_ready(daemon: &RunningDaemon) {
    wait_until("it is not ready", || daemon.get("/ready").0 == 503);
    assert!(
        daemon.get("/ready").1.contains("database not connected"),
        "{:?}",
        daemon.get("/ready")
    );
    assert_eq!(daemon.get("/health").0, 200);
}

/// How many workers were started in place of others.
#[track_caller]
fn n_restarts(daemon: &RunningDaemon) -> Option<f64> {
    daemon.metric("dispatchbox_worker_restarts_total", &[])
}
