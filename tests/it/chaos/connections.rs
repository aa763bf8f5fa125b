//! Connections that the server ends, or has none left of.

use std::time::Duration;

use dispatchbox::dev::cluster::{Cluster, ServerSettings};
use postgres::Client;

use super::{
    assert_done_at_first_attempt, assert_no_outcome_missed, assert_up_and_not_ready, lines_with,
    wait_all_done, wait_runs,
};
use crate::support::versions::IdleLimit;
use crate::support::{Daemon, Receiver, Recorder, TestDb, cluster, wait_until};

/// Ends every connection of a daemon.
const TERMINATE: &str = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'dispatchbox%'";

/// Connections of daemons that are there.
const COUNT: &str =
    "select count(*) from pg_stat_activity where application_name like 'dispatchbox%'";

/// The server's slots: enough for a daemon and the test, few enough to be used up.
const SLOTS: usize = 16;

#[test]
fn connections_that_are_terminated_again_and_again_cost_no_event_and_no_second_run() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 2000);
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(8));
    let mut daemon = Daemon::new(&db)
        .route(receiver.route("*"))
        .args(["--processes", "2", "--max-parallel", "5"])
        .start();
    // Other tests' daemons work on the same server.
    let terminate = format!("{TERMINATE} and datname = current_database()");

    for n_runs in (1..=8).map(|turn| turn * 150) {
        wait_runs(n_runs, || receiver.history());
        db.execute(&terminate);
    }

    wait_all_done(&db, &ids);
    assert_no_outcome_missed(&daemon);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    receiver.history().assert_complete(ids, 0);
    let n_told = lines_with(&daemon, "database is away");
    assert!(n_told <= 2 * 8, "{n_told} warnings\n{}", daemon.log());
}

#[test]
fn a_daemon_that_finds_no_free_connection_waits_for_one() {
    let server = few_slots();
    let db = TestDb::on(&server);
    let ids = db.insert_events("order.created", 5);
    let recorder = Recorder::new();
    let taken = take_all_slots(&db);

    let mut daemon = Daemon::new(&db).route(recorder.route("*")).start();
    daemon.wait_log("waiting for the database");
    assert_up_and_not_ready(&daemon);
    assert_eq!(recorder.history().len(), 0);
    drop(taken);

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert_eq!(lines_with(&daemon, "WARN"), 1, "{}", daemon.log());
}

/// Goal: a daemon that loses its connections to others keeps what its handlers have finished until
/// it gets one back.
#[test]
fn a_daemon_whose_connections_went_to_others_goes_on_when_one_is_free() {
    let server = few_slots();
    let db = TestDb::on(&server);
    let ids = db.insert_events("order.created", 20);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--max-parallel", "5"])
        .start_gated(5);

    let mut control = db.client();
    let mut taken = Vec::new();
    wait_until("the daemon has no connection any more", || {
        control.batch_execute(TERMINATE).unwrap();
        taken.append(&mut take_all_slots(&db));
        control.query_one(COUNT, &[]).unwrap().get::<_, i64>(0) == 0
    });
    recorder.open_gate();
    assert_up_and_not_ready(&daemon);
    wait_until("the worker reports that it is cut off", || {
        daemon.metric(
            "dispatchbox_db_errors_total",
            &[("reason", "too_many_connections")],
        ) >= Some(3.0)
    });
    drop(taken);
    drop(control);

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert!(lines_with(&daemon, "WARN") <= 4, "{}", daemon.log());
}

/// Goal: a worker with a single connection for all but its keeper still claims and settles.
#[test]
fn one_pooled_connection_is_enough_for_claims_and_outcomes() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 50);
    let receiver = Receiver::start();

    let mut daemon = Daemon::new(&db)
        .route(receiver.route("*"))
        .args(["--pool-size", "1", "--connect-timeout", "1"])
        .start();

    wait_all_done(&db, &ids);
    assert_no_outcome_missed(&daemon);
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    receiver.history().assert_complete(ids, 0);
}

/// Goal: an outage right behind another one is told, too: a connection that was opened in the first
/// one is not one that it has lost.
#[test]
fn a_connection_that_is_terminated_right_after_an_outage_is_told() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--poll-interval", "0.05", "--lease-seconds", "3600"])
        .start();
    daemon.wait_ready();
    // Idle, it has only the fetcher's connection in use. After a look that took long the fetcher
    // waits for long, and then a connection that is gone is replaced unnoticed: so this is not the
    // first look, and it was a quick one.
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where datname = current_database() and query like '%outbox_claim%' and pid <> pg_backend_pid() \
                     and state = 'idle' and query_start > backend_start + interval '1500 ms' \
                     and state_change < query_start + interval '100 ms'";

    for turn in 1..=3 {
        // Again where a fetcher that had no turn for long, on a busy machine, has replaced its
        // connection unnoticed.
        wait_until("the outage is told", || {
            let is_told = lines_with(&daemon, "database is away") >= turn;
            is_told || db.number(terminate, &[]) > 1
        });
        wait_until("its end is told", || {
            lines_with(&daemon, "database is back") == lines_with(&daemon, "database is away")
        });
    }
}

/// Goal: a server that closes idle connections is no trouble: nothing is told, nothing fails, and
/// what comes next is delivered.
#[test]
fn connections_that_the_server_closes_for_being_idle_are_replaced_unnoticed() {
    let db = TestDb::new();
    let idle_limit = IdleLimit::of(&db);
    let mut daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--poll-interval", "5", "--lease-seconds", "3600"])
        .start();
    daemon.wait_ready();
    let mut ids = db.insert_events("order.created", 1);
    wait_all_done(&db, &ids);
    let oldest = "select coalesce(min(extract(epoch from backend_start) * 1e6), 0)::bigint from pg_stat_activity \
                  where datname = current_database() and application_name like '%dispatchbox worker%'";
    let now = "select (extract(epoch from clock_timestamp()) * 1e6)::bigint";

    for _ in 0..2 {
        let before = db.number(now, &[]);
        wait_until("every connection of the worker is a new one", || {
            idle_limit.look();
            db.number(oldest, &[]) > before || db.number(oldest, &[]) == 0
        });
        ids.extend(db.insert_events("order.created", 1));
        wait_all_done(&db, &ids);
    }

    assert_eq!(daemon.metric("dispatchbox_db_errors_total", &[]), Some(0.0));
    assert_eq!(lines_with(&daemon, "WARN"), 0, "{}", daemon.log());
    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
}

fn few_slots() -> Cluster {
    let settings = ServerSettings::volatile().with("max_connections", &SLOTS.to_string());
    cluster::private_with(&settings)
}

/// Connects until the server refuses.
fn take_all_slots(db: &TestDb) -> Vec<Client> {
    let mut taken = Vec::new();
    wait_until("the server has no free slot", || {
        match Client::connect(&db.dsn(), postgres::NoTls) {
            Ok(client) => taken.push(client),
            Err(_) => return true,
        }
        assert!(taken.len() <= SLOTS, "more slots than the server has");
        false
    });
    taken
}
