//! Locks that somebody else holds.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{assert_done_at_first_attempt, lines_with, wait_all_done};
use crate::support::{Daemon, Recorder, TestDb, outlast, signal_pid, wait_until};

/// When the first of the standing leases ends, in microseconds.
const EXPIRY: &str =
    "select coalesce(min(extract(epoch from expires_at) * 1e6), 0)::bigint from outbox_lease";

/// Goal: a table locked for longer than a statement may take costs no event anything, its leases
/// are renewed meanwhile, and the log is not flooded.
#[test]
fn a_table_that_is_locked_for_long_charges_and_loses_no_event() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 12);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--query-timeout", "1", "--lease-seconds", "4"])
        .args(["--max-parallel", "5", "--poll-interval", "0.05"])
        .start_gated(5);

    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_event in access exclusive mode")
        .unwrap();
    let locked = Instant::now();
    let first_expiry = db.number(EXPIRY, &[]);
    recorder.open_gate();
    wait_until("a claim and a settle have failed at the lock", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "lock_timeout")]) >= Some(3.0)
    });
    wait_until("the leases are renewed nevertheless", || {
        db.number(EXPIRY, &[]) > first_expiry
    });
    outlast(
        locked,
        Duration::from_secs(3),
        "the lock outlasts several statements",
    );
    assert_eq!(daemon.get("/health").0, 200);
    lock.commit().unwrap();

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert!(lines_with(&daemon, "WARN") <= 3, "{}", daemon.log());
}

/// Goal: an outcome that loses a deadlock against a person's transaction is written once that is
/// over. Method: a trigger makes each outcome wait for a lock of that transaction, which then wants
/// the same event, and looks for deadlocks too late to be the one that loses.
#[test]
fn a_deadlock_with_a_persons_transaction_costs_no_event_and_no_second_run() {
    let db = TestDb::new();
    db.execute(
        "create function wait_for_person() returns trigger language plpgsql as $$ begin
             perform pg_advisory_xact_lock(1); return new; end $$;
         create trigger wait_for_person before update on outbox_event for each row execute function wait_for_person()",
    );
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                   and wait_event = 'advisory' and application_name like 'dispatchbox%'";
    let mut person = db.client();
    person.batch_execute("set deadlock_timeout = '1h'").unwrap();

    let mut ids = Vec::new();
    // Again where the person, on a busy machine, came after the look for deadlocks.
    wait_until("an outcome has lost a deadlock", || {
        let mut transaction = person.transaction().unwrap();
        transaction
            .batch_execute("select pg_advisory_xact_lock(1)")
            .unwrap();
        let id = db.insert_events("order.created", 1)[0];
        ids.push(id);
        wait_until("its outcome waits for the person", || {
            db.number(waiting, &[]) == 1
        });
        transaction
            .execute(
                "update outbox_event set aggregate_id = 'by hand' where id = $1",
                &[&id],
            )
            .unwrap();
        transaction.commit().unwrap();
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "deadlock")]) >= Some(1.0)
    });

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert_eq!(db.count_where("aggregate_id <> 'by hand'"), 0);
    let n_told = lines_with(&daemon, "WARN");
    assert!(n_told <= 2, "{}", daemon.log());
}

/// Goal: a row that somebody else holds keeps nobody waiting but itself.
#[test]
fn a_row_that_is_locked_for_long_holds_up_only_itself() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 60);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--lease-seconds", "4", "--max-parallel", "10"])
        .start_gated(10);
    let held = recorder.history().runs()[0].0;

    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.execute(
        "select from outbox_event where id = $1 for update",
        &[&held],
    )
    .unwrap();
    recorder.open_gate();
    wait_until("all the others are done", || db.count("done") == 59);
    let expiry = db.number(EXPIRY, &[]);
    assert!(expiry > 0, "the lease of the held event is gone");
    wait_until("the lease of the held event is renewed", || {
        db.number(EXPIRY, &[]) > expiry
    });
    let waiting =
        "select count(*) from outbox_event where id = $1 and status = 'pending' and attempts = 0";
    assert_eq!(db.number(waiting, &[&held]), 1);
    lock.commit().unwrap();

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
    recorder.history().assert_complete(ids, 0);
    assert!(lines_with(&daemon, "WARN") <= 1, "{}", daemon.log());
}

/// Goal: a batch that cannot be written within a statement's time is written in smaller parts, not
/// repeated for ever.
#[test]
fn outcomes_that_take_longer_than_a_statement_may_are_written_in_parts() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 200);
    db.execute(
        "create function slowly() returns trigger language plpgsql as $$ begin perform pg_sleep(0.01); return new; end $$;
         create trigger slowly before update on outbox_event for each row execute function slowly()",
    );

    let mut daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--query-timeout", "1", "--lease-seconds", "30"])
        .args(["--batch-size", "500"])
        .start();
    wait_until("a batch took too long", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "timeout")]) >= Some(1.0)
            || db.count("done") == 200
    });

    assert_done_at_first_attempt(&db, [&mut daemon], &ids);
}

/// Goal: when a worker has died, a row that somebody else holds keeps neither its neighbours nor
/// the other charges waiting, and the log is not told at each look.
#[test]
fn a_locked_row_of_a_dead_worker_holds_up_only_itself() {
    let db = TestDb::new();
    let mut ids = db.insert_events("order.created", 1);
    let held = ids[0];
    let (recorder, daemon) = Daemon::new(&db)
        .args(["--max-parallel", "3", "--retry-backoff-seconds", "0.05"])
        .args(["--query-timeout", "1"])
        .start_gated(1);
    let worker = daemon.wait_workers(1)[0];
    ids.extend(db.insert_events("order.created", 29));
    recorder.wait_runs(3);
    assert!(db.leases() > 1, "the first event has a lease of its own");
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.execute(
        "select from outbox_event where id = $1 for update",
        &[&held],
    )
    .unwrap();

    signal_pid(worker, Signal::KILL);
    recorder.open_gate();
    wait_until("all the others are done", || db.count("done") == 29);
    let refused = |times| {
        wait_until("the sweeper has met the lock so often", || {
            let labels = [("reason", "lock_timeout")];
            daemon.metric("dispatchbox_db_errors_total", &labels) >= Some(times)
        });
        daemon.log().matches("swept a lease of").count()
    };
    let n_told = refused(2.0);
    assert!(n_told >= 1, "{}", daemon.log());
    assert_eq!(refused(4.0), n_told, "{}", daemon.log());
    let n_swept = daemon.metric("dispatchbox_lease_sweeps_total", &[]);
    assert!(
        n_swept >= Some(1.0),
        "the other leases are ended: {n_swept:?}"
    );
    lock.commit().unwrap();

    wait_all_done(&db, &ids);
    assert_eq!(
        db.number(
            "select attempts::bigint from outbox_event where id = $1",
            &[&held]
        ),
        2
    );
}

/// Goal: an expired lease with a row that somebody else holds keeps no other lease, and no other
/// event of its own, waiting.
#[test]
fn a_locked_row_of_an_expired_lease_holds_up_only_itself() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 10);
    for worker in ["gone/1", "gone/2"] {
        let claim = "select count(token) from outbox_claim_2($1, 5, 1000000, '0 s', '-infinity', 0, null, null, null, null)";
        assert_eq!(db.number(claim, &[&worker]), 5);
    }
    let held = ids[0];
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.execute(
        "select from outbox_event where id = $1 for update",
        &[&held],
    )
    .unwrap();

    let _daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--lease-seconds", "2", "--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("all the others are done", || db.count("done") == 9);
    lock.commit().unwrap();

    wait_all_done(&db, &ids);
    assert_eq!(db.count_where("attempts <> 2"), 0);
}

/// Goal: sweeping the lease of a lost host, however long that takes, never keeps a living worker
/// from renewing its own. Method: somebody holds the table against writers, so each of 900 events
/// of the lost host is waited for.
#[test]
fn a_long_sweep_delays_no_renewal() {
    let db = TestDb::new();
    let recorder = Recorder::new().gated();
    let mut daemon = Daemon::new(&db)
        .route(recorder.route("order.*"))
        .route("*=log")
        .args(["--query-timeout", "1", "--lease-seconds", "4"])
        .start();
    let ids = db.insert_events("order.created", 1);
    recorder.wait_runs(1);
    db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, next_run_at) \
         select 'order', i::text, 'later', '{}', now() + interval '1 day' from generate_series(1, 900) i; \
         insert into outbox_lease (token, worker, expires_at, event_ids) \
         select txid_current(), 'ghost/worker-00/x', now() - interval '1 hour', array_agg(id) from outbox_event where event_type = 'later'",
    );
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_event in share mode")
        .unwrap();

    let left = "select min(extract(epoch from expires_at - clock_timestamp()) * 1000)::bigint \
                from outbox_lease where worker not like 'ghost%'";
    let n_refused = || {
        daemon
            .metric("dispatchbox_db_errors_total", &[("reason", "lock_timeout")])
            .unwrap_or(0.0)
    };
    // A tenth of a second each: the sweep has been at it for longer than a lease.
    wait_until("the sweep has met many locked rows", || {
        assert!(db.number(left, &[]) > 0, "the lease of the living is over");
        n_refused() >= 60.0
    });
    lock.commit().unwrap();
    recorder.open_gate();

    wait_all_done(&db, &ids);
    assert_eq!(recorder.history().runs(), [(ids[0], 1)]);
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
}
