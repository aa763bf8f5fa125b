//! The server restarts, or is away.

use std::time::{Duration, Instant};

use dispatchbox::dev::cluster::StopMode;

use super::{
    assert_done_at_first_attempt, assert_no_outcome_missed, assert_up_and_not_ready, lines_with,
    wait_all_done, wait_runs,
};
use crate::support::{
    Daemon, Front, Receiver, Recorder, RunningDaemon, TestDb, cluster, outlast, process, wait_until,
};

/// Goal: a restart, orderly or as after a power failure, costs no run and loses none, and every
/// worker tells it once. Method: restarts while posts are under way; the receiver's history against
/// the table.
#[test]
fn a_server_that_restarts_under_load_costs_no_event_and_no_second_run() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let ids = db.insert_events("order.created", 2000);
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(8));
    let mut daemon = Daemon::new(&db)
        .route(receiver.route("*"))
        .args(["--processes", "2", "--max-parallel", "5"])
        .start();

    for (n_runs, mode) in [
        (100, StopMode::Immediate),
        (500, StopMode::Fast),
        (900, StopMode::Immediate),
    ] {
        wait_runs(n_runs, || receiver.history());
        server.restart(mode).unwrap();
    }

    wait_all_done(&db, &ids);
    assert_no_outcome_missed(&daemon);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    receiver.history().assert_complete(ids, 0);
    for worker in ["worker-00-pid", "worker-01-pid"] {
        let n_told = daemon
            .log()
            .lines()
            .filter(|line| line.contains(worker) && line.contains("database is away"))
            .count();
        assert!(
            n_told <= 3,
            "{n_told} warnings of {worker} about 3 outages\n{}",
            daemon.log()
        );
    }
}

/// Goal: a claim whose commit hangs for longer than its lease, and appears then, is given back by
/// its worker: its events never ran. Method: the synchronous standby is one that does not exist.
#[test]
fn a_claim_whose_commit_hangs_for_long_charges_no_event() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--query-timeout", "1", "--lease-seconds", "2"])
        .start();
    daemon.wait_ready();
    db.execute("alter system set synchronous_standby_names = 'none'");
    db.execute("select pg_reload_conf()");
    let mut client = db.client();
    client
        .batch_execute("set synchronous_commit = local")
        .unwrap();
    let hanging = |seconds: i64| {
        let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and now() - query_start > make_interval(secs => $1::int8)";
        db.number(sql, &[&seconds])
    };
    let insert = "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
                  select 'order', i::text, 'order.created', '{}' from generate_series(1, 5) i returning id";
    let ids: Vec<i64> = client
        .query(insert, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();

    // Longer than the lease and all that a lost answer is waited for otherwise.
    wait_until("a commit has hung for long", || hanging(12) > 0);
    db.execute("alter system reset synchronous_standby_names");
    db.execute("select pg_reload_conf()");

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
}

/// Goal: what handlers finish while the server is away is kept and settled later; nobody asks in a
/// busy loop meanwhile, and the log is told when it begins and when it ends.
#[test]
fn handlers_that_finish_while_the_server_is_away_are_settled_when_it_is_back() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let recorder = Recorder::new().gated();
    let mut daemon = Daemon::new(&db)
        .route("warm.*=log")
        .route(recorder.route("*"))
        .start();
    let worker = daemon.wait_workers(1)[0];
    // Now fetcher and settler have their connections.
    let mut ids = db.insert_events("warm.up", 1);
    wait_until("the first event is done", || db.count("done") == 1);
    ids.extend(db.insert_events("order.created", 20));
    recorder.wait_runs(10);
    let counted =
        |daemon: &RunningDaemon, name, labels: &[_]| daemon.metric(name, labels).unwrap_or(0.0);
    let errors = |daemon: &_| counted(daemon, "dispatchbox_db_errors_total", &[]);
    let claims = |daemon: &_| {
        let name = "dispatchbox_db_call_duration_seconds_count";
        counted(daemon, name, &[("call", "claim")])
    };

    server.stop(StopMode::Immediate).unwrap();
    let away = Instant::now();
    recorder.open_gate();
    wait_until("all handlers have finished", || {
        process::children(worker).is_empty() && recorder.history().len() >= 10
    });
    assert_up_and_not_ready(&daemon);
    // Reports are a second old: one that tells of failures tells of all claims before them.
    wait_until("failed calls are reported", || errors(&daemon) >= 3.0);
    let n_claims = claims(&daemon);
    outlast(away, Duration::from_secs(4), "the outage lasts");
    // A call that was under way may still be counted: what could not connect has claimed nothing.
    let n_more = claims(&daemon) - n_claims;
    assert!(n_more <= 2.0, "{n_more} claims in an outage");
    let (n_errors, n_lines) = (errors(&daemon), daemon.log().lines().count());
    server.start_again().unwrap();
    let back = Instant::now();
    wait_until("what had finished is done", || db.count("done") >= 11);
    eprintln!(
        "settled {} ms after the server was back",
        back.elapsed().as_millis()
    );
    ids.extend(db.insert_events("order.created", 5));
    daemon.wait_log("database is back");

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder
        .history()
        .assert_complete(ids.into_iter().skip(1), 0);
    // Fetcher, settler and keeper ask at most once a second after a few quick tries.
    let n_asked_most = 3.0 * (8.0 + away.elapsed().as_secs_f64());
    assert!(
        n_errors <= n_asked_most,
        "{n_errors} failed calls in one outage, at most {n_asked_most} are expected"
    );
    assert!(n_lines < 12, "{}", daemon.log());
    for text in ["database is away", "database is back"] {
        assert_eq!(lines_with(&daemon, text), 1, "{}", daemon.log());
    }
}

/// Goal: a drain that meets an outage waits for the server and settles what has run.
#[test]
fn a_drain_during_an_outage_settles_what_ran_before_it_leaves() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    db.insert_events("order.created", 10);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--max-parallel", "4"])
        .start_gated(4);
    let worker = daemon.wait_workers(1)[0];

    server.stop(StopMode::Immediate).unwrap();
    daemon.signal(rustix::process::Signal::TERM);
    wait_until("it is draining", || {
        daemon.get("/ready").1.contains("draining")
    });
    recorder.open_gate();
    wait_until("all handlers have finished", || {
        process::children(worker).is_empty()
    });
    server.start_again().unwrap();

    daemon.assert_exits(0);
    assert_eq!(db.count("done"), 4);
    let untouched = "select count(*) from outbox_event where status = 'pending' and attempts = 0";
    assert_eq!(db.number(untouched, &[]), 6);
    assert_eq!(db.leases(), 0);
    assert_eq!(recorder.history().len(), 4);
}

/// Goal: a server that only reads, as after a failover, is an outage like any other: told once,
/// waited for, nothing charged.
#[test]
fn a_server_that_only_reads_is_waited_for() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let recorder = Recorder::new().gated();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--max-parallel", "4", "--poll-interval", "0.05"])
        .start();
    let ids = db.insert_events("order.created", 12);
    recorder.wait_runs(4);

    db.set_read_only(true);
    recorder.open_gate();
    wait_until("claims and outcomes are refused", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "read_only")]) >= Some(6.0)
    });
    assert_eq!(db.count("done"), 0);
    db.set_read_only(false);

    wait_all_done(&db, &ids);
    assert_no_outcome_missed(&daemon);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert_eq!(lines_with(&daemon, "WARN"), 1, "{}", daemon.log());
}

/// Goal: a function that vanishes while the daemon runs is waited for; the log is told, and not at
/// every turn.
#[test]
fn a_schema_that_vanishes_for_a_while_costs_no_event() {
    let db = TestDb::new();
    let recorder = Recorder::new().gated();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--max-parallel", "4", "--poll-interval", "0.05"])
        .start();
    let ids = db.insert_events("order.created", 12);
    recorder.wait_runs(4);

    db.execute("alter function outbox_claim_2 rename to gone_1; alter function outbox_settle_1 rename to gone_2");
    recorder.open_gate();
    wait_until("claims and outcomes are refused", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "schema")]) >= Some(6.0)
    });
    wait_until("it is not ready", || {
        daemon.get("/ready").1.contains("schema not usable")
    });
    db.execute("alter function gone_1 rename to outbox_claim_2; alter function gone_2 rename to outbox_settle_1");

    wait_all_done(&db, &ids);
    assert_no_outcome_missed(&daemon);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert!(lines_with(&daemon, "WARN") <= 2, "{}", daemon.log());
}

/// Goal: a server that is frozen with all its connections costs no worker, no handler and no
/// attempt, and work goes on when it is. Method: frozen for longer than a worker may be stuck, for
/// connections by a Unix socket and by TCP.
#[test]
fn a_server_that_is_frozen_costs_no_worker_and_no_handler() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let front = Front::of(&db);
    let recorder = Recorder::new().gated();
    let mut daemons = [db.dsn(), front.dsn(&db)].map(|dsn| {
        Daemon::new(&db)
            .dsn(dsn)
            .route(recorder.route("*"))
            .args(["--query-timeout", "1", "--connect-timeout", "1"])
            .args(["--max-parallel", "2", "--poll-interval", "0.05"])
            .start()
    });
    let workers = daemons.each_ref().map(|daemon| daemon.wait_workers(1));
    let ids = db.insert_events("order.created", 12);
    wait_until("both have two handlers running", || {
        daemons
            .iter()
            .all(|daemon| daemon.metric("dispatchbox_events_in_flight", &[]) >= Some(2.0))
            && recorder.history().len() == 4
    });

    server.pause().unwrap();
    let frozen = Instant::now();
    recorder.open_gate();
    outlast(
        frozen,
        Duration::from_secs(12),
        "it is frozen for longer than a worker may be stuck",
    );
    server.resume().unwrap();
    let resumed = Instant::now();
    wait_all_done(&db, &ids);
    eprintln!(
        "done {} ms after the server went on",
        resumed.elapsed().as_millis()
    );

    for (daemon, workers) in daemons.iter().zip(workers) {
        assert_eq!(daemon.worker_pids(), workers, "{}", daemon.log());
        assert_no_outcome_missed(daemon);
    }
    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    recorder.history().assert_complete(ids, 0);
}
