//! What the fetcher claims, when, and how much of it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{config, exec, limited, log};
use crate::support::{
    Daemon, Receiver, Recorder, TestDb, TestDir, n_events, outlast, signal_pid, wait_until,
};

/// Goal: when a handler returns, the next event is claimed for its runner, although a look for
/// another route took long. Method: a look for nothing but the limited route waits for a lock; the
/// others are written down with their time.
#[test]
fn a_long_look_for_one_route_holds_up_no_other_route() {
    const HELD: Duration = Duration::from_secs(4);
    let db = TestDb::new();
    db.execute("create table general_claim (at timestamptz)");
    db.wrap_claims(
        "if takes[1] = 0 then perform pg_advisory_xact_lock(1); else insert into general_claim values (clock_timestamp()); end if;",
    );
    db.insert_events("rare.one", 1);
    db.insert_events("order.created", 6);
    let (directory, recorder) = (TestDir::new(), Recorder::new().gated());
    let routes = [limited("rare.*", 1), exec("*", &recorder.program(), "")];
    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--max-parallel", "2", "--poll-interval", "3600"])
        .start();
    recorder.wait_runs(2);

    let mut client = db.client();
    client.batch_execute("select pg_advisory_lock(1)").unwrap();
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                   and database = (select oid from pg_database where datname = current_database())";
    wait_until("a look for the limited route waits", || {
        db.number(waiting, &[]) == 1
    });
    let since = Instant::now();
    outlast(since, HELD, "it has taken long");
    client
        .batch_execute(
            "create table released as select clock_timestamp() as at; select pg_advisory_unlock(1)",
        )
        .unwrap();
    wait_until("the look has ended", || db.number(waiting, &[]) == 0);
    recorder.open_gate();
    wait_until("a third event is handled", || recorder.history().len() > 2);

    let wait = "select (extract(epoch from min(general_claim.at) - max(released.at)) * 1000)::bigint \
                from general_claim, released where general_claim.at > released.at";
    let wait_ms = db.number(wait, &[]);
    assert!(
        wait_ms < i64::try_from(HELD.as_millis()).unwrap(),
        "the next claim came after {wait_ms} ms"
    );
}

/// Goal: daemons with different routes share a table, each leaving to the other what it has no
/// route for. Method: the events of the other stand in front, more of them than a look reads.
#[test]
fn events_that_no_route_takes_are_left_for_a_daemon_that_has_one() {
    let db = TestDb::new();
    insert_types(&db, "many", 20_000);
    db.insert_events("order.created", 3);
    db.insert_events("invoice.paid", 2);
    db.insert_events("invoice.sent", 1);
    let directory = TestDir::new();
    let own = "[[route]]\nname = 'own'\nevent_type = ['order.*', 'invoice.paid']\nhandler = 'log'\nmax_parallel = 2\n";

    let daemon = Daemon::new(&db)
        .args([
            "--config",
            &config(&directory, &[own.to_owned()]),
            "--unrouted",
            "leave",
        ])
        .start();
    wait_until("its own events are done", || db.count("done") == 5);
    db.insert_events("order.created", 1);
    wait_until("so is one that comes later", || db.count("done") == 6);

    let left = "status = 'pending' and attempts = 0 and last_error is null";
    assert_eq!(db.count_where(left), 20_001);
    wait_until("the metrics have the name of the route", || {
        daemon.get("/metrics").1.contains("event_type=\"own\"")
    });
    let _other = Daemon::new(&db)
        .args(["--route", "*=log", "--unrouted", "leave"])
        .start();
    wait_until("another daemon delivers the rest", || {
        db.count("done") == 20_007
    });
    assert_eq!(db.count_where("attempts <> 1"), 0);
}

/// Goal: it is so without any limited route, too, and while next to nothing is due. Method: each
/// event comes into an idle table.
#[test]
fn an_idle_daemon_that_leaves_events_claims_its_own() {
    let db = TestDb::new();
    let mut daemon = Daemon::new(&db)
        .args(["--route", "order.*=log", "--unrouted", "leave"])
        .args(["--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();

    for n_own in 1..=3 {
        db.insert_events("mail.sent", 1);
        db.insert_events("order.created", 1);
        wait_until("its own event is done", || db.count("done") == n_own);
    }

    assert_eq!(db.count_where("status = 'pending' and attempts = 0"), 3);
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}

/// A program that runs until its input is closed and beyond: its route stays full.
const ENDLESS: &str = "/bin/sleep\", \"3600";

/// Goal: hundreds of thousands of due events of a full route hold up no other, neither at the start
/// nor later. A million (`DISPATCHBOX_TEST_EVENTS`) take the suite too long to insert.
#[test]
fn hundreds_of_thousands_of_events_of_a_full_route_hold_up_no_other() {
    let db = TestDb::new();
    let n = i64::from(n_events(200_000));
    let insert = "with added as (insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
                  select 't', i::text, 'full.one', '{}' from generate_series(1, $1::bigint) i returning 1) \
                  select count(*) from added";
    assert_eq!(db.number(insert, &[&n]), n);
    let directory = TestDir::new();
    let full = "max_parallel = 1\ntimeout_seconds = 3600";
    let routes = [exec("full.*", ENDLESS, full), log("*")];
    db.insert_events("other.one", 3);

    let daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .start();
    wait_until("the events behind are done", || db.count("done") == 3);
    db.insert_events("other.two", 3);
    wait_until("so are those that come later", || db.count("done") == 6);

    let other = "event_type like 'other.%' and attempts <> 1";
    assert_eq!(db.count_where(other), 0, "{}", daemon.log());
}

/// Goal: the due events of a full route hold up no other route, whatever the number of their types,
/// and none of them is claimed to be given back.
#[test]
fn events_behind_those_of_a_full_route_are_delivered() {
    let db = TestDb::new();
    insert_types(&db, "many", 20_000);
    db.execute(
        "create sequence n_claims; create function count_claim() returns trigger language plpgsql as $$ begin
             perform nextval('n_claims'); return null; end $$;
         create trigger count_claim after insert on outbox_lease for each row execute function count_claim()",
    );
    let directory = TestDir::new();
    let routes = [
        exec(
            "many.*",
            ENDLESS,
            "max_parallel = 1\ntimeout_seconds = 3600",
        ),
        limited("few.*", 2),
        log("*"),
    ];
    db.insert_events("few.one", 1);
    db.insert_events("other.one", 1);

    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .start();
    wait_until("the events behind are done", || db.count("done") == 2);
    db.insert_events("few.two", 1);
    db.insert_events("other.two", 1);
    wait_until("so are those that come later", || db.count("done") == 4);

    let n_claims = db.number("select last_value from n_claims", &[]);
    assert!(n_claims <= 5, "{n_claims} claims for 5 events");
}

/// Goal: a look that exceeds the time of a statement is made again with a shorter stretch and goes
/// on from where it was, for each route. Method: looks over more than 100 entries take longer than
/// a statement may.
#[test]
fn a_look_that_takes_too_long_is_made_again_over_less() {
    let db = TestDb::new();
    db.wrap_claims("if stretch > 100 then perform pg_sleep(60); end if;");
    db.insert_events("full.one", 2_000);
    let directory = TestDir::new();
    let routes = [
        exec(
            "full.*",
            ENDLESS,
            "max_parallel = 1\ntimeout_seconds = 3600",
        ),
        limited("few.*", 2),
        log("*"),
    ];
    db.insert_events("few.one", 1);
    db.insert_events("other.one", 1);

    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--query-timeout", "1"])
        .start();

    wait_until("the events behind are done", || db.count("done") == 2);
}

/// Goal: where finished events, which a transaction elsewhere keeps, stand in front of the next due
/// one in such number that no look gets past them, they are skipped. Method: a look that starts
/// anywhere but right in front of the next event takes longer than a statement may.
#[test]
fn finished_events_that_no_look_gets_past_are_skipped() {
    let db = TestDb::new();
    db.wrap_claims(
        "if after_at < (select min(e.next_run_at) from outbox_event e where e.status in ('pending', 'retry')) then
             perform pg_sleep(60);
         end if;",
    );
    db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, next_run_at)
         select 't', i::text, 'order.created', '{}', now() - interval '1 day' / i from generate_series(1, 3) i",
    );

    let _daemon = Daemon::new(&db)
        .args(["--query-timeout", "1", "--route", "*=log"])
        .start();

    wait_until("all are done", || db.count("done") == 3);
}

/// Goal: a route with a limit that has taken all it may goes on behind the last event it took; so
/// do its neighbors, each from its own place. Method: the front takes long, so it is left alone for
/// ten seconds after each step: by its steps alone the events would take minutes.
#[test]
fn limited_routes_go_on_where_each_of_them_stopped() {
    let db = TestDb::new();
    db.wrap_claims("if after_at = '-infinity' then perform pg_sleep(0.5); end if;");
    // Long ago: what became due lately is looked for as well.
    let sql = "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, next_run_at) \
               select 't', i::text, (array['a.x', 'b.x', 'other.x'])[i % 3 + 1], '{}', now() - interval '1 hour' \
               from generate_series(1, 300) i";
    db.execute(sql);
    let directory = TestDir::new();
    let routes = [limited("a.*", 1), limited("b.*", 2), log("*")];

    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .start();

    wait_until("all events are done", || db.count("done") == 300);
}

/// Goal: where no route has a limit, too, rows that are locked by another program, however many,
/// cost a bounded look. Method: an unbounded look takes longer than a statement may, as it would
/// over millions of locked rows.
#[test]
fn a_look_without_a_bound_gets_one_after_it_took_too_long() {
    let db = TestDb::with_events(1);
    db.wrap_claims("if stretch is null then perform pg_sleep(60); end if;");

    let _daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--query-timeout", "1"])
        .start();

    wait_until("the event is done", || db.count("done") == 1);
}

/// Goal: events that their worker gives back unstarted are claimed again, although they lie before
/// its cursor. Method: the front is dear, so the fetcher leaves it alone for an hour; the claimed
/// event's lease is too old to start it.
#[test]
fn events_that_are_given_back_are_looked_for_at_once() {
    let db = TestDb::with_events(2);
    let (recorder, directory) = (Recorder::new().gated(), TestDir::new());
    let routes = [exec("*", &recorder.program(), "")];
    let daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args([
            "--max-parallel",
            "1",
            "--batch-size",
            "2",
            "--lease-seconds",
            "4",
        ])
        .start();
    wait_until("one of two claimed events is handled", || {
        recorder.history().len() == 1 && db.leases() == 1
    });

    // While the worker stands still its lease comes to an end; the second event may not be started
    // under it.
    let worker = daemon.worker_pids()[0];
    signal_pid(worker, Signal::STOP);
    db.execute("update outbox_lease set expires_at = expires_at");
    let since = Instant::now();
    outlast(
        since,
        Duration::from_secs(4),
        "the lease is over for its worker",
    );
    signal_pid(worker, Signal::CONT);
    recorder.open_gate();

    wait_until("both are done", || db.count("done") == 2);
}

/// Goal: what it took to connect is no reason to leave the front of the due events alone. Method:
/// connecting takes a second, after which a front that had cost as much would be left alone for
/// twenty.
#[test]
fn a_slow_connect_is_not_taken_for_a_dear_scan() {
    let db = TestDb::new();
    db.insert_events("order.created", 1);
    let daemon = Daemon::new(&db)
        .dsn(format!("{} options='-c post_auth_delay=1'", db.dsn()))
        .route("*=log")
        .args(["--poll-interval", "0.05"])
        .start();
    wait_until("the first event is done", || db.count("done") == 1);

    db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, next_run_at) \
         values ('order', '2', 'order.created', '{}', now() - interval '1 hour')",
    );

    wait_until("the one before it is done", || db.count("done") == 2);
    assert_eq!(daemon.get("/health").0, 200);
}

/// Goal: however few events the queue holds, it holds no more bytes than one claim may bring, and
/// one claim more. Method: many small events make the fetcher look far ahead; then large ones come.
/// The database notes at each claim what is out.
#[test]
fn the_queue_is_bounded_by_bytes() {
    const LARGE: i64 = 100_000;
    const BATCH: i64 = 3 * LARGE;
    const N_LARGE: i64 = 60;
    let db = TestDb::new();
    db.execute(
        "create table claimed (n_events int, bytes bigint);
         create function note_claim() returns trigger language plpgsql as $$ begin
             insert into claimed select cardinality(new.event_ids), sum(octet_length(payload::text) + coalesce(octet_length(headers::text), 0)) from outbox_event
              where status = 'pending' and id in (select unnest(event_ids) from outbox_lease);
             return null; end $$;
         create trigger note_claim after insert on outbox_lease for each row execute function note_claim()",
    );
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(20));
    let _daemon = Daemon::new(&db)
        .route("small.*=log")
        .route(receiver.route("*"))
        .args([
            "--max-parallel",
            "1",
            "--poll-interval",
            "0.05",
            "--log-level",
            "WARNING",
        ])
        .args(["--max-batch-bytes", &BATCH.to_string()])
        .start();
    let n_largest = "select coalesce(max(n_events), 0)::bigint from claimed";
    wait_until("claims have grown beyond the large events", || {
        db.insert_events("small.one", 2000);
        wait_until("the small events are done", || db.count("pending") == 0);
        db.number(n_largest, &[]) >= 4 * N_LARGE
    });

    db.execute("truncate claimed");
    db.number(
        "with large as (insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, headers) \
         select 't', i::text, 'large.one', case i % 6 when 0 then large else '1' end, case i % 6 when 0 then null else large end \
           from generate_series(1, $2::bigint) i, to_jsonb(repeat('x', $1::int)) large returning 1) \
         select count(*) from large",
        &[&(i32::try_from(LARGE).unwrap() - 2), &N_LARGE],
    );
    wait_until("the large ones are done", || db.count("pending") == 0);

    // Not full, and then one claim; one in hand, and a few whose outcome is on its way.
    let bound = 2 * BATCH + 5 * LARGE;
    let most = db.number("select max(bytes) from claimed", &[]);
    assert!(most <= bound, "{most} bytes were claimed, of {bound}");
    assert!(most >= BATCH, "{most} bytes at most: nothing was queued");
}

/// Goal: every event of many types of routes with limits is delivered, at its first attempt.
#[test]
fn events_of_many_types_of_limited_routes_are_all_delivered() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let routes = [limited("a.*", 8), limited("b.*", 8)];
    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--batch-size", "5", "--poll-interval", "0.02"])
        .start();

    insert_types(&db, "b", 700);
    insert_types(&db, "a", 1010);
    wait_until("all events are done", || db.count("done") == 1710);
    for event_type in ["a.1", "a.500", "a.1005", "b.1", "b.600"] {
        db.insert_events(event_type, 1);
    }
    wait_until("the later ones are done", || db.count("done") == 1715);

    let more = "select count(*) from outbox_event where attempts <> 1";
    assert_eq!(db.number(more, &[]), 0);
}

/// Commits one due event of each of `n` types.
fn insert_types(db: &TestDb, prefix: &str, n: i64) {
    let sql = "with added as (insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
               select 't', i::text, $1 || '.' || i, '{}' from generate_series(1, $2::bigint) i returning 1) \
               select count(*) from added";
    assert_eq!(db.number(sql, &[&prefix, &n]), n);
}
