//! Connections and the pool: they end in time, say why, and are replaced.

use std::net::TcpListener;
use std::num::NonZeroU16;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dispatchbox::dev::cluster::StopMode;
use dispatchbox::domain::event::Outcome;
use dispatchbox::store::dsn::Dsn;
use dispatchbox::store::{Pool, Session, StoreError, StoreErrorKind, Timeouts, connect};

use crate::support::session::{
    RECORD_SETTINGS, TIMEOUTS, claim, query, session, settle, settlements,
};
use crate::support::versions::IdleLimit;
use crate::support::{Front, Proxy, TestDb, cluster, wait_until};

const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(300),
    query: Duration::from_millis(300),
};

fn fails(dsn: &str, timeouts: &Timeouts) -> StoreError {
    let dsn = Dsn::parse(dsn).unwrap();
    let since = Instant::now();
    let Err(error) = connect(&dsn, timeouts, "test") else {
        panic!("connected");
    };
    assert!(since.elapsed() < Duration::from_secs(5));
    error
}

fn pool(db: &TestDb, timeouts: Timeouts, size: u16) -> Pool {
    let dsn = Dsn::parse(&db.dsn()).unwrap();
    Pool::new(dsn, timeouts, NonZeroU16::new(size).unwrap(), "test")
}

/// Goal: a server that accepts and stays silent holds nobody. Method: a listener that never
/// answers; the kernel accepts for it.
#[test]
fn a_silent_server_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();

    let error = fails(
        &format!("host=127.0.0.1 port={port} user=u password=secret dbname=d"),
        &SHORT,
    );

    assert_eq!(error.kind(), &StoreErrorKind::TimedOut);
    assert!(error.is_transient());
    assert_eq!(error.reason(), "timeout");
    assert_eq!(
        error.to_string(),
        "could not connect to the database: no answer within 0.3 s"
    );
}

#[test]
fn a_server_that_is_not_there_is_worth_waiting_for() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();

    let error = fails(
        &format!("host=127.0.0.1 port={port} user=u dbname=d"),
        &TIMEOUTS,
    );

    assert!(error.is_transient() && error.is_connection_lost() && !error.is_configuration());
    assert_eq!(error.reason(), "connection");
    assert_eq!(
        error.to_string(),
        "could not connect to the database: connection refused"
    );
}

#[test]
fn a_wrong_database_or_user_is_not_worth_waiting_for() {
    let db = TestDb::new();
    for (right, wrong) in [
        (db.name(), "nowhere"),
        ("user=postgres", "user=nobody password=secret"),
    ] {
        let error = fails(&db.dsn().replace(right, wrong), &TIMEOUTS);

        assert!(error.is_configuration() && !error.is_transient(), "{error}");
        assert_eq!(error.reason(), "authentication");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn every_session_has_the_settings_that_the_calls_rely_on() {
    let db = TestDb::with_events(1);
    db.execute(RECORD_SETTINGS);
    db.execute(&format!(
        "ALTER DATABASE {0} SET default_transaction_isolation = 'serializable'; ALTER DATABASE {0} SET lock_timeout = 0",
        db.name()
    ));
    let mut session = session(&db);
    let token = claim(&mut session, "a", 1).token;

    settle(&mut session, "a", token, &[1], &Outcome::Done);

    let row = db
        .client()
        .query_one(
            "SELECT concat_ws(', ', lock_timeout, statement_timeout, isolation, jit) FROM settings",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "3s, 30s, read committed, off");
}

/// The sweep of a dead worker looks for its back ends by this name.
#[test]
fn a_session_bears_our_name_whatever_the_dsn_says() {
    let db = TestDb::new();
    let dsn = Dsn::parse(&format!("{} application_name=other", db.dsn())).unwrap();

    let mut session = connect(&dsn, &TIMEOUTS, "dispatchbox worker-00").unwrap();

    assert!(session.has_backend("dispatchbox worker-00").unwrap());
    assert!(!session.has_backend("other").unwrap());
}

#[test]
fn a_statement_ends_with_the_query_timeout() {
    let db = TestDb::with_events(1);
    db.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let mut session = connect(&Dsn::parse(&db.dsn()).unwrap(), &SHORT, "test").unwrap();
    let token = claim(&mut session, "a", 1).token;

    let error = try_to_settle(&mut session, token).unwrap_err();

    assert_eq!(error.kind(), &StoreErrorKind::TimedOut);
    assert!(error.is_transient() && !error.is_connection_lost());
    assert!(!session.is_broken());
    session.now().unwrap();
}

#[test]
fn a_table_that_is_locked_ends_in_a_lock_timeout() {
    let db = TestDb::with_events(1);
    let mut client = db.client();
    let mut person = client.transaction().unwrap();
    person.batch_execute("LOCK TABLE outbox_event").unwrap();
    let mut session = connect(&Dsn::parse(&db.dsn()).unwrap(), &SHORT, "test").unwrap();

    let error = session.claim(&query("a")).unwrap_err();
    person.rollback().unwrap();

    assert!(error.is_lock_timeout() && !error.is_connection_lost());
    assert_eq!(session.claim(&query("a")).unwrap().unwrap().events.len(), 1);
}

#[test]
fn a_server_that_only_reads_is_left() {
    let db = TestDb::with_events(1);
    db.execute(&format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        db.name()
    ));
    let mut session = session(&db);

    let error = session.claim(&query("a")).unwrap_err();

    assert!(error.is_connection_lost() && error.is_transient());
    assert_eq!(error.reason(), "read_only");
    assert!(session.is_broken());
}

#[test]
fn a_pool_replaces_a_connection_that_was_lost() {
    let db = TestDb::with_events(1);
    let pool = pool(&db, TIMEOUTS, 1);
    pool.get().unwrap().now().unwrap();
    let backend = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'test' AND datname = current_database()";
    assert_eq!(db.number(backend, &[]), 1);

    let error = pool.get().unwrap().now().unwrap_err();
    let claimed = pool.get().unwrap().claim(&query("a")).unwrap();

    assert!(error.is_connection_lost() && error.is_transient());
    assert!(
        ["shutdown", "connection"].contains(&error.reason()),
        "{error}"
    );
    assert_eq!(claimed.unwrap().events.len(), 1);
}

#[test]
fn a_pool_keeps_a_connection_whose_statement_failed() {
    let db = TestDb::new();
    let pool = pool(&db, TIMEOUTS, 1);
    let sessions = "SELECT min(pid)::bigint FROM pg_stat_activity WHERE application_name = 'test' AND datname = current_database()";
    pool.get().unwrap().now().unwrap();
    let before = db.number(sessions, &[]);
    db.execute("DROP TABLE outbox_event CASCADE");

    let error = pool.get().unwrap().claim(&query("a")).unwrap_err();
    pool.get().unwrap().now().unwrap();

    assert!(error.is_schema());
    assert_eq!(db.number(sessions, &[]), before);
}

#[test]
fn a_pool_without_a_database_says_at_once_why() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let dsn = Dsn::parse(&format!("host=127.0.0.1 port={port} user=u dbname=d")).unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_mins(1),
        query: Duration::from_mins(1),
    };
    let since = Instant::now();

    let pool = Pool::new(dsn, timeouts, NonZeroU16::new(2).unwrap(), "test");
    let errors = [(); 5].map(|()| pool.get().err().unwrap().to_string());

    assert!(since.elapsed() < Duration::from_secs(10));
    assert_eq!(
        errors,
        ["could not connect to the database: connection refused"; 5]
    );
}

/// Goal: connects that hang use nothing up. Method: more of them than a pool has places and a
/// process may have under way, one after the other; then the server is there.
#[test]
fn silent_servers_use_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let dsn = Dsn::parse(&format!("host=127.0.0.1 port={port} user=u dbname=d")).unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_millis(10),
        ..TIMEOUTS
    };
    let pool = Pool::new(dsn, timeouts, NonZeroU16::MIN, "test");
    for _ in 0..40 {
        let error = pool.get().err().unwrap();
        assert!(
            error.to_string().ends_with(": no answer within 0.01 s"),
            "{error}"
        );
    }

    drop(silent);
    let error = pool.get().err().unwrap();

    assert_eq!(error.reason(), "connection");
}

/// Goal: where every place of a pool is taken by a connect that hangs, the pool is of use again as
/// soon as the server answers.
#[test]
fn a_pool_whose_connects_have_all_hung_is_usable_once_the_server_answers() {
    let db = TestDb::new();
    let proxy = Proxy::to(&db);
    proxy.silence();
    let timeouts = Timeouts {
        connect: Duration::from_millis(500),
        ..TIMEOUTS
    };
    let dsn = Dsn::parse(&proxy.dsn(&db)).unwrap();
    let pool = Pool::new(dsn, timeouts, NonZeroU16::new(2).unwrap(), "test");
    let hanging = [(); 2].map(|()| {
        let pool = pool.clone();
        thread::spawn(move || pool.get().err().unwrap().to_string())
    });
    for thread in hanging {
        let said = thread.join().unwrap();
        assert!(said.ends_with(": no answer within 0.5 s"), "{said}");
    }

    proxy.heal();
    let healed = Instant::now();
    pool.get().unwrap().now().unwrap();
    eprintln!("usable {} ms after healing", healed.elapsed().as_millis());
    assert_eq!(pool.get().unwrap().database().unwrap(), db.name());
}

#[test]
fn a_pool_that_was_made_while_the_database_was_down_works_when_it_is_up() {
    let mut server = cluster::private();
    let db = TestDb::on(&server);
    server.stop(StopMode::Immediate).unwrap();
    let pool = pool(&db, TIMEOUTS, 2);
    assert!(pool.get().err().unwrap().is_connecting());

    server.start_again().unwrap();

    pool.get().unwrap().now().unwrap();
}

#[test]
fn a_host_that_is_silent_or_gone_does_not_hide_the_next_one() {
    let db = TestDb::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let gone = port(&TcpListener::bind("127.0.0.1:0").unwrap());
    let hosts = |directory: &str| {
        format!(
            "host=127.0.0.1,127.0.0.1,{directory} port={},{gone},5432",
            port(&silent)
        )
    };
    let directory = db
        .dsn()
        .split_whitespace()
        .next()
        .unwrap()
        .replace("host=", "");
    let dsn = db
        .dsn()
        .replace(&format!("host={directory}"), &hosts(&directory));
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        ..TIMEOUTS
    };

    let mut session = connect(&Dsn::parse(&dsn).unwrap(), &timeouts, "test").unwrap();

    session.now().unwrap();
    // Of several hosts only one that can be written to is any good.
    db.execute(&format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        db.name()
    ));
    let error = fails(&dsn, &timeouts);
    assert!(error.is_transient(), "{error}");
}

#[test]
fn a_pool_with_all_connections_lent_says_so_in_time() {
    let db = TestDb::new();
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        ..TIMEOUTS
    };
    let pool = pool(&db, timeouts, 1);
    let lent = pool.get().unwrap();

    let error = pool.get().err().unwrap();
    drop(lent);

    assert_eq!(error.kind(), &StoreErrorKind::TimedOut);
    assert!(
        error
            .to_string()
            .ends_with("no connection of the pool was free within 1 s"),
        "{error}"
    );
    pool.get().unwrap().now().unwrap();
}

/// Goal: a connect that takes long is waited for, and no further one is begun for the same caller.
#[test]
fn a_slow_connect_fills_no_pool() {
    let db = TestDb::new();
    let dsn = Dsn::parse(&format!("{} options='-c post_auth_delay=1'", db.dsn())).unwrap();
    let pool = Pool::new(dsn, TIMEOUTS, NonZeroU16::new(4).unwrap(), "test");

    pool.get().unwrap().now().unwrap();

    let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test' AND datname = current_database()";
    assert_eq!(db.number(there, &[]), 1);
}

#[test]
fn a_pooled_connection_that_the_server_has_closed_is_replaced_before_it_is_lent() {
    let db = TestDb::new();
    let idle_limit = IdleLimit::of(&db);
    let pool = pool(&db, TIMEOUTS, 1);
    pool.get().unwrap().now().unwrap();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test' AND datname = current_database()";
    wait_until("the server has closed it", || {
        idle_limit.look();
        db.number(there, &[]) == 0
    });

    pool.get().unwrap().now().unwrap();
}

/// Goal: a connection to a server that is stopped without being gone can be closed.
#[test]
fn closing_a_connection_does_not_wait_for_a_server_that_is_frozen() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let front = Front::of(&db);
    let sessions = [db.dsn(), front.dsn(&db)]
        .map(|dsn| connect(&Dsn::parse(&dsn).unwrap(), &TIMEOUTS, "test").unwrap());

    server.pause().unwrap();
    let (sender, closed) = mpsc::channel();
    let closing = thread::spawn(move || {
        drop(sessions);
        sender.send(())
    });
    let is_closed = closed.recv_timeout(Duration::from_secs(20));
    server.resume().unwrap();

    assert_eq!(is_closed, Ok(()));
    closing.join().unwrap().unwrap();
}

/// Goal: a call that the server does not answer ends a little after the time that it may take, by
/// TCP and by a Unix socket.
#[test]
fn a_call_to_a_server_that_is_frozen_ends() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    let front = Front::of(&db);
    let mut sessions = [db.dsn(), front.dsn(&db)]
        .map(|dsn| connect(&Dsn::parse(&dsn).unwrap(), &SHORT, "test").unwrap());

    server.pause().unwrap();
    let (sender, answers) = mpsc::channel();
    let calling = thread::spawn(move || {
        let errors = sessions
            .each_mut()
            .map(|session| session.now().unwrap_err());
        // The test may have given up.
        let _ = sender.send(errors);
    });
    let answers = answers.recv_timeout(Duration::from_secs(20));
    server.resume().unwrap();

    for error in answers.unwrap() {
        assert!(error.is_connection_lost() && error.is_transient());
        assert_eq!(
            error.to_string(),
            "could not read the clock: no answer within 1.3 s"
        );
    }
    calling.join().unwrap();
}

fn try_to_settle(session: &mut Session, token: i64) -> Result<(), StoreError> {
    let outcomes = settlements(token, &[1], &Outcome::Done);
    let batch = dispatchbox::store::SettleBatch {
        worker: "a",
        outcomes: &outcomes,
        ended: &[],
        expired: false,
    };
    session.settle(&batch).map(|_| ())
}
