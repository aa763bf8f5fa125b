//! Answers that are lost, and a server that goes silent.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{
    assert_done_at_first_attempt, assert_no_outcome_missed, assert_up_and_not_ready, lines_with,
    wait_all_done, wait_runs,
};
use crate::support::{
    Cli, Daemon, Proxy, Receiver, Recorder, TestDb, TestDir, signal_pid, wait_until,
};

/// Stands in the payload of an event, and so in the answer to its claim.
const MARK: &str = "lost-with-its-claim";

/// Goal: the events of a claim that nobody was told about are delivered within seconds, and nothing
/// of it is left.
#[test]
fn a_claim_whose_answer_is_lost_delays_its_events_and_no_more() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route(recorder.route("*"))
        .args(["--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();

    proxy.lose_answer_with(MARK);
    let ids = insert_marked(&db, 5);
    wait_until("the answer is lost", || proxy.has_lost());
    let lost = Instant::now();
    wait_until("all events are done", || db.count("done") == 5);
    eprintln!("delivered {} ms after the loss", lost.elapsed().as_millis());

    // The lease would have held them for a minute.
    // Written by a thread of its own, which may be a moment behind.
    wait_until("the log says that a lease was released", || {
        lines_with(&daemon, "released 1 lease of") == 1
    });
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
}

/// Goal: a worker that drains with a claim in doubt gives it back first, instead of leaving its
/// events to the end of the lease.
#[test]
fn a_drain_gives_back_a_claim_whose_answer_was_lost() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route("warm.*=log")
        .route(recorder.route("*"))
        // With one connection, so that none is left that the claim could be given back on.
        .args(["--poll-interval", "0.05", "--pool-size", "1"])
        .start();
    // Now the fetcher has its connection.
    db.insert_events("warm.up", 1);
    wait_until("the first event is done", || db.count("done") == 1);

    proxy.lose_answer_with(MARK);
    proxy.refuse();
    insert_marked(&db, 5);
    wait_until("the answer is lost", || proxy.has_lost());
    assert_eq!(db.leases(), 1);
    daemon.signal(Signal::TERM);
    // Not sooner: the claim would be given back, and made again, before the worker has heard of the
    // drain.
    daemon.wait_log("the answer of a claim was lost: trying");
    proxy.heal();

    daemon.assert_exits(0);
    assert_eq!(db.leases(), 0);
    let due = "select count(*) from outbox_event where status = 'pending' and attempts = 0";
    assert_eq!(db.number(due, &[]), 5);
    assert_eq!(recorder.history().len(), 0);
}

/// Goal: a drain with a claim in doubt does not wait for a database that stays away: it is told
/// what may stand there, and the next start gives it back.
#[test]
fn a_drain_leaves_a_claim_in_doubt_to_the_next_start_where_the_database_stays_away() {
    let db = TestDb::new();
    let (proxy, runtime, recorder) = (Proxy::to(&db), TestDir::new(), Recorder::new());
    let start = || {
        Daemon::new(&db)
            .dsn(proxy.dsn(&db))
            .route("warm.*=log")
            .route(recorder.route("*"))
            .args(["--poll-interval", "0.05", "--lease-seconds", "3600"])
            .args(["--drain-timeout", "300"])
            .env("RUNTIME_DIRECTORY", runtime.path())
            .start()
    };
    let mut first = start();
    // Now the fetcher has its connection.
    let mut ids = db.insert_events("warm.up", 1);
    wait_until("the first event is done", || db.count("done") == 1);

    proxy.lose_answer_with(MARK);
    proxy.refuse();
    let marked = insert_marked(&db, 5);
    wait_until("the answer is lost", || proxy.has_lost());
    // The worker has others, whose server would still listen.
    proxy.cut_all();
    assert_eq!(db.leases(), 1);
    first.signal(Signal::TERM);

    first.assert_exits(0);
    for told in ["the answer of a claim was lost", "a claim may stand"] {
        wait_until("the log says so", || lines_with(&first, told) == 1);
    }
    assert_eq!(db.leases(), 1);
    assert_eq!(runtime.entries().len(), 1, "{:?}", runtime.entries());

    proxy.heal();
    let mut second = start();
    ids.extend(&marked);
    assert_done_at_first_attempt(&db, [&mut second], &ids);
    recorder.history().assert_complete(marked, 0);
    assert!(runtime.entries().is_empty(), "{:?}", runtime.entries());
}

/// Goal: a daemon that is idle while its connections are cut has no claim in doubt, and leaves at
/// once though the database stays away. Method: the cut comes between two looks; it is the next one
/// that finds the connection gone.
#[test]
fn an_idle_daemon_leaves_at_once_while_the_database_is_away() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route("*=log")
        .args(["--drain-timeout", "300"])
        .start();
    // The waits between looks double up to a second: the next look is some time away then.
    let between = "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle' \
                   and application_name like 'dispatchbox worker%' and query like '%outbox_claim%' \
                   and clock_timestamp() - state_change between interval '650 ms' and interval '720 ms'";
    wait_until("the fetcher is between two looks", || {
        db.number(between, &[]) == 1
    });

    proxy.refuse();
    proxy.cut_all();
    wait_until("the worker knows", || {
        lines_with(&daemon, "database is away") > 0
    });
    daemon.signal(Signal::TERM);

    daemon.assert_exits(0);
    assert_eq!(lines_with(&daemon, "claim"), 0, "{}", daemon.log());
    daemon.assert_no_files();
}

/// Goal: a worker that never had a connection has claimed nothing, and leaves at once.
/// Method: the first worker is replaced when new connections are refused already.
#[test]
fn a_worker_that_never_had_a_connection_leaves_at_once() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route("*=log")
        .args(["--drain-timeout", "300"])
        .start();
    daemon.wait_ready();
    let first = daemon.wait_workers(1)[0];

    proxy.refuse();
    signal_pid(first, Signal::TERM);
    let is_away = || {
        let second = daemon.worker_pids().into_iter().find(|&pid| pid != first);
        second.is_some_and(|pid| {
            let name = format!("worker-00-pid{pid} ");
            let is_told = |line: &str| line.contains(&name) && line.contains("database is away");
            daemon.log().lines().any(is_told)
        })
    };
    wait_until("another one finds no database", is_away);
    daemon.signal(Signal::TERM);

    daemon.assert_exits(0);
    daemon.assert_no_files();
}

/// Goal: an outcome that was written although nobody heard of it is sent again, recognized, and
/// counted once.
#[test]
fn a_settle_whose_answer_is_lost_is_recognized_as_written() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 5);
    let proxy = Proxy::to(&db);
    let (recorder, mut daemon) = Daemon::new(&db).dsn(proxy.dsn(&db)).start_gated(5);

    // Only a settle says this in what it sends.
    proxy.lose_answer_to("done");
    recorder.open_gate();
    wait_until("the answer is lost", || proxy.has_lost());

    wait_until("all are counted as done", || {
        daemon.metric("dispatchbox_events_settled_total", &[("outcome", "done")]) == Some(5.0)
    });
    assert_no_outcome_missed(&daemon);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
}

/// Goal: the doubt about an outcome outlives the halving of its batch. Method: the answer to a
/// settle is lost; when it is sent again somebody holds the lease, which stands for another event
/// still.
#[test]
fn a_settle_in_doubt_is_recognized_even_after_it_was_halved() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let (quick, slow) = (Recorder::new().gated(), Recorder::new().gated());
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route(quick.route("quick.*"))
        .route(slow.route("slow.*"))
        .route("warm.*=log")
        .args(["--query-timeout", "1"])
        .start();
    db.insert_events("warm.up", 1);
    wait_until("the first event is done", || db.count("done") == 1);
    // In one transaction, so that one claim takes them all.
    db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
         values ('t', '1', 'quick.a', '{}'), ('t', '2', 'quick.b', '{}'), ('t', '3', 'quick.c', '{}'), ('t', '4', 'slow.a', '{}')",
    );
    wait_until("four handlers run", || {
        quick.history().len() + slow.history().len() == 4
    });
    assert_eq!(db.leases(), 1);

    proxy.lose_answer_to("done");
    proxy.refuse();
    quick.open_gate();
    wait_until("the answer is lost", || proxy.has_lost());
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.query("select from outbox_lease for update", &[])
        .unwrap();
    proxy.heal();
    wait_until("the second try has met the lock", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "lock_timeout")]) >= Some(2.0)
    });
    lock.commit().unwrap();

    wait_until("all three are counted as done", || {
        daemon.metric("dispatchbox_events_settled_total", &[("outcome", "done")]) == Some(4.0)
    });
    assert_no_outcome_missed(&daemon);
    slow.open_gate();
    let ids: Vec<i64> = (1..=5).collect();
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    assert_eq!(quick.history().duplicates(), 0);
}

#[test]
fn connections_that_are_cut_again_and_again_cost_no_event_and_no_second_run() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 2000);
    let proxy = Proxy::to(&db);
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(8));
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route(receiver.route("*"))
        .args(["--processes", "2", "--max-parallel", "5"])
        .start();

    for n_runs in (1..=10).map(|turn| turn * 120) {
        wait_runs(n_runs, || receiver.history());
        proxy.cut_all();
    }

    wait_all_done(&db, &ids);
    assert_no_outcome_missed(&daemon);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    receiver.history().assert_complete(ids, 0);
}

/// Goal: a server that accepts and never answers is an outage like any other: told once, waited
/// for, and over when it is over.
#[test]
fn a_handshake_that_is_never_answered_ends_and_work_goes_on_once_it_is() {
    let db = TestDb::new();
    let mut ids = db.insert_events("order.created", 3);
    let proxy = Proxy::to(&db);
    proxy.silence();
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route(recorder.route("*"))
        .args(["--connect-timeout", "1"])
        .start();

    daemon.wait_log("waiting for the database");
    assert_up_and_not_ready(&daemon);
    proxy.heal();
    let healed = Instant::now();
    wait_until("all events are done", || db.count("done") == 3);
    eprintln!(
        "at work {} ms after the start's handshake was answered",
        healed.elapsed().as_millis()
    );

    proxy.silence();
    proxy.cut_all();
    ids.extend(db.insert_events("order.created", 3));
    wait_until("the worker has waited in vain", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "timeout")]) >= Some(2.0)
    });
    assert_up_and_not_ready(&daemon);
    proxy.heal();
    let healed = Instant::now();
    wait_until("all events are done", || db.count("done") == 6);
    eprintln!(
        "at work {} ms after handshakes were answered again",
        healed.elapsed().as_millis()
    );

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert_eq!(lines_with(&daemon, "WARN"), 2, "{}", daemon.log());
}

#[test]
fn a_one_shot_command_does_not_wait_for_a_handshake_that_is_never_answered() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    proxy.silence();

    let dsn = proxy.dsn(&db);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let said = Cli::new(["migrate", "--dsn", &dsn, "--connect-timeout", "0.5"]).run();
        // The test may have given up.
        let _ = sender.send(said);
    });
    let said = ended
        .recv_timeout(Duration::from_secs(10))
        .unwrap_or_else(|_| {
            // Ends it, so that it is not left.
            proxy.cut_all();
            panic!("the command still waits");
        });

    assert_eq!(said.status, 69, "{}", said.stderr);
    assert!(
        said.stderr.contains("no answer within 0.5 s"),
        "{}",
        said.stderr
    );
}

/// Goal: where some of a worker's connections are gone and others are not, the log is told once,
/// not at every turn. Method: the fetcher's connection is ended and no new one is possible, while
/// the keeper renews a lease on its own again and again.
#[test]
fn an_outage_that_only_some_connections_meet_is_told_once() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let recorder = Recorder::new().gated();
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route(recorder.route("*"))
        .args(["--lease-seconds", "4", "--poll-interval", "0.05"])
        .start();
    let ids = db.insert_events("order.created", 1);
    recorder.wait_runs(1);
    wait_renewals(&db, 1);

    proxy.refuse();
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and application_name like 'dispatchbox worker%' and query like '%outbox_claim%' \
           and pid <> pg_backend_pid()",
    );
    wait_until("the fetcher is cut off", || {
        lines_with(&daemon, "database is away") > 0
    });
    wait_renewals(&db, 2);
    proxy.heal();
    recorder.open_gate();
    daemon.wait_log("database is back");

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    assert_eq!(
        (
            lines_with(&daemon, "database is away"),
            lines_with(&daemon, "database is back")
        ),
        (1, 1),
        "{}",
        daemon.log()
    );
}

/// Waits until the leases have been renewed `n` times.
#[track_caller]
fn wait_renewals(db: &TestDb, n: usize) {
    let expiry = "select max(extract(epoch from expires_at) * 1e6)::bigint from outbox_lease";
    for _ in 0..n {
        let before = db.number(expiry, &[]);
        wait_until("a lease is renewed", || db.number(expiry, &[]) > before);
    }
}

/// Goal: calls that are never answered are ended, and cost no worker, no handler and no second run.
/// Method: nothing passes any more on the connections there are, and neither end is told; new ones
/// are made as before.
#[test]
fn a_call_that_is_never_answered_is_ended_and_costs_no_handler() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let recorder = Recorder::new().gated();
    let mut daemon = Daemon::new(&db)
        .dsn(proxy.dsn(&db))
        .route(recorder.route("order.*"))
        .route("warm.*=log")
        .args(["--query-timeout", "0.5", "--connect-timeout", "0.5"])
        .args(["--max-parallel", "3", "--lease-seconds", "30"])
        .start();
    let worker = daemon.wait_workers(1)[0];
    // Now fetcher and settler have their connections.
    let mut ids = db.insert_events("warm.up", 1);
    wait_until("the first event is done", || db.count("done") == 1);
    ids.extend(db.insert_events("order.created", 12));
    recorder.wait_runs(3);

    proxy.freeze();
    let frozen = Instant::now();
    recorder.open_gate();
    wait_until("all events are done", || db.count("done") == 13);
    eprintln!(
        "done {} ms after the connections were frozen",
        frozen.elapsed().as_millis()
    );

    assert_eq!(daemon.worker_pids(), [worker], "{}", daemon.log());
    assert_no_outcome_missed(&daemon);
    recorder
        .history()
        .assert_complete(ids.iter().copied().skip(1), 0);
    // What the server still runs for connections that are given up is nobody's any more.
    proxy.cut_all();
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
}

/// Goal: a worker that tries one silent host after the other is not taken for wedged, however many
/// there are.
#[test]
fn a_worker_that_tries_many_hosts_is_left_alone() {
    const N_HOSTS: usize = 10;
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    let dsn = proxy.dsn(&db);
    let (host, rest) = dsn.split_once(' ').unwrap();
    let directory = host.strip_prefix("host=").unwrap();
    let mut daemon = Daemon::new(&db)
        .dsn(format!("host={} {rest}", [directory; N_HOSTS].join(",")))
        .route("*=log")
        .args(["--query-timeout", "0.5", "--connect-timeout", "1"])
        .start();
    let workers = daemon.wait_workers(1);
    let mut ids = db.insert_events("order.created", 1);
    wait_all_done(&db, &ids);

    proxy.silence();
    proxy.cut_all();
    wait_until("every host was tried in vain", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "timeout")]) >= Some(1.0)
    });
    assert_eq!(daemon.worker_pids(), workers, "{}", daemon.log());
    proxy.heal();
    ids.extend(db.insert_events("order.created", 1));

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
}

/// Commits `n` events whose payload holds the mark.
fn insert_marked(db: &TestDb, n: i32) -> Vec<i64> {
    let sql = "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
               select 'order', i::text, 'order.created', jsonb_build_object('mark', $1::text) \
               from generate_series(1, $2::int) i returning id";
    let rows = db.client().query(sql, &[&MARK, &n]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
