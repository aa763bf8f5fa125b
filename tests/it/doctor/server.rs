//! What needs a server of its own: one that is well, one with ten faults at once, and what holds
//! vacuum back.

use dispatchbox::dev::cluster::{Cluster, ServerSettings};

use crate::doctor::Report;
use crate::support::{TestDb, cluster, wait_until};

/// Settings of a server in production, but for the disk.
fn sound() -> ServerSettings {
    ServerSettings::durable()
        .with("autovacuum", "on")
        .with("max_prepared_transactions", "2")
        .with("wal_level", "replica")
        .with("max_replication_slots", "2")
        .with("autovacuum_freeze_max_age", "100000")
        .with("shared_buffers", "16MB")
}

/// Goal: a database that is well is called so, for the role that `sql/roles.sql` makes.
#[test]
fn a_healthy_database_has_nothing_that_is_wrong() {
    let server = cluster::private_with(&sound());
    let db = TestDb::on(&server);
    let roles = std::fs::read_to_string(format!("{}/sql/roles.sql", env!("CARGO_MANIFEST_DIR")));
    let roles = roles.unwrap();
    let roles: Vec<&str> = roles
        .lines()
        .filter(|line| !line.starts_with('\\'))
        .collect();
    db.execute(&roles.join("\n"));
    db.execute(
        "create role a_daemon login in role dispatchbox_daemon;
         grant pg_read_all_stats to a_daemon",
    );
    db.insert_events("order.created", 3);
    let dsn = db.dsn().replace("user=postgres", "user=a_daemon");

    let report = Report::of(&dsn, &["--route", "*=log"]);

    let is_odd = |it: &&serde_json::Value| it["level"] != "ok" && it["check"] != "server";
    let odd: Vec<_> = report.findings.iter().filter(is_odd).collect();
    assert!(odd.is_empty(), "{odd:#?}");
    // A version that gets no corrections any more is told.
    assert!(report.status <= 1, "{}", report.told("server"));
    db.execute(
        "revoke pg_read_all_stats from a_daemon;
         revoke update (status) on outbox_event from dispatchbox_daemon;
         grant insert on outbox_event to a_daemon;
         alter role a_daemon connection limit 30;
         alter table outbox_event enable row level security",
    );
    let _other = db.client();
    let blind = Report::of(&dsn, &["--route", "*=log", "--processes", "8"]);
    blind.assert_tells(
        "transactions",
        &["unknown: ", "GRANT pg_read_all_stats TO a_daemon"],
    );
    blind.assert_tells(
        "privileges",
        &["error: the role a_daemon lacks UPDATE (status) on outbox_event"],
    );
    blind.assert_tells(
        "rights",
        &["warning: the role a_daemon may write events of its own"],
    );
    blind.assert_tells("schema", &["error: ", "row-level security"]);
    blind.assert_tells(
        "connections",
        &[
            "error: this daemon opens up to 47 connections",
            "the limit of the role a_daemon allows 30",
            "ALTER ROLE a_daemon CONNECTION LIMIT -1",
        ],
    );
    assert_eq!(blind.status, 2);
}

#[test]
fn a_standby_is_told() {
    let primary = cluster::private();
    let db = TestDb::on(&primary);
    let standby = Cluster::standby_of(&primary, &ServerSettings::volatile()).unwrap();
    wait_until("the standby has the database", || {
        standby.client(db.name()).is_ok()
    });
    let dsn = db.dsn().replace(
        &primary.directory().display().to_string(),
        &standby.directory().display().to_string(),
    );

    let report = Report::of(&dsn, &["--route", "*=log"]);

    report.assert_tells(
        "server",
        &[
            "error: this server is a standby",
            "target_session_attrs=read-write",
        ],
    );
    assert_eq!(report.status, 2);
}

/// Goal: what holds vacuum back is told by its process, name and age. Method: with the shortest
/// lease an old transaction is one of 10 s.
#[test]
fn what_holds_vacuum_back_is_told() {
    let server = cluster::private_with(&sound().with("autovacuum", "off"));
    let db = TestDb::on(&server);
    let mut forgotten = db.client();
    forgotten
        .batch_execute(
            "begin isolation level repeatable read; select 'password=secret' from outbox_event",
        )
        .unwrap();
    db.execute("begin; create table kept (); prepare transaction 'lost'");
    db.execute("select pg_create_physical_replication_slot('idle', true)");
    // Twice autovacuum_freeze_max_age is 200,000 transactions; 300,000 dead rows beside 150,000.
    db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) select '', '', 'a', '{}' from generate_series(1, 150000);
         update outbox_event set attempts = 1; update outbox_event set attempts = 2",
    );
    db.execute("create procedure burn() language plpgsql as $$ begin for i in 1..201000 loop perform txid_current(); commit; end loop; end $$");
    let mut burner = db.client();
    burner
        .batch_execute("set synchronous_commit = off")
        .unwrap();
    burner.batch_execute("call burn()").unwrap();
    let report = || Report::of(&db.dsn(), &["--lease-seconds", "2"]);

    wait_until("the transaction is old", || {
        report().told("transactions").contains("warning")
    });
    wait_until("the dead rows are counted", || {
        report().told("dead rows").contains("warning")
    });

    let report = report();
    report.assert_tells(
        "transactions",
        &["idle in transaction", "pg_terminate_backend", "select"],
    );
    assert!(!report.told("transactions").contains("secret"));
    report.assert_tells(
        "prepared transactions",
        &[
            "warning: the transaction 'lost' has been prepared for",
            "ROLLBACK PREPARED 'lost'",
        ],
    );
    report.assert_tells(
        "replication slots",
        &[
            "warning: nothing reads the replication slot idle",
            "pg_drop_replication_slot('idle')",
        ],
    );
    report.assert_tells("wraparound", &["warning: the database", "transaction ids"]);
    db.execute("rollback prepared 'lost'");
    db.execute("select pg_drop_replication_slot('idle')");
}
