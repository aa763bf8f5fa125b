//! What the fetcher claims, when, and how much of it.

use std::time::{Duration, Instant};

use super::{config, exec, limited};
use crate::support::{Daemon, Receiver, Recorder, TestDb, TestDir, wait_until, wait_until_within};

/// Each claim of a limited route's own lane waits for this lock first, and each claim of the others is written down with its time.
const HOLD_LANES: &str = "
    create schema original;
    alter function outbox_claim_1 set schema original;
    create table general_claim (at timestamptz);
    create function outbox_claim_1(worker text, events_max int, lease interval, after_at timestamptz, after_id bigint,
                                   leave_out text[], take_only text[], bytes_max bigint)
    returns table (token bigint, id bigint, aggregate_type text, aggregate_id text, event_type text, payload text, attempts int,
                   next_run_at timestamptz, created_at timestamptz, headers text)
    language plpgsql set lock_timeout = 0 as $$ begin
        if take_only is null then
            insert into general_claim values (clock_timestamp());
        else
            perform pg_advisory_xact_lock(1);
        end if;
        return query select * from original.outbox_claim_1(worker, events_max, lease, after_at, after_id, leave_out, take_only, bytes_max);
    end $$";

/// Goal: when a handler returns, the next event is claimed for its runner, although the lane of another route was just found empty.
/// Method: a look into that lane is made to take long, as nobody repeats such a look before the same time has passed again.
#[test]
fn an_empty_lane_of_a_limited_route_holds_up_no_other_route() {
    const HELD: Duration = Duration::from_secs(4);
    let db = TestDb::new();
    db.execute(HOLD_LANES);
    db.insert_events("rare.one", 1);
    db.insert_events("order.created", 6);
    let (directory, recorder) = (TestDir::new(), Recorder::new().gated());
    let routes = [limited("rare.*", 1), exec("*", &recorder.program(), "")];
    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--max-parallel", "2", "--poll-interval", "3600"])
        .start();
    wait_until("both runners are busy", || recorder.history().len() == 2);

    let mut client = db.client();
    client.batch_execute("select pg_advisory_lock(1)").unwrap();
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                   and database = (select oid from pg_database where datname = current_database())";
    wait_until("a look into the lane waits", || {
        db.number(waiting, &[]) == 1
    });
    let since = Instant::now();
    wait_until("it has taken long", || since.elapsed() >= HELD);
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

/// Goal: what it took to connect is no reason to leave the front of the due events alone.
/// Method: connecting takes a second, after which a front that had cost as much would be left alone for twenty.
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

/// Goal: however few events the queue holds, it holds no more bytes than one claim may bring, and one claim more.
/// Method: many small events make the fetcher look far ahead; then large ones come. The database notes at each claim what is out.
#[test]
fn the_queue_is_bounded_by_bytes() {
    const LARGE: i64 = 100_000;
    const BATCH: i64 = 3 * LARGE;
    const N_LARGE: i64 = 60;
    let db = TestDb::new();
    db.execute(
        "create table claimed (n_events int, bytes bigint);
         create function note_claim() returns trigger language plpgsql as $$ begin
             insert into claimed select cardinality(new.event_ids), sum(octet_length(payload::text)) from outbox_event
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
    wait_until_within(
        Duration::from_mins(1),
        "claims have grown beyond the large events",
        || {
            db.insert_events("small.one", 2000);
            wait_until("the small events are done", || db.count("pending") == 0);
            db.number(n_largest, &[]) >= 4 * N_LARGE
        },
    );

    db.execute("truncate claimed");
    db.number(
        "with large as (insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
         select 't', i::text, 'large.one', to_jsonb(repeat('x', $1::int)) from generate_series(1, $2::bigint) i returning 1) \
         select count(*) from large",
        &[&(i32::try_from(LARGE).unwrap() - 2), &N_LARGE],
    );
    wait_until_within(Duration::from_mins(1), "the large ones are done", || {
        db.count("pending") == 0
    });

    // Not full, and then one claim; one in hand, and a few whose outcome is on its way.
    let bound = 2 * BATCH + 3 * LARGE;
    let most = db.number("select max(bytes) from claimed", &[]);
    assert!(most <= bound, "{most} bytes were claimed, of {bound}");
    assert!(most >= BATCH, "{most} bytes at most: nothing was queued");
}

/// Goal: claims that bring only events of a full route, of ever more types, are no reason to claim again at once.
/// Method: the waits between fruitless looks double, so there are about ten in the first seconds; the database counts the claims.
#[test]
fn events_of_a_full_route_whose_types_are_new_are_not_claimed_in_a_busy_loop() {
    let db = TestDb::new();
    insert_types(&db, "many", 1200);
    db.execute(
        "create sequence n_claims; create function count_claim() returns trigger language plpgsql as $$ begin
             perform nextval('n_claims'); return null; end $$;
         create trigger count_claim after insert on outbox_lease for each row execute function count_claim()",
    );
    let (directory, recorder) = (TestDir::new(), Recorder::new().gated());
    let routes = [exec("many.*", &recorder.program(), "max_parallel = 1")];
    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        .args(["--poll-interval", "3600"])
        .start();
    wait_until("the route is full", || recorder.history().len() == 1);

    let since = Instant::now();
    let n_claims = || db.number("select last_value from n_claims", &[]);
    wait_until("many claims, or time for few of them, have passed", || {
        n_claims() > 20 || since.elapsed() > Duration::from_secs(5)
    });

    assert!(n_claims() <= 20, "{} claims", n_claims());
    assert_eq!(recorder.history().len(), 1);
}

/// Goal: a lane that has too many types to name forgets them together with the general one: what that leaves out is always claimed
/// somewhere.
/// Method: the types of `b` fill the general lane, so that it forgets when the lane of `a` is not full yet; later that one is, when
/// the general one is not. A type that was learned in between comes again.
#[test]
fn events_of_more_types_than_a_claim_can_name_are_all_delivered() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let routes = [limited("a.*", 8), limited("b.*", 8)];
    let _daemon = Daemon::new(&db)
        .args(["--config", &config(&directory, &routes)])
        // Smaller than the routes' limits: what is claimed is delivered, and types are learned in their order.
        .args(["--batch-size", "5", "--poll-interval", "0.02"])
        .start();

    insert_types(&db, "b", 700);
    insert_types(&db, "a", 1010);
    wait_until_within(Duration::from_mins(1), "all events are done", || {
        db.count("done") == 1710
    });
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
