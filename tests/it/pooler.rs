//! PgBouncer between us and the database, shared with an application: it finds nothing of ours
//! there, and events are delivered through it.

use std::collections::BTreeMap;

use postgres::{Client, NoTls};

use crate::support::{Cli, Daemon, PgBouncer, Receiver, Recorder, TestDb, wait_until};

/// Connections that the pooler lends.
const SIZE: u16 = 3;

/// Goal: whatever the daemon does, the application finds its own settings on every connection of
/// the pool, and no statement of ours. Method: all of them are looked at before and after: each is
/// held while the next one is asked for.
#[test]
fn nothing_of_ours_stays_on_a_connection_that_others_use() {
    let db = TestDb::new();
    let bouncer = PgBouncer::start(&db, "transaction", SIZE, "");
    let before = settings_of_all(&bouncer, &db);
    assert_eq!(before.len(), usize::from(SIZE));
    let failing = Recorder::exiting(65);
    let mut daemon = Daemon::new(&db)
        .dsn(bouncer.dsn(&db))
        .route(failing.route("bad.*"))
        .route("*=log")
        .args(["--lease-seconds", "4", "--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();

    db.insert_events("order.created", 100);
    let dead = db.insert_events("bad.one", 3);
    wait_until("all are done or dead", || {
        db.count("done") == 100 && db.count("dead") == 3
    });
    let retry = format!("/api/dead-events/{}/retry", dead[0]);
    assert_eq!(daemon.get("/api/dead-events").0, 200);
    assert_eq!(daemon.post(&retry, "").0, 200);
    wait_until("it is dead again", || failing.history().count(dead[0]) == 2);
    let status = Cli::new(["status", "--dsn", &bouncer.dsn(&db)]).run();
    assert!(status.stdout.contains("dead"), "{}", status.stdout);
    // On a busy machine collections are rare.
    wait_until("the table was counted", || {
        daemon.metric("dispatchbox_dead_events", &[]) == Some(3.0)
    });
    // Twice as long as the keeper waits between two renewals, and the statistics collector between
    // two collections.
    assert_same(&before, &settings_of_all(&bouncer, &db));
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert_same(&before, &settings_of_all(&bouncer, &db));
    let is_odd = |line: &&str| line.contains("WARN") && !line.contains("is dead after");
    assert_eq!(daemon.log().lines().find(is_odd), None);
    assert!(
        daemon.log().contains("a connection pooler"),
        "{}",
        daemon.log()
    );
    assert_eq!(db.leases(), 0);
}

/// Goal: what a server's connection remembers of the leases serves whichever client of ours is lent
/// it.
#[test]
fn two_daemons_that_share_the_connections_of_a_pooler_hand_out_each_event_once() {
    let db = TestDb::new();
    let bouncer = PgBouncer::start(&db, "transaction", 2, "");
    let receiver = Receiver::start();
    let mut daemons = [(); 2].map(|()| {
        Daemon::new(&db)
            .dsn(bouncer.dsn(&db))
            .route(receiver.route("*"))
            .args([
                "--processes",
                "2",
                "--batch-size",
                "20",
                "--poll-interval",
                "0.05",
            ])
            .start()
    });

    let ids = db.insert_events("order.created", 1000);
    wait_until("all are done", || db.count("done") == 1000);

    receiver.history().assert_complete(ids, 0);
    let more = "select count(*) from outbox_event where attempts <> 1";
    assert_eq!(db.number(more, &[]), 0);
    for daemon in &mut daemons {
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    }
    assert_eq!(db.leases(), 0);
}

#[test]
fn a_pooler_that_lends_a_connection_for_a_session_works_as_well() {
    let db = TestDb::new();
    let more = "ignore_startup_parameters = options";
    let bouncer = PgBouncer::start(&db, "session", 20, more);
    let mut daemon = Daemon::new(&db)
        .dsn(bouncer.dsn(&db))
        .route("*=log")
        .start();

    db.insert_events("order.created", 100);
    wait_until("all are done", || db.count("done") == 100);

    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
    assert_eq!(db.leases(), 0);
}

/// Goal: what the description asks for by `options` is there in every call, although a pooler does
/// not pass it on. Method: the tables stand in a schema that only the options name; one pooler
/// refuses options, the other passes them over.
#[test]
fn the_options_of_a_description_work_through_a_pooler() {
    for more in ["", "ignore_startup_parameters = options"] {
        let db = TestDb::new();
        db.execute("drop table outbox_event, outbox_lease, outbox_event_archive cascade; create schema shop");
        let options = "options='-c search_path=shop'";
        let migrated = Cli::new(["migrate", "--dsn", &format!("{} {options}", db.dsn())]).run();
        assert_eq!(migrated.status, 0, "{}", migrated.stderr);
        let bouncer = PgBouncer::start(&db, "transaction", 2, more);
        let before = settings_of_all(&bouncer, &db);
        let mut daemon = Daemon::new(&db)
            .dsn(format!("{} {options}", bouncer.dsn(&db)))
            .route("*=log")
            .start();
        db.execute(
            "insert into shop.outbox_event (aggregate_type, aggregate_id, event_type, payload) values ('a', '1', 't', '{}')",
        );
        let done = "select count(*) from shop.outbox_event where status = 'done'";
        wait_until("it is done", || db.number(done, &[]) == 1);

        assert_same(&before, &settings_of_all(&bouncer, &db));
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    }
}

/// Goal: every command works on a shared connection, also where another program has left its
/// prepared statements there.
#[test]
fn commands_work_through_a_pooler_whatever_others_have_left_on_its_connections() {
    let db = TestDb::with_events(3);
    db.execute("update outbox_event set status = 'dead', last_error = 'no', last_error_at = now()");
    let bouncer = PgBouncer::start(&db, "transaction", 1, "");
    let dsn = bouncer.dsn(&db);
    let mut client = Client::connect(&dsn, NoTls).unwrap();
    for n in 0..40 {
        client
            .batch_execute(&format!("prepare s{n} as select 1"))
            .unwrap();
    }

    for command in [
        &[
            "publish",
            "--aggregate-type",
            "order",
            "--aggregate-id",
            "9",
            "--event-type",
            "order.created",
            "--payload",
            "{}",
        ][..],
        &["dead-events", "list"],
        &["dead-events", "stats"],
        &["dead-events", "show", "1"],
        &["dead-events", "export"],
        &["dead-events", "retry", "1"],
        &[
            "dead-events",
            "retry-batch",
            "--event-type",
            "order.created",
            "--yes",
        ],
        &["explain", "2"],
        &["migrate", "--check"],
    ] {
        let said = Cli::new(command.iter().copied().chain(["--dsn", &dsn])).run();
        assert_eq!(said.status, 0, "{command:?}: {}", said.stderr);
    }

    assert_eq!(db.count("dead"), 0);
    assert_eq!(db.count("pending"), 4);
}

/// Goal: an error in a call leaves no transaction open and no connection unusable.
#[test]
fn a_call_that_fails_on_a_shared_connection_leaves_it_as_it_was() {
    let db = TestDb::new();
    let bouncer = PgBouncer::start(&db, "transaction", 1, "");
    let mut daemon = Daemon::new(&db)
        .dsn(bouncer.dsn(&db))
        .route("*=log")
        .args(["--query-timeout", "1", "--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();
    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_event in access exclusive mode")
        .unwrap();

    wait_until("claims meet the lock", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "lock_timeout")]) >= Some(2.0)
    });
    let in_transaction = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%' \
         and application_name like '%dispatchbox%'";
    wait_until("no transaction of ours is left open", || {
        db.number(in_transaction, &[]) == 0
    });
    lock.commit().unwrap();
    db.insert_events("order.created", 20);

    wait_until("all are done", || db.count("done") == 20);
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
}

#[test]
fn a_migration_is_refused_where_its_settings_would_be_those_of_others() {
    let db = TestDb::new();
    let bouncer = PgBouncer::start(&db, "transaction", 1, "");
    let before = settings_of_all(&bouncer, &db);
    db.execute("drop function outbox_renew_1");

    let said = Cli::new(["migrate", "--dsn", &bouncer.dsn(&db)]).run();
    let checked = Cli::new(["migrate", "--check", "--dsn", &bouncer.dsn(&db)]).run();

    assert_eq!(said.status, 78, "{}", said.stderr);
    assert!(
        said.stderr
            .contains("a connection pooler stands in between"),
        "{}",
        said.stderr
    );
    assert_eq!(checked.stdout, "missing: function outbox_renew_1\n");
    assert_same(&before, &settings_of_all(&bouncer, &db));
}

/// What an application finds on each connection of the pool: every setting, and the statements that
/// are prepared there.
fn settings_of_all(bouncer: &PgBouncer, db: &TestDb) -> BTreeMap<i32, Vec<String>> {
    let mut clients: Vec<Client> = Vec::new();
    let mut found = BTreeMap::new();
    for _ in 0..bouncer.size() {
        let mut client = Client::connect(&bouncer.dsn(db), NoTls).unwrap();
        client.batch_execute("begin").unwrap();
        let sql = "select pg_backend_pid()::text union all \
                   (select name || '=' || setting from pg_settings where name <> 'application_name' and name not like 'plpgsql.%' order by name) union all \
                   select 'prepared ' || name from pg_prepared_statements";
        let rows: Vec<String> = client
            .simple_query(sql)
            .unwrap()
            .iter()
            .filter_map(|message| {
                if let postgres::SimpleQueryMessage::Row(row) = message {
                    row.get(0).map(str::to_owned)
                } else {
                    None
                }
            })
            .collect();
        found.insert(rows[0].parse().unwrap(), rows[1..].to_vec());
        clients.push(client);
    }
    for client in &mut clients {
        // One that is left in a transaction costs the pooler the connection.
        client.batch_execute("commit").unwrap();
    }
    found
}

/// Compares them, and shows only what is different.
#[track_caller]
fn assert_same(before: &BTreeMap<i32, Vec<String>>, after: &BTreeMap<i32, Vec<String>>) {
    for (pid, settings) in after {
        // The pooler opens another one where a client left in the middle of a transaction: that one
        // is as all were.
        let first = before.values().next();
        let known = before.get(pid).or(first).expect("the pool had connections");
        let other = |one: &[String], two: &[String]| -> Vec<String> {
            one.iter().filter(|it| !two.contains(it)).cloned().collect()
        };
        let (gone, new) = (other(known, settings), other(settings, known));
        assert!(gone.is_empty() && new.is_empty(), "{gone:?} became {new:?}");
    }
}
