//! Leases that run out while their worker is alive, stopped, or cut off.

use std::time::{Duration, Instant};

use dispatchbox::dev::cluster::StopMode;
use rustix::process::Signal;

use super::{assert_done_at_first_attempt, lines_with};
use crate::support::{Daemon, Recorder, TestDb, cluster, outlast, signal_pid, wait_until};

/// A short lease: renewed every second.
const LEASE: [&str; 2] = ["--lease-seconds", "4"];

/// Leases that are over by the database's clock.
const EXPIRED: &str = "select count(*) from outbox_lease where expires_at < clock_timestamp()";

/// Goal: the result of a worker that lost its lease changes nothing, and is counted. Method: the
/// worker is stopped in its handler, its lease is ended, another daemon sweeps it and the event
/// becomes dead; then it wakes up.
#[test]
fn a_worker_that_slept_through_its_lease_overwrites_nothing() {
    let db = TestDb::new();
    let id = db.insert_events("order.created", 1)[0];
    let (first, second) = (Recorder::new().gated(), Recorder::exiting(65));
    let sleeper = Daemon::new(&db).route(first.route("*")).args(LEASE).start();
    let worker = sleeper.wait_workers(1)[0];
    first.wait_runs(1);

    signal_pid(worker, Signal::STOP);
    db.expire_leases();
    let other = Daemon::new(&db)
        .route(second.route("*"))
        .args(LEASE)
        .args(["--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("another worker has buried the event", || {
        db.count("dead") == 1
    });
    first.open_gate();
    signal_pid(worker, Signal::CONT);

    wait_until("the first one's outcome is counted as lost", || {
        sleeper.metric("dispatchbox_leases_lost_total", &[]) == Some(1.0)
    });
    let kept =
        "select count(*) from outbox_event where id = $1 and status = 'dead' and attempts = 2";
    assert_eq!(db.number(kept, &[&id]), 1);
    assert_eq!(first.history().runs(), [(id, 1)]);
    assert_eq!(second.history().runs(), [(id, 2)]);
    assert_eq!(
        lines_with(&sleeper, "lease lost for event"),
        1,
        "{}",
        sleeper.log()
    );
    wait_until("the sweep is counted", || {
        other.metric("dispatchbox_lease_sweeps_total", &[]) == Some(1.0)
    });
    assert_eq!(
        other.metric("dispatchbox_events_settled_total", &[("outcome", "retry")]),
        Some(1.0),
        "the attempt that the sweep charged"
    );
    assert_eq!(db.leases(), 0);
}

/// Goal: a lease that is over is left to its living worker, which renews it, however eager the
/// other workers are. Method: leases are ended again and again while a handler runs; three other
/// workers look for expired ones meanwhile.
#[test]
fn a_handler_longer_than_several_leases_runs_once() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 3);
    let recorder = Recorder::new().gated();
    let start = |processes| {
        Daemon::new(&db)
            .route(recorder.route("*"))
            .args(LEASE)
            .args(["--processes", processes, "--retry-backoff-seconds", "0.05"])
            .start()
    };
    let mut daemons = vec![start("1")];
    recorder.wait_runs(3);
    daemons.push(start("3"));
    daemons[1].wait_workers(3);
    daemons[1].wait_ready();

    for _ in 0..4 {
        // Another time in each turn: a lease that is seen with the same one again has not been
        // renewed.
        db.execute("update outbox_lease set expires_at = clock_timestamp() - interval '1 hour'");
        wait_until("the leases are renewed", || {
            db.leases() > 0 && db.number(EXPIRED, &[]) == 0
        });
    }
    recorder.open_gate();

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    recorder.history().assert_complete(ids, 0);
}

/// Goal: after an outage longer than a lease every living worker keeps its events: nothing is
/// charged, nothing handed out twice.
#[test]
fn an_outage_longer_than_a_lease_costs_no_living_worker_its_events() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let ids = db.insert_events("order.created", 60);
    let recorder = Recorder::new().gated();
    let start = || {
        Daemon::new(&db)
            .route(recorder.route("*"))
            .args(LEASE)
            .args(["--max-parallel", "4", "--retry-backoff-seconds", "0.05"])
            .start()
    };
    let mut daemons = [start(), start()];
    recorder.wait_runs(8);

    server.stop(StopMode::Fast).unwrap();
    let away = Instant::now();
    outlast(
        away,
        Duration::from_secs(5),
        "the outage is longer than a lease",
    );
    server.start_again().unwrap();
    assert!(db.leases() >= 2 && db.number(EXPIRED, &[]) > 0);
    wait_until("all leases are renewed", || db.number(EXPIRED, &[]) == 0);
    assert!(db.leases() >= 2);
    recorder.open_gate();

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    recorder.history().assert_complete(ids, 0);
}

/// Goal: an expired lease that was seen before a failed call is not swept at the next sight: in
/// that outage its worker could not renew it either. Method: its worker is stopped meanwhile; the
/// other one's keeper sees the lease, loses its connection, and looks again.
#[test]
fn an_expired_lease_is_left_alone_where_a_call_has_failed_since_it_was_seen() {
    let db = TestDb::new();
    let mut ids = db.insert_events("order.created", 1);
    let recorder = Recorder::new().gated();
    let start = || {
        Daemon::new(&db)
            .route(recorder.route("*"))
            .args(["--lease-seconds", "6"])
            .start()
    };
    let mut daemons = vec![start()];
    let worker = daemons[0].wait_workers(1)[0];
    recorder.wait_runs(1);
    signal_pid(worker, Signal::STOP);
    daemons.push(start());
    // Only a keeper that has something to renew can fail to.
    ids.extend(db.insert_events("order.created", 1));
    recorder.wait_runs(2);

    let expire = "update outbox_lease set expires_at = clock_timestamp() - interval '1 hour' \
                  where token = (select min(token) from outbox_lease) returning token";
    let token: i64 = db.client().query_one(expire, &[]).unwrap().get(0);
    let keeper = wait_look(&db);
    db.number("select pg_terminate_backend($1)::int::bigint", &[&keeper]);
    // A third of a lease after the first sight, and not yet after the one that followed the
    // failure.
    for _ in 0..2 {
        assert_ne!(wait_look(&db), keeper, "it has no new connection");
    }
    let standing = "select count(*) from outbox_lease where token = $1";
    assert_eq!(db.number(standing, &[&token]), 1, "it was swept");
    signal_pid(worker, Signal::CONT);
    wait_until("the lease is renewed", || db.number(EXPIRED, &[]) == 0);
    recorder.open_gate();

    assert_done_at_first_attempt(&db, &mut daemons, &ids);
    recorder.history().assert_complete(ids, 0);
}

/// Waits until a keeper has looked for expired leases once more; returns its back end.
#[track_caller]
fn wait_look(db: &TestDb) -> i32 {
    let mut client = db.client();
    let now = "select (extract(epoch from clock_timestamp()) * 1e6)::bigint";
    let now = db.number(now, &[]);
    let look = "select pid from pg_stat_activity where datname = current_database() and state = 'idle' \
                and application_name like 'dispatchbox worker%' and query like '%where expires_at < clock_timestamp()%' \
                and extract(epoch from query_start) * 1e6 > $1::bigint";
    let mut found = None;
    wait_until("a keeper looks for expired leases", || {
        found = client.query_opt(look, &[&now]).unwrap();
        found.is_some()
    });
    found.unwrap().get(0)
}

/// Goal: what a trigger refuses or swallows of a lost worker's lease is passed over, and its
/// neighbours are charged and delivered.
#[test]
fn an_expired_lease_with_events_that_cannot_be_charged_frees_all_others() {
    let db = TestDb::new();
    db.execute(
        "create table guard as select 1 as is_on;
         create function hurdle() returns trigger language plpgsql as $$ begin
             if exists (select from guard) then
                 if new.id = 3 then raise exception 'not this one'; end if;
                 if new.id = 4 then return null; end if;
             end if;
             return new; end $$;
         create trigger hurdle before update on outbox_event for each row execute function hurdle()",
    );
    let ids = db.insert_events("order.created", 10);
    let lost = "select count(*) from outbox_claim_2('gone/1', 10, 1000000, '0 s', '-infinity', 0, null, null, null, null) where token is not null";
    assert_eq!(db.number(lost, &[]), 10);
    let recorder = Recorder::new();

    let daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--lease-seconds", "4", "--retry-backoff-seconds", "0.05"])
        .start();
    wait_until("the others are done", || db.count("done") == 8);
    let left = "select count(*) from outbox_lease where expires_at > now() + interval '20 s' and event_ids <@ '{3,4}' and event_ids @> '{3,4}'";
    wait_until("the lease of the rest is postponed", || {
        db.number(left, &[]) == 1
    });
    assert_eq!(recorder.history().len(), 8);
    assert_eq!(
        daemon
            .log()
            .matches("of the expired lease of worker gone/1")
            .count(),
        1,
        "{}",
        daemon.log()
    );
    db.execute("delete from guard");
    db.expire_leases();

    wait_until("all are done", || db.count("done") == 10);
    let exact = "select count(*) from outbox_event where attempts = 2";
    assert_eq!(db.number(exact, &[]), i64::try_from(ids.len()).unwrap());
}
