//! Workers that are killed again and again.

use std::time::{Duration, Instant};

use dispatchbox::dev::cluster::StopMode;
use rustix::process::Signal;

use super::{assert_all_left, assert_done_at_first_attempt, wait_all_done, wait_runs};
use crate::support::{
    Daemon, Proxy, Receiver, Recorder, TestDb, TestDir, cluster, n_events, outlast, signal_pid,
    wait_until,
};

/// Runners of each worker.
const RUNNERS: usize = 4;

/// Finished and not yet settled, at most.
const UNSETTLED: usize = 500;

/// Goal: however often workers are killed, every event is done, none is dead, and only what was in
/// hand runs again. Method: one of four workers of two daemons is killed at every few hundred runs,
/// each in turn.
#[test]
fn workers_that_are_killed_again_and_again_lose_no_event_and_bury_none() {
    let db = TestDb::new();
    let n = n_events(5000);
    let ids = db.insert_events("order.created", n);
    let step = ids.len() * 6 / 100;
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(8));
    let start = || {
        Daemon::new(&db)
            .route(receiver.route("*"))
            .args(["--processes", "2", "--retry-backoff-seconds", "0.05"])
            .args(["--max-parallel", &RUNNERS.to_string()])
            .start()
    };
    let mut daemons = [start(), start()];
    let n_kills = 10;

    for turn in 0..n_kills {
        wait_runs(150 + turn * step, || receiver.history());
        let daemon = &daemons[turn % 2];
        wait_until("a worker runs", || !daemon.worker_pids().is_empty());
        let workers = daemon.worker_pids();
        signal_pid(workers[turn / 2 % workers.len()], Signal::KILL);
    }
    wait_all_done(&db, &ids);

    // Each kill charges and repeats what was in hand, and repeats what was finished and not
    // settled.
    receiver
        .history()
        .assert_complete(ids.iter().copied(), n_kills * (RUNNERS + UNSETTLED));
    let extra = "select sum(attempts - 1)::bigint from outbox_event";
    let n_charged = usize::try_from(db.number(extra, &[])).unwrap();
    assert!(
        n_charged <= n_kills * RUNNERS,
        "{n_charged} attempts were charged for {n_kills} kills of {RUNNERS} runners"
    );
    assert_all_left(&db, &mut daemons);
    let n_repeated = receiver.history().duplicates();
    eprintln!("{n} events, {n_kills} kills: {n_repeated} repeated, {n_charged} charged");
}

/// Goal: what a worker had in hand that died during an outage is charged, and its neighbours are
/// released, when the server is back.
#[test]
fn a_worker_killed_while_the_server_is_away_is_swept_when_it_is_back() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let ids = db.insert_events("order.created", 40);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--max-parallel", "3", "--retry-backoff-seconds", "0.05"])
        .start_gated(3);
    let worker = daemon.wait_workers(1)[0];
    let in_hand: Vec<i64> = recorder.history().counts().into_keys().collect();

    server.stop(StopMode::Immediate).unwrap();
    signal_pid(worker, Signal::KILL);
    daemon.wait_log("could not sweep the leases");
    recorder.open_gate();
    server.start_again().unwrap();
    wait_all_done(&db, &ids);

    let attempts = "select attempts::bigint from outbox_event where id = $1";
    for &id in &ids {
        let n_runs = if in_hand.contains(&id) { 2 } else { 1 };
        assert_eq!(db.number(attempts, &[&id]), n_runs, "event {id}");
        assert_eq!(
            recorder.history().count(id),
            usize::try_from(n_runs).unwrap()
        );
    }
    assert!(daemon.log().lines().count() < 20, "{}", daemon.log());
    assert_all_left(&db, [&mut daemon]);
}

/// Goal: a claim that the back end of a dead worker still commits is found, and its events do not
/// wait for the end of the lease. Method: the worker is killed while its claim waits for a lock on
/// the table.
#[test]
fn a_claim_that_a_dead_workers_back_end_commits_late_is_released() {
    let db = TestDb::new();
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--poll-interval", "0.05", "--lease-seconds", "3600"])
        .args(["--query-timeout", "600"])
        .start();
    daemon.wait_ready();
    let worker = daemon.wait_workers(1)[0];
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_event in access exclusive mode")
        .unwrap();
    lock.batch_execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
         select 'order', i::text, 'order.created', '{}' from generate_series(1, 5) i",
    )
    .unwrap();

    wait_until("a claim waits for the lock", || claims_waiting(&db) == 1);
    signal_pid(worker, Signal::KILL);
    // It has found nothing yet, and a successor that could take the events instead hardly runs yet.
    wait_until("the sweeper has looked, and stays", || {
        sweepers_idle(&db) == 1
    });
    assert!(claims_waiting(&db) >= 1);
    lock.commit().unwrap();

    let ids: Vec<i64> = (1..=5).collect();
    wait_all_done(&db, &ids);
    let more = "select count(*) from outbox_event where attempts <> 1";
    assert_eq!(db.number(more, &[]), 0);
    recorder.history().assert_complete(ids, 0);
    assert_all_left(&db, [&mut daemon]);
}

/// Goal: a claim that the server still commits after its worker has drained is found by the next
/// daemon; its events do not wait for the end of the lease. Method: a claim hangs in the server
/// while its connection is cut and the daemon is told to leave.
#[test]
fn a_claim_that_is_committed_after_a_clean_drain_is_released_by_the_next_daemon() {
    let db = TestDb::new();
    db.wrap_claims("perform pg_advisory_xact_lock(1);");
    let ids = db.insert_events("order.created", 5);
    let (proxy, runtime, recorder) = (Proxy::to(&db), TestDir::new(), Recorder::new());
    let start = || {
        Daemon::new(&db)
            .dsn(proxy.dsn(&db))
            .route(recorder.route("*"))
            .args(["--lease-seconds", "3600", "--query-timeout", "600"])
            .env("RUNTIME_DIRECTORY", runtime.path())
            .start()
    };
    let mut other = db.client();
    other.batch_execute("select pg_advisory_lock(1)").unwrap();

    let mut first = start();
    wait_until("a claim hangs", || claims_waiting(&db) == 1);
    proxy.refuse();
    proxy.cut_all();
    first.wait_log("database is away");
    first.signal(Signal::TERM);
    wait_until("it is draining", || {
        first.get("/ready").1.contains("draining")
    });
    proxy.heal();
    first.assert_exits(0);
    assert_eq!(db.leases(), 0);
    drop(other);
    wait_until("the claim is committed", || db.leases() == 1);

    let mut second = start();
    assert_done_at_first_attempt(&db, [&mut second], &ids);
    recorder.history().assert_complete(ids, 0);
    assert!(runtime.entries().is_empty(), "{:?}", runtime.entries());
}

/// Sweepers that have a connection, and nothing to do on it after a look at the leases of a dead
/// worker.
fn sweepers_idle(db: &TestDb) -> i64 {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle' \
               and application_name = 'dispatchbox sweeper' and query like '%outbox_leases%'";
    db.number(sql, &[])
}

fn claims_waiting(db: &TestDb) -> i64 {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
               and query like '%outbox_claim%' and pid <> pg_backend_pid()";
    db.number(sql, &[])
}

/// Goal: a supervisor that was stopped for a while, by Ctrl-Z for example, does not take its
/// workers for wedged.
#[test]
fn a_supervisor_that_was_stopped_leaves_its_workers_alone() {
    let db = TestDb::new();
    let recorder = Recorder::new().gated();
    let ids = db.insert_events("order.created", 4);
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--query-timeout", "0.5", "--connect-timeout", "0.5"])
        // The more there are, the surer one of them looks silent before its reports are read.
        .args(["--processes", "4"])
        .start();
    let workers = daemon.wait_workers(4);
    recorder.wait_runs(4);

    daemon.signal(Signal::STOP);
    let stopped = Instant::now();
    outlast(
        stopped,
        Duration::from_secs(7),
        "it was stopped for longer than a wedged worker may be silent",
    );
    daemon.signal(Signal::CONT);
    wait_until("it answers again", || daemon.get("/health").0 == 200);
    recorder.open_gate();

    assert_eq!(daemon.wait_workers(4), workers);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
}
