//! Tables that are not quite as we would have made them: what is taken as it is, what is named, and
//! what is left alone.

use dispatchbox::domain::event::Outcome;
use dispatchbox::domain::failure::FailureKind;
use dispatchbox::store::schema::{Flaws, SCHEMA, check, migrate};

use crate::support::session::{claim, ids, session, settle};
use crate::support::{Cli, Daemon, TestDb, wait_until};

/// A database whose application has made the table, with some types other than ours, and one event
/// in it.
fn with_table_of(changes: &[(&str, &str)]) -> TestDb {
    let db = TestDb::new();
    db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    let columns = [
        ("id", "bigserial PRIMARY KEY"),
        ("aggregate_type", "text NOT NULL"),
        ("aggregate_id", "text NOT NULL"),
        ("event_type", "text NOT NULL"),
        ("payload", "jsonb NOT NULL"),
        ("status", "text NOT NULL DEFAULT 'pending'"),
        ("attempts", "int NOT NULL DEFAULT 0"),
        ("next_run_at", "timestamptz NOT NULL DEFAULT now()"),
        ("created_at", "timestamptz NOT NULL DEFAULT now()"),
    ];
    let columns = columns.map(|(name, own)| {
        let other = changes.iter().find(|(column, _)| *column == name);
        format!("{name} {}", other.map_or(own, |(_, other)| *other))
    });
    db.execute(&format!(
        "CREATE DOMAIN kind AS varchar(40); CREATE TABLE outbox_event ({});
         INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', '1', 'order.created', '{{}}')",
        columns.join(", ")
    ));
    db
}

#[test]
fn texts_with_a_length_or_a_domain_are_texts() {
    let db = with_table_of(&[
        ("aggregate_type", "varchar(64) NOT NULL"),
        ("aggregate_id", "varchar NOT NULL"),
        ("event_type", "kind NOT NULL"),
        ("payload", "json NOT NULL"),
        ("status", "varchar(10) NOT NULL DEFAULT 'pending'"),
        ("attempts", "smallint NOT NULL DEFAULT 0"),
    ]);
    let left = migrate(&mut session(&db), &mut |_| {}).unwrap().left;
    assert_eq!(left, Flaws::default());

    let daemon = Daemon::new(&db).route("*=log").start();
    let named = [
        "--event-type=order.paid",
        "--aggregate-type=order",
        "--aggregate-id=2",
    ];
    let published = Cli::new(["publish", "--dsn", &db.dsn()].into_iter().chain(named)).run();
    assert_eq!(published.stdout, "2\n", "{}", published.stderr);
    wait_until("both are done", || db.count("done") == 2);
    db.execute("UPDATE outbox_event SET status = 'dead'");
    let (status, answer) = daemon.get("/api/dead-events");

    assert_eq!(status, 200);
    assert!(answer.contains("order.created"), "{answer}");
    let discarded = Cli::new([
        "dead-events",
        "discard",
        "--all",
        "--yes",
        "--dsn",
        &db.dsn(),
    ])
    .run();
    assert_eq!(discarded.status, 0, "{}", discarded.stderr);
    let archived = "select count(*) from outbox_event_archive where event_type = 'order.created'";
    assert_eq!(db.number(archived, &[]), 1);
}

#[test]
fn a_column_that_cannot_be_worked_with_is_named_and_nothing_is_started() {
    let cases = [
        (
            "id",
            "serial PRIMARY KEY",
            "integer, must be bigint: alter table outbox_event alter column id type bigint; alter sequence outbox_event_id_seq as bigint",
        ),
        (
            "attempts",
            "bigint NOT NULL DEFAULT 0",
            "bigint, must be integer",
        ),
        (
            "next_run_at",
            "timestamp NOT NULL DEFAULT now()",
            "timestamp without time zone, must be timestamp with time zone",
        ),
        ("payload", "text NOT NULL", "text, must be jsonb or json"),
        (
            "event_type",
            "char(20) NOT NULL",
            "character(20), must be text",
        ),
    ];
    for (name, other, is_and_must_be) in cases {
        let db = with_table_of(&[(name, other)]);
        let named = format!("column outbox_event.{name} is {is_and_must_be}");

        let migrated = migrate(&mut session(&db), &mut |_| {}).unwrap();
        assert_eq!(migrated.left.unfit, [named.as_str()]);

        let checked = Cli::new(["migrate", "--check", "--dsn", &db.dsn()]).run();
        assert_eq!(checked.status, 78, "{name}");
        assert_eq!(checked.stdout, format!("unfit: {named}\n"));
        let started = Cli::new(["run", "--http-port", "0", "--dsn", &db.dsn()]).run();
        assert_eq!(started.status, 78, "{name}");
        let why = format!("could not start: change the table: {named}\n");
        assert!(started.stderr.contains(&why), "{}", started.stderr);
    }
}

/// What `migrate`, `migrate --check` and `run` say of tables made by these statements: one line,
/// code 78, and nothing is touched.
#[track_caller]
fn check_refused(sql: &str, flaw: &str) {
    let db = TestDb::new();
    db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    db.execute(sql);
    let n_things = || {
        db.number("SELECT (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_attribute) + (SELECT count(*) FROM pg_proc)", &[])
    };
    let before = n_things();
    let unfit = format!("unfit: {flaw}\n");

    for command in [&["migrate"][..], &["migrate", "--check"]] {
        let said = Cli::new(command).env("DISPATCHBOX_DSN", db.dsn()).run();
        assert_eq!(said.status, 78, "{sql}");
        assert!(said.stdout.ends_with(&unfit), "{sql}: {}", said.stdout);
    }
    let started = Cli::new(["run", "--http-port", "0", "--dsn", &db.dsn()]).run();
    assert_eq!(started.status, 78, "{sql}");
    let why = format!("could not start: change the table: {flaw}\n");
    assert!(started.stderr.contains(&why), "{}", started.stderr);
    assert_eq!(n_things(), before, "{sql}");
}

/// The columns of producers but the id.
const OTHERS: &str = "aggregate_type text NOT NULL, aggregate_id text NOT NULL, event_type text NOT NULL, payload jsonb, \
    status text NOT NULL DEFAULT 'pending', attempts int NOT NULL DEFAULT 0, next_run_at timestamptz NOT NULL DEFAULT now(), \
    created_at timestamptz NOT NULL DEFAULT now()";

#[test]
fn what_is_no_ordinary_table_is_refused_before_anything_is_touched() {
    let table = format!("CREATE TABLE outbox_event (id bigint PRIMARY KEY, {OTHERS}");
    check_refused(
        &format!(
            "{table}) PARTITION BY RANGE (id); CREATE TABLE first PARTITION OF outbox_event DEFAULT"
        ),
        "table outbox_event is partitioned, must be an ordinary table",
    );
    let renamed = table.replace("outbox_event", "events");
    check_refused(
        &format!("{renamed}); CREATE VIEW outbox_event AS SELECT * FROM events"),
        "table outbox_event is a view, must be an ordinary table",
    );
    check_refused(
        &format!("{renamed}); CREATE MATERIALIZED VIEW outbox_event AS SELECT * FROM events"),
        "table outbox_event is a materialized view, must be an ordinary table",
    );
    check_refused(
        &format!(
            "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER other FOREIGN DATA WRAPPER elsewhere; \
                  CREATE FOREIGN TABLE outbox_event (id bigint, {OTHERS}) SERVER other"
        ),
        "table outbox_event is a foreign table, must be an ordinary table",
    );
    check_refused(
        &format!(
            "{table}); CREATE TABLE outbox_lease (token bigint, worker text, expires_at timestamptz)"
        ),
        "column outbox_lease.event_ids is missing, must be bigint[]",
    );
    check_refused(
        &format!("{table}); CREATE VIEW outbox_event_archive AS SELECT * FROM outbox_event"),
        "table outbox_event_archive is a view, must be an ordinary table",
    );
    check_refused(
        &format!(
            "{table}); CREATE TABLE outbox_event_archive (archived_at timestamptz) INHERITS (outbox_event)"
        ),
        "table outbox_event has the child table outbox_event_archive, must have none",
    );
}

/// The outcome of an event is written by its id alone: of two events with one id the second would
/// be lost.
#[test]
fn ids_that_no_index_keeps_unique_are_refused() {
    let flaw = "column outbox_event.id has no unique index of its own, must have one: create unique index concurrently on outbox_event (id)";
    for key in [
        "PRIMARY KEY (id, created_at)",
        "PRIMARY KEY (aggregate_id)",
        "UNIQUE (id, status)",
        "CHECK (id > 0)",
    ] {
        let table = format!("CREATE TABLE outbox_event (id bigserial, {OTHERS}, {key})");
        check_refused(&table, flaw);
    }
    let table = format!(
        "CREATE TABLE outbox_event (id bigserial, {OTHERS}); CREATE UNIQUE INDEX ON outbox_event (id) WHERE status = 'pending'"
    );
    check_refused(&table, flaw);
    check_refused(
        &format!("CREATE TABLE outbox_event (id bigint UNIQUE, {OTHERS})"),
        "column outbox_event.id accepts null, must be not null",
    );
}

/// Our statements return what they changed and stand in a WITH, and neither is possible where a
/// rule changes them.
#[test]
fn rules_that_change_our_statements_are_refused() {
    let table = format!("CREATE TABLE outbox_event (id bigint PRIMARY KEY, {OTHERS})");
    let leases = "CREATE TABLE outbox_lease (token bigint PRIMARY KEY, worker text, expires_at timestamptz, event_ids bigint[])";
    for (on, event, rule, changed) in [
        ("outbox_event", "UPDATE", "DO INSTEAD NOTHING", "updates"),
        (
            "outbox_event",
            "DELETE",
            "DO ALSO INSERT INTO gone VALUES (old.id)",
            "deletes",
        ),
        ("outbox_lease", "INSERT", "DO ALSO NOTHING", "inserts"),
    ] {
        check_refused(
            &format!(
                "{table}; {leases}; CREATE TABLE gone (id bigint); CREATE RULE \"R 2\" AS ON {event} TO {on} {rule}"
            ),
            &format!(
                "rule \"R 2\" on {on} changes {changed}: drop rule \"R 2\" on {on} (a trigger can do the same)"
            ),
        );
    }
}

/// PostgreSQL refuses each update of a table that publishes updates and says not which row it was.
#[test]
fn tables_that_publish_updates_need_a_replica_identity() {
    let table = |id: &str| format!("CREATE TABLE outbox_event (id {id}, {OTHERS})");
    let flaw = |identity: &str| {
        format!(
            "table outbox_event publishes updates or deletes and has no replica identity, must have one: alter table outbox_event replica identity {identity}"
        )
    };
    check_refused(
        &format!(
            "{}; CREATE PUBLICATION of_one FOR TABLE outbox_event",
            table("bigint NOT NULL UNIQUE")
        ),
        &flaw("using index outbox_event_id_key"),
    );
    check_refused(
        &format!(
            "{}; ALTER TABLE outbox_event REPLICA IDENTITY NOTHING; CREATE PUBLICATION of_all FOR ALL TABLES WITH (publish = 'insert, delete')",
            table("bigint PRIMARY KEY")
        ),
        &flaw("using index outbox_event_pkey"),
    );
    check_refused(
        &format!(
            "{}; CREATE PUBLICATION of_one FOR TABLE outbox_event",
            table("bigint NOT NULL UNIQUE DEFERRABLE")
        ),
        &flaw("full"),
    );
}

/// A rule and a publication that change nothing of ours, and an identity that is there.
#[test]
fn rules_and_publications_that_do_no_harm_are_left_alone() {
    let db = TestDb::with_events(1);
    db.execute(
        "CREATE PUBLICATION of_all FOR ALL TABLES;
         CREATE RULE unused AS ON UPDATE TO outbox_event DO INSTEAD NOTHING; ALTER TABLE outbox_event DISABLE RULE unused;
         CREATE TABLE copies (id bigint); CREATE RULE copy AS ON INSERT TO outbox_event DO ALSO INSERT INTO copies VALUES (1)",
    );
    assert_eq!(check(&mut session(&db)).unwrap().flaws, Flaws::default());
    db.execute(
        "ALTER TABLE outbox_event DROP CONSTRAINT outbox_event_pkey; CREATE UNIQUE INDEX ON outbox_event (id);
         ALTER TABLE outbox_event REPLICA IDENTITY FULL; DROP PUBLICATION of_all; CREATE PUBLICATION of_inserts FOR ALL TABLES WITH (publish = 'insert')",
    );
    assert_eq!(check(&mut session(&db)).unwrap().flaws, Flaws::default());

    let _daemon = Daemon::new(&db).route("*=log").start();

    wait_until("it is done", || db.count("done") == 1);
}

/// What the server never does is no lost connection: a person has to set it right.
#[test]
fn a_statement_that_a_rule_forbids_is_refused_and_the_database_is_not_away() {
    let db = TestDb::new();
    db.execute("CREATE RULE two AS ON UPDATE TO outbox_event DO ALSO SELECT 1");

    let error = session(&db).rehearse().unwrap_err();

    assert!(error.to_string().contains("DO ALSO rules"), "{error}");
    assert_eq!(error.failure_kind(), FailureKind::Refused);
    assert!(!error.is_connection_lost() && !error.is_transient());
}

/// The code is the same, and a new connection is all that it takes.
#[test]
fn a_statement_that_no_longer_fits_the_table_costs_only_the_connection() {
    let db = TestDb::with_events(1);
    let mut session = session(&db);
    session.dead_event(1).unwrap();
    db.execute("ALTER TABLE outbox_event ALTER last_error TYPE varchar");

    let error = session.dead_event(1).unwrap_err();

    assert!(error.to_string().contains("cached plan"), "{error}");
    assert!(error.is_connection_lost() && error.is_transient());
}

#[test]
fn a_composite_key_beside_a_unique_index_works() {
    let db = TestDb::new();
    db.execute("ALTER TABLE outbox_event DROP CONSTRAINT outbox_event_pkey; ALTER TABLE outbox_event ADD PRIMARY KEY (id, created_at); CREATE UNIQUE INDEX ON outbox_event (id)");
    db.insert_events("order.created", 3);
    assert_eq!(check(&mut session(&db)).unwrap().flaws, Flaws::default());

    let _daemon = Daemon::new(&db).route("*=log").start();

    wait_until("all are done", || db.count("done") == 3);
    db.execute("SELECT archive_outbox_events(0)");
    assert_eq!(
        db.number("SELECT count(*) FROM outbox_event_archive", &[]),
        3
    );
}

#[test]
fn columns_that_cannot_hold_an_outcome_are_refused() {
    let table = |further: &str| {
        format!("CREATE TABLE outbox_event (id bigserial PRIMARY KEY, {OTHERS}{further})")
    };
    check_refused(
        &table(", finished_at timestamptz NOT NULL DEFAULT now()"),
        "column outbox_event.finished_at is not null, must accept null",
    );
    check_refused(
        &table(", last_error_at timestamptz GENERATED ALWAYS AS (created_at) STORED"),
        "column outbox_event.last_error_at is generated, must be one that can be written",
    );
    check_refused(
        &table("")
            .replace("status text", "status varchar(5)")
            .replace("'pending'", "'retry'"),
        "column outbox_event.status is character varying(5), must be text",
    );
    for (type_of, made) in [
        ("text", ""),
        ("bytea", ""),
        ("state", "CREATE TYPE state AS ENUM ('a');"),
        (
            "numbers",
            "CREATE DOMAIN number AS int; CREATE DOMAIN numbers AS number;",
        ),
    ] {
        check_refused(
            &format!("{made} {}", table(&format!(", headers {type_of}"))),
            &format!("column outbox_event.headers is {type_of}, must be jsonb or json"),
        );
    }
    // Each outcome would be refused, and each event delivered again and again.
    check_refused(
        &table(
            ", CONSTRAINT words CHECK (status IN ('pending', 'processing', 'done', 'failed')), CHECK (status <> 'x'), CHECK (status <> 'dead' OR attempts > 0)",
        ),
        "column outbox_event.status may not become retry, dead by the constraint words, must accept pending, retry, done and dead",
    );
    check_refused(
        &format!(
            "CREATE DOMAIN word AS text CONSTRAINT short CHECK (length(VALUE) < 7); CREATE DOMAIN state AS word; {}",
            table("")
                .replace("status text", "status state")
                .replace("'pending'", "'retry'")
        ),
        "column outbox_event.status may not become pending by the constraint short, must accept pending, retry, done and dead",
    );
    check_refused(
        &format!(
            "CREATE TYPE state AS ENUM ('pending', 'retry', 'done', 'dead'); {}",
            table("").replace("status text", "status state")
        ),
        "column outbox_event.status is state, must be text",
    );
}

/// A table as Rails would have it, in a schema whose name needs quotes, owned by another role: all
/// that is asked of it works.
#[test]
fn an_applications_own_table_is_served_as_it_is() {
    let db = TestDb::new();
    db.execute(&format!(
        "DROP SCHEMA public CASCADE; CREATE SCHEMA \"My Shop\"; ALTER DATABASE {} SET search_path = \"My Shop\"",
        db.name()
    ));
    db.execute(&format!(
        "CREATE DOMAIN word AS text CHECK (VALUE <> ''); CREATE DOMAIN kind AS word;
         CREATE TABLE outbox_event (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {}, updated_at timestamp NOT NULL DEFAULT now(),
            tenant text NOT NULL DEFAULT 'acme', caused_by bigint REFERENCES outbox_event (id), total int GENERATED ALWAYS AS (attempts * 2) STORED);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.updated_at := '2040-01-01'; RETURN new; END $$;
         CREATE TRIGGER touch BEFORE UPDATE ON outbox_event FOR EACH ROW EXECUTE FUNCTION touch()",
        OTHERS.replace("event_type text", "event_type kind").replace("payload jsonb", "payload json").replace("attempts int", "attempts smallint")
    ));
    db.execute(
        "CREATE TABLE outbox_lease (token bigint PRIMARY KEY, worker text NOT NULL, expires_at timestamptz NOT NULL, event_ids bigint[] NOT NULL);
         INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', '1', 'order.created', E'{\\n\"a\": \"\\\\u0000\", \"n\": 1.0}');
         INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, caused_by) VALUES ('order', '1', 'order.paid', 1)",
    );
    let migrated = Cli::new(["migrate", "--dsn", &db.dsn()]).run();
    assert_eq!(
        migrated.status, 0,
        "{} {}",
        migrated.stdout, migrated.stderr
    );
    assert!(!migrated.stdout.contains("advice"), "{}", migrated.stdout);
    let again = Cli::new(["migrate", "--dsn", &db.dsn()]).run();
    assert!(
        again.stdout.ends_with("nothing to do\n"),
        "{}",
        again.stdout
    );

    let _daemon = Daemon::new(&db).route("*=log").start();
    wait_until("both are done", || db.count("done") == 2);
    db.execute("SET search_path = pg_catalog; SELECT \"My Shop\".archive_outbox_events(0)");
    db.client()
        .batch_execute("CALL \"My Shop\".outbox_archive_1(0)")
        .unwrap();

    let whole = "SELECT count(*) FROM outbox_event_archive WHERE tenant = 'acme' AND updated_at = '2040-01-01' AND total = attempts * 2 \
                 AND payload::text IN (E'{\\n\"a\": \"\\\\u0000\", \"n\": 1.0}', 'null')";
    assert_eq!(db.number(whole, &[]), 2);
    assert_eq!(db.number("SELECT count(*) FROM outbox_event", &[]), 0);
}

#[test]
fn an_unlogged_table_is_advised_against() {
    let db = TestDb::new();
    db.execute("ALTER TABLE outbox_event SET UNLOGGED");

    let report = migrate(&mut session(&db), &mut |_| {}).unwrap();

    assert_eq!(report.left, Flaws::default());
    assert_eq!(
        report.advice,
        [
            "outbox_event is unlogged: PostgreSQL empties it when the server crashes; if that is not meant: ALTER TABLE public.outbox_event SET LOGGED"
        ]
    );
}

#[test]
fn a_function_of_another_version_is_outdated() {
    let db = TestDb::new();
    let settle = SCHEMA
        .split_once("create or replace function outbox_settle_1")
        .unwrap()
        .1;
    let settle = settle.split_once("\nend $$;").unwrap().0;
    let older = settle.replace("e.status || ''", "e.status");
    assert_ne!(older, settle);
    db.execute(&format!(
        "create or replace function outbox_settle_1{older}\nend $$"
    ));
    let check_now = || check(&mut session(&db)).unwrap();

    assert_eq!(check_now().flaws.outdated, ["function outbox_settle_1"]);
    let checked = Cli::new(["migrate", "--check", "--dsn", &db.dsn()]).run();
    assert_eq!(checked.status, 78);
    assert_eq!(checked.stdout, "outdated: function outbox_settle_1\n");

    migrate(&mut session(&db), &mut |_| {}).unwrap();
    assert_eq!(check_now().flaws, Flaws::default());
}

#[test]
fn an_index_of_another_table_is_not_ours_to_drop() {
    let db = TestDb::with_events(3);
    db.execute("ALTER TABLE outbox_event RENAME TO outbox_event_2024");
    let of_it = "select count(*) from pg_index where indrelid = 'outbox_event_2024'::regclass and indisvalid";
    let n_before = db.number(of_it, &[]);

    let error = migrate(&mut session(&db), &mut |_| {}).unwrap_err();

    assert_eq!(
        error.to_string(),
        "could not migrate the schema: the name outbox_event_due is taken by something else, an index of another table perhaps: rename that"
    );
    assert_eq!(db.number(of_it, &[]), n_before);

    db.execute(
        "ALTER INDEX outbox_event_due RENAME TO due_2024; ALTER INDEX outbox_event_dead RENAME TO dead_2024",
    );
    let left = migrate(&mut session(&db), &mut |_| {}).unwrap().left;
    assert_eq!(left, Flaws::default());
    let mut session = session(&db);
    db.insert_events("order.created", 2);
    let claimed = claim(&mut session, "a", 10);
    settle(
        &mut session,
        "a",
        claimed.token,
        &ids(&claimed),
        &Outcome::Done,
    );
    assert_eq!(db.count("done"), 2);
}
