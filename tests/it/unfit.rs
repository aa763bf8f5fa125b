//! Tables that are not quite as we would have made them: what is taken as it is, what is named, and what is left alone.

use dispatchbox::event::Outcome;
use dispatchbox::store::schema::{Flaws, SCHEMA, check, migrate};

use crate::support::session::{claim, ids, session, settle};
use crate::support::{Cli, Daemon, TestDb, wait_until};

/// A database whose application has made the table, with some types other than ours, and one event in it.
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
        ("id", "serial PRIMARY KEY", "integer, must be bigint"),
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
        ("payload", "text NOT NULL", "text, must be jsonb"),
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

    assert_eq!(check_now().outdated, ["function outbox_settle_1"]);
    let checked = Cli::new(["migrate", "--check", "--dsn", &db.dsn()]).run();
    assert_eq!(checked.status, 78);
    assert_eq!(checked.stdout, "outdated: function outbox_settle_1\n");

    migrate(&mut session(&db), &mut |_| {}).unwrap();
    assert_eq!(check_now(), Flaws::default());
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
