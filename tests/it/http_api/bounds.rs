//! Calls of the API: few at a time, each with an end, and nothing else waits for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use dispatchbox::dev::cluster::StopMode;

use super::{Holding, with_dead};
use crate::support::{Answer, Daemon, RunningDaemon, TestDb, cluster, wait_until};

/// Calls of the API that wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dispatchbox api' AND wait_event_type = 'Lock'";

/// An answer that waits for nothing comes within this time, on a machine that is busy with
/// something else; what waits for a lock waits longer.
const AT_ONCE: Duration = Duration::from_secs(2);

#[track_caller]
fn at_once(daemon: &RunningDaemon, path: &str) -> Answer {
    let since = Instant::now();
    let host = "Host: localhost\r\n";
    let answer = daemon.exchange("127.0.0.1", "GET", path, host, "");
    let took = since.elapsed();
    assert!(took < AT_ONCE, "{path} took {took:?}");
    answer
}

#[track_caller]
fn check_at_once(daemon: &RunningDaemon, path: &str, status: u16, body: &str) {
    let answer = at_once(daemon, path);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (status, body),
        "{path}"
    );
}

const TOO_MANY: &str = r#"{"error":"too many API calls at the same time"}"#;

const TOO_SLOW: &str = r#"{"error":"database did not answer in time"}"#;

/// No place becomes free in time. On a machine that is very busy the request may come so late that
/// one does, and then it is stuck itself.
#[track_caller]
fn check_no_place(daemon: &RunningDaemon, path: &str) {
    let host = "Host: localhost\r\n";
    let answer = daemon.exchange("127.0.0.1", "GET", path, host, "");
    assert_eq!(answer.status, 503, "{path} {}", answer.body);
    assert!(
        [TOO_MANY, TOO_SLOW].contains(&answer.body.as_str()),
        "{answer:?}"
    );
    assert_eq!(answer.header("Retry-After"), Some("1"));
}

/// Asks four hundred times, fifty clients at a time.
#[track_caller]
fn check_all_answered(daemon: &RunningDaemon, path: &str) {
    daemon.http_port();
    let failures: Vec<(u16, String)> = thread::scope(|scope| {
        let ask = || (0..8).map(|_| daemon.get(path)).collect::<Vec<_>>();
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
        let answers = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        answers.filter(|(status, _)| *status != 200).collect()
    });
    let first = failures.first();
    assert_eq!(failures.len(), 0, "{path} {first:?}");
}

/// Goal: whoever asks for many things at once gets all of them, a few at a time.
#[test]
fn four_hundred_requests_fifty_at_a_time_are_all_answered() {
    let db = with_dead(3);
    let holding = Holding::on(&db);

    check_all_answered(&holding.daemon, "/api/dead-events");
}

#[test]
fn four_hundred_looks_fifty_at_a_time_are_all_answered() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    for path in ["/ready", "/metrics", "/", "/api/status", "/health"] {
        check_all_answered(&daemon, path);
    }
}

/// Goal: those who wait for a call do not take all connections: whoever comes then is refused at
/// once and in words, and `/health` has its place.
#[test]
fn more_requests_than_may_wait_are_refused_in_words() {
    let db = with_dead(1);
    let holding = Holding::on(&db);
    let daemon = &holding.daemon;
    daemon.http_port();
    let mut client = db.client();
    let mut lock = client.transaction().unwrap();
    lock.batch_execute("LOCK TABLE outbox_event").unwrap();

    // With the one for /health no more than the guard has places for.
    let answers: Vec<Option<(u16, String)>> = thread::scope(|scope| {
        let ask = || daemon.try_request("GET", "/api/dead-events", "", "");
        let clients: Vec<_> = (0..62).map(|_| scope.spawn(ask)).collect();
        for _ in 0..5 {
            check_at_once(daemon, "/health", 200, r#"{"status":"ok"}"#);
        }
        let answers = clients.into_iter().map(|client| client.join().unwrap());
        answers.collect()
    });

    let mut n_at_once = 0;
    for answer in answers {
        let (status, body) = answer.expect("an answer, and no end without one");
        assert_eq!(status, 503, "{body}");
        n_at_once += u32::from(body.contains("too many requests at once"));
    }
    assert!(n_at_once > 0);
}

/// Goal: while all calls are stuck, each further request hears so once it has waited for a place,
/// however many wait, and `/health` does not notice.
#[test]
fn requests_that_find_no_place_are_refused_together_and_not_one_after_the_other() {
    let db = with_dead(1);
    let holding = Holding::on(&db);
    let daemon = &holding.daemon;
    let mut client = db.client();
    let mut lock = client.transaction().unwrap();
    lock.batch_execute("LOCK TABLE outbox_event").unwrap();
    let is_over = AtomicBool::new(false);

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    daemon.get("/api/dead-events");
                }
            });
        }
        wait_until("four calls wait for the lock", || {
            db.number(WAITING, &[]) == 4
        });
        let since = Instant::now();
        let refused: Vec<_> = (0..30)
            .map(|_| scope.spawn(|| check_no_place(daemon, "/api/dead-events/stats")))
            .collect();
        check_at_once(daemon, "/health", 200, r#"{"status":"ok"}"#);
        let refused: Vec<_> = refused.into_iter().map(ScopedJoinHandle::join).collect();
        let took = since.elapsed();
        is_over.store(true, Ordering::Relaxed);
        lock.rollback().unwrap();
        assert!(refused.iter().all(Result::is_ok));
        // One after the other they would take a minute.
        assert!(took < Duration::from_secs(25), "{took:?}");
    });
}

/// Goal: a locked table holds four calls, each only for a time; a fifth is refused, and who asks
/// for /health does not notice.
#[test]
fn a_locked_table_holds_four_calls_and_nobody_else() {
    let db = with_dead(1);
    let holding = Holding::on(&db);
    let daemon = &holding.daemon;
    let mut client = db.client();
    let mut lock = client.transaction().unwrap();
    lock.batch_execute("LOCK TABLE outbox_event").unwrap();

    thread::scope(|scope| {
        let stuck: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| daemon.get("/api/dead-events")))
            .collect();
        wait_until("four calls wait for the lock", || {
            db.number(WAITING, &[]) == 4
        });
        check_no_place(daemon, "/api/dead-events/stats");
        check_at_once(daemon, "/health", 200, r#"{"status":"ok"}"#);
        for call in stuck {
            assert_eq!(call.join().unwrap(), (503, TOO_SLOW.to_owned()));
        }
    });
    lock.rollback().unwrap();

    assert_eq!(holding.listed(""), [1]);
    daemon.wait_log("API calls succeed again");
    let log = daemon.log();
    assert_eq!(log.matches("an API call failed").count(), 1, "{log}");
}

/// Goal: a server that is stuck in the middle of a call, where no timeout of its own helps, keeps
/// nobody waiting for ever. Method: the calls wait for a lock when every process of the server is
/// stopped.
#[test]
fn a_stuck_server_holds_four_calls_and_nobody_else() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    let mut client = db.client();
    client
        .batch_execute("BEGIN; LOCK TABLE outbox_event")
        .unwrap();

    thread::scope(|scope| {
        let stuck: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| daemon.get("/api/dead-events")))
            .collect();
        wait_until("four calls wait for the lock", || {
            db.number(WAITING, &[]) == 4
        });
        server.pause().unwrap();
        check_no_place(&daemon, "/api/dead-events");
        for call in stuck {
            assert_eq!(call.join().unwrap(), (503, TOO_SLOW.to_owned()));
        }
        // Their calls were ended, and their places are free: who asks now hears that there is no
        // way to the database.
        let away = r#"{"error":"database unavailable"}"#.to_owned();
        assert_eq!(daemon.get("/api/dead-events"), (503, away));
        check_at_once(&daemon, "/health", 200, r#"{"status":"ok"}"#);
        server.resume().unwrap();
    });
    drop(client);

    wait_until("the places are free again", || {
        daemon.get("/api/dead-events").0 == 200
    });
}

/// Goal: at the beginning of an outage, when everybody wants to see what is going on, those who
/// wait to hear whether the daemon is ready keep nobody else from it.
#[test]
fn a_stuck_server_holds_who_asks_for_ready_and_nobody_else() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    server.pause().unwrap();

    thread::scope(|scope| {
        let asks = || wait_until("it is not ready", || daemon.get("/ready").0 == 503);
        let asking: Vec<_> = (0..12).map(|_| scope.spawn(asks)).collect();
        while !asking.iter().all(ScopedJoinHandle::is_finished) {
            for path in ["/metrics", "/", "/api/status"] {
                assert_eq!(at_once(&daemon, path).status, 200, "{path}");
            }
        }
        server.resume().unwrap();
    });
}

#[test]
fn a_database_that_is_away_is_told_and_used_again_when_it_is_back() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    server.stop(StopMode::Fast).unwrap();
    let unavailable = r#"{"error":"database unavailable"}"#;
    for (method, path, body) in [
        ("GET", "/api/dead-events", ""),
        ("GET", "/api/dead-events/stats", ""),
        ("GET", "/api/dead-events/1", ""),
        ("POST", "/api/dead-events/1/retry", ""),
        ("POST", "/api/dead-events/discard", r#"{"all": true}"#),
        (
            "POST",
            "/api/dead-events/retry-batch",
            r#"{"event_ids": [1]}"#,
        ),
    ] {
        let host = "Host: localhost\r\n";
        let answer = daemon.exchange("127.0.0.1", method, path, host, body);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (503, unavailable),
            "{path}"
        );
        assert_eq!(answer.header("Retry-After"), Some("1"));
    }
    server.start_again().unwrap();

    assert_eq!(daemon.get("/api/dead-events").0, 200);
}

#[test]
fn what_the_database_refuses_is_told_in_the_log_alone() {
    let db = with_dead(1);
    let holding = Holding::on(&db);
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the secret reason'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON outbox_event FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
    );

    let refused = r#"{"error":"the database refused the call"}"#;
    holding.check("POST", "/api/dead-events/1/retry", "", 500, refused);
    wait_until("the log says why", || {
        holding.daemon.log().contains("the secret reason")
    });
    db.execute("DROP FUNCTION outbox_requeue_2");
    let not_usable = r#"{"error":"schema not usable"}"#;
    holding.check("POST", "/api/dead-events/1/retry", "", 503, not_usable);
}

/// Goal: calls borrow their connections: one after the other they need one.
#[test]
fn calls_one_after_the_other_share_a_connection() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    let there = "select count(*) from pg_stat_activity where datname = current_database() and application_name like '%dispatchbox api'";

    for _ in 0..20 {
        assert_eq!(daemon.get("/api/dead-events").0, 200);
    }

    assert_eq!(db.number(there, &[]), 1);
}
