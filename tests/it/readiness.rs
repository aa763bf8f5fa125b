//! /ready says what is true of the events: 200 only while they can be claimed and settled.

use dispatchbox::dev::cluster::StopMode;
use rustix::process::Signal;

use crate::support::{Daemon, RunningDaemon, TestDb, cluster, signal_pid, wait_until};

/// The back ends of the worker's claims.
const CLAIMING: &str = "select pid from pg_stat_activity \
    where datname = current_database() and application_name like 'dispatchbox worker%' and query like '%outbox_claim_2%'";

fn not_ready(reason: &str) -> (u16, String) {
    (
        503,
        format!(r#"{{"status":"not ready","reason":"{reason}"}}"#),
    )
}

#[track_caller]
fn wait_not_ready(daemon: &RunningDaemon, reason: &str) {
    wait_until(&format!("/ready says {reason}"), || {
        daemon.get("/ready") == not_ready(reason)
    });
    assert_eq!(daemon.get("/health").0, 200);
}

/// Goal: a table that somebody locks keeps the daemon from delivering, and /ready, the metric and
/// the log say which kind of trouble that is, from its beginning to its end.
#[test]
fn a_locked_table_is_no_lost_connection_and_the_log_tells_its_end() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--poll-interval", "0.05", "--query-timeout", "1"])
        .start();
    daemon.wait_ready();
    wait_until("the worker is connected", || {
        daemon.metric("dispatchbox_db_connected", &[]) == Some(1.0)
    });

    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_event in exclusive mode")
        .unwrap();
    wait_not_ready(&daemon, "events cannot be claimed");
    assert_eq!(daemon.metric("dispatchbox_db_connected", &[]), Some(1.0));
    assert!(!daemon.log().contains("refused any more"));
    lock.commit().unwrap();

    daemon.wait_ready();
    daemon.wait_log("no call is refused any more (lock_timeout)");
    assert_eq!(
        daemon.log().matches("due to lock timeout").count(),
        1,
        "{}",
        daemon.log()
    );
}

/// Goal: no worker has anything to do for an hour, yet the lock is noticed.
#[test]
fn a_lock_is_noticed_while_workers_are_idle() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--poll-interval", "3600"])
        .start();
    daemon.wait_ready();

    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_lease in exclusive mode")
        .unwrap();

    wait_not_ready(&daemon, "events cannot be claimed");
    lock.commit().unwrap();
    daemon.wait_ready();
}

/// Goal: what no worker meets is told to the log with its remedy, though nobody asks; and who asks
/// for the first time is told the truth.
#[test]
fn what_is_missing_is_told_though_nobody_asks_and_nothing_is_to_do() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_log("worker-00 started");

    db.execute("alter function outbox_renew_1 rename to renamed_away");
    let complaint = "not ready: schema not usable: run `dispatchbox migrate`: the schema lacks the function outbox_renew_1";
    daemon.wait_log(complaint);

    let (status, answer) = daemon.get("/ready");
    assert_eq!(status, 503);
    assert!(answer.contains("schema not usable"), "{answer}");
    let (_, answer) = daemon.get("/api/status");
    assert!(
        answer.contains(
            r#""detail":"run `dispatchbox migrate`: the schema lacks the function outbox_renew_1""#
        ),
        "{answer}"
    );

    // One remedy may uncover the need of another.
    db.execute(
        "alter function renamed_away rename to outbox_renew_1; alter function outbox_settle_1 rename to renamed_away",
    );
    daemon.wait_log("the schema lacks the function outbox_settle_1");

    db.execute("alter function renamed_away rename to outbox_settle_1");
    daemon.wait_log("nothing is refused any more");
    assert_eq!(daemon.log().matches("not ready:").count(), 2);
    assert_eq!(daemon.get("/ready").0, 200);
}

/// A role that may do what a daemon does, but is no superuser.
const ROLE: &str = "create role plain login; \
    grant all on all tables in schema public to plain; \
    grant usage on all sequences in schema public to plain";

fn plain_dsn(db: &TestDb) -> String {
    db.dsn().replace("user=postgres", "user=plain")
}

/// Goal: the log tells the same without an HTTP port, and when the trouble is over; a privilege
/// that is revoked is told as a function that is gone is.
#[test]
fn without_http_the_log_tells_what_is_missing_and_its_end() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    db.execute(ROLE);
    let daemon = Daemon::new(&db)
        .dsn(plain_dsn(&db))
        .route("*=log")
        .without_host()
        .args(["--disable-http"])
        .start();
    wait_until("it has started", || {
        daemon.log().contains("worker-00 started")
    });
    let n_told = |text: &str| daemon.log().matches(text).count();

    db.execute("alter function outbox_renew_1 rename to renamed_away");
    wait_until("the log tells the function", || {
        n_told(
            "not ready: schema not usable: run `dispatchbox migrate`: the schema lacks the function outbox_renew_1",
        ) == 1
    });
    db.execute("alter function renamed_away rename to outbox_renew_1");
    wait_until("the log tells its end", || {
        n_told("nothing is refused any more: that lasted") == 1
    });

    db.execute("revoke delete on outbox_lease from plain");
    wait_until("the log tells the privilege", || {
        n_told(
            "not ready: events cannot be claimed: grant what `sql/roles.sql` grants to dispatchbox_daemon: \
             the role plain lacks DELETE on outbox_lease",
        ) == 1
    });
    db.execute("grant delete on outbox_lease to plain");
    wait_until("the log tells its end, too", || {
        n_told("nothing is refused any more: that lasted") == 2
    });
}

/// Goal: where the role may hold a single connection beside those of its worker, the looks for
/// /ready get it, and not the statistics.
#[test]
fn the_last_connection_of_a_role_is_for_readiness() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    db.execute(ROLE);
    let daemon = Daemon::new(&db).dsn(plain_dsn(&db)).route("*=log").start();
    daemon.wait_ready();
    let n_held = |of: &str| {
        let sql = format!(
            "select count(*) from pg_stat_activity \
             where usename = 'plain' and application_name like 'dispatchbox {of}'"
        );
        db.number(&sql, &[])
    };
    db.insert_events("order.created", 3);
    wait_until("the worker has its connections", || n_held("worker%") == 3);
    wait_until("the table is counted", || n_held("statistics") == 1);

    // Five are held: the worker's, the statistics', and that of the looks, which is ended.
    db.execute(
        "alter role plain connection limit 4; \
         select pg_terminate_backend(pid) from pg_stat_activity \
         where application_name = 'dispatchbox ready'",
    );

    wait_not_ready(&daemon, "database not connected");
    daemon.wait_ready();
    assert_eq!((n_held("ready"), n_held("statistics")), (1, 0));
}

#[test]
fn a_server_that_only_reads_is_not_writable() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    db.set_read_only(true);
    wait_not_ready(&daemon, "database not writable");
    db.set_read_only(false);

    daemon.wait_ready();
}

/// Goal: only the worker can know that its own connection hangs; everybody else's works.
#[test]
fn a_claim_that_hangs_is_noticed_though_others_are_answered() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();
    // Seen once: the same back end may be asked for something else in between.
    let mut back_end = None;
    wait_until("the worker has claimed", || {
        let rows = db.client().query(CLAIMING, &[]).unwrap();
        back_end = rows.first().map(|row| row.get::<_, i32>(0));
        back_end.is_some()
    });
    let back_end = u32::try_from(back_end.unwrap()).unwrap();

    signal_pid(back_end, Signal::STOP);
    wait_not_ready(&daemon, "events cannot be claimed");
    signal_pid(back_end, Signal::CONT);

    daemon.wait_ready();
    drop(daemon);
    server.stop(StopMode::Immediate).unwrap();
}

/// Goal: a short lock, and connections that are ended, are met by single calls; no load balancer
/// needs to know. Method: /ready is asked all the time meanwhile, and must answer 200 each time.
#[test]
fn a_single_failed_call_is_no_reason_to_turn_traffic_away() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db)
        .route("*=log")
        // A lock is waited for half as long as a statement may take.
        .args(["--poll-interval", "0.05", "--query-timeout", "1"])
        .start();
    daemon.wait_ready();
    wait_until("the worker has claimed", || {
        db.client().query(CLAIMING, &[]).unwrap().len() == 1
    });
    let is_ready = || daemon.get("/ready").0 == 200;
    let n_errors = |reason: &str| {
        daemon
            .metric("dispatchbox_db_errors_total", &[("reason", reason)])
            .unwrap_or(0.0)
    };

    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_event in exclusive mode")
        .unwrap();
    // With the report that tells of the failure.
    wait_until("a claim has failed", || n_errors("lock_timeout") >= 1.0);
    lock.commit().unwrap();
    assert!(is_ready(), "{}", daemon.log());
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and application_name like 'dispatchbox worker%'",
    );

    db.insert_events("order.created", 3);
    wait_until("events are delivered on new connections", || {
        assert!(is_ready(), "{}", daemon.log());
        db.count("done") == 3
    });
}
