//! Tables in a schema that the search_path does not reach: every command names it, and none makes a
//! second outbox.

use crate::support::cluster::schema_sql;
use crate::support::{Cli, Daemon, TestDb};

/// A database whose outbox stands in the schema `shop`, which no search_path reaches.
fn with_shop() -> TestDb {
    let db = TestDb::new();
    db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE SCHEMA shop");
    db.execute(&format!("SET search_path = shop; {}", schema_sql()));
    db
}

/// What is said of it: where the tables stand, and where they were looked for.
const FACT: &str = r#"the table outbox_event stands in the schema shop, which the search_path ("$user", public) does not reach"#;

const REMEDY: &str = "name that schema in the DSN: `options=-csearch_path=shop`";

/// The DSN that follows the remedy.
fn remedied(db: &TestDb) -> String {
    format!("{} options=-csearch_path=shop", db.dsn())
}

fn tables_in_public(db: &TestDb) -> i64 {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    db.number(sql, &[])
}

#[test]
fn migrate_makes_no_second_outbox_unless_it_is_asked_to() {
    let db = with_shop();

    for command in [&["migrate", "--check"][..], &["migrate"]] {
        let said = Cli::new(command).args(["--dsn", &db.dsn()]).run();
        assert_eq!(said.status, 78);
        assert_eq!(
            said.stderr,
            format!(
                "error: could not choose the schema: {FACT}\n\
                 hint: {REMEDY}; for a second outbox in the schema public: `options=-csearch_path=public`\n"
            )
        );
    }
    assert_eq!(tables_in_public(&db), 0);
    let said = Cli::new(["migrate", "--check", "--dsn", &remedied(&db)]).run();
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (0, "the schema is complete\n")
    );

    // Whoever names a schema in the DSN means it, and is told of the other one.
    let asked = format!("{} options=-csearch_path=public", db.dsn());
    let said = Cli::new(["migrate", "--check", "--dsn", &asked]).run();
    assert_eq!(said.status, 78);
    assert!(
        said.stdout.starts_with(
            "elsewhere: the table outbox_event stands in the schema shop, which the search_path (public) does not reach\n\
             missing: table outbox_event\n"
        ),
        "{}",
        said.stdout
    );
    let nowhere = format!("{} options=-csearch_path=nowhere", db.dsn());
    Cli::new(["migrate", "--check", "--dsn", &nowhere])
        .stdout(
            "elsewhere: the table outbox_event stands in the schema shop, which the search_path (nowhere) does not reach\n\
             missing: any schema of the search_path (nowhere)\n",
        )
        .status(78)
        .check();
    let said = Cli::new(["migrate", "--dsn", &asked]).run();
    assert_eq!(said.status, 0, "{}", said.stderr);
    assert!(
        said.stdout.contains(
            "schema public\na second outbox: the table outbox_event stands in the schema shop"
        ),
        "{}",
        said.stdout
    );
    assert!(tables_in_public(&db) > 0);
    let said = Cli::new(["migrate", "--dsn", &db.dsn()]).run();
    assert_eq!(said.status, 0, "{}", said.stderr);
}

#[test]
fn a_search_path_that_names_no_schema_is_told_where_the_tables_stand() {
    let db = with_shop();
    let dsn = format!("{} options=-csearch_path=shopp", db.dsn());

    let said = Cli::new(["migrate", "--dsn", &dsn]).run();

    assert_eq!(said.status, 78);
    assert_eq!(
        said.stderr,
        format!(
            "error: could not choose the schema: no schema of the search_path exists\nhint: {REMEDY}\n"
        )
    );
}

#[test]
fn every_command_names_the_schema() {
    let db = with_shop();
    let hint = format!("hint: {REMEDY}: {FACT}\n");
    let publish = [
        "publish",
        "--event-type=order.created",
        "--aggregate-type=order",
        "--aggregate-id=1",
    ];
    for command in [
        &publish[..],
        &["dead-events", "list"],
        &["dead-events", "stats"],
        &["dead-events", "show", "1"],
        &["dead-events", "retry", "1"],
        &["dead-events", "retry-batch", "--all", "--yes"],
        &["dead-events", "discard", "1", "--yes"],
        &["dead-events", "export"],
        &["explain", "1"],
    ] {
        let said = Cli::new(command).args(["--dsn", &db.dsn()]).run();
        assert_eq!(said.status, 78, "{command:?}: {}", said.stderr);
        assert!(
            said.stderr.starts_with("error: could not ") && said.stderr.ends_with(&hint),
            "{command:?}: {}",
            said.stderr
        );
    }
    let said = Cli::new(["status", "--url=http://127.0.0.1:1", "--dsn", &db.dsn()]).run();
    assert!(said.stdout.ends_with(&hint), "{}", said.stdout);

    let said = Cli::new(publish).args(["--dsn", &remedied(&db)]).run();
    assert_eq!((said.status, said.stdout.as_str()), (0, "1\n"));
}

#[test]
fn a_schema_that_the_role_may_not_use_is_not_said_to_be_missing() {
    let db = with_shop();
    let role = format!("hidden_from_{}", db.name());
    db.execute(&format!("CREATE ROLE {role} LOGIN"));
    let dsn = remedied(&db).replace("user=postgres", &format!("user={role}"));

    let said = Cli::new(["dead-events", "list", "--dsn", &dsn]).run();

    let hint = format!(
        "hint: grant what `sql/roles.sql` grants: the role {role} lacks USAGE on schema shop\n"
    );
    assert!(said.stderr.ends_with(&hint), "{}", said.stderr);
    db.execute(&format!("DROP ROLE {role}"));
}

#[test]
fn a_start_names_the_schema_and_the_database() {
    let db = with_shop();

    let mut daemon = Daemon::new(&db).route("*=log").start();

    daemon.assert_exits(78);
    let told = format!("could not start: {REMEDY}: {FACT}; the database is ");
    daemon.wait_log(&told);
    assert!(
        !daemon.log().contains("dispatchbox migrate"),
        "{}",
        daemon.log()
    );
}

#[test]
fn tables_that_move_under_a_running_daemon_are_named() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    db.execute("ALTER SCHEMA public RENAME TO shop; CREATE SCHEMA public");

    daemon.wait_log(&format!("not ready: schema not usable: {REMEDY}: {FACT}"));
    let (status, answer) = daemon.get("/ready");
    assert_eq!(status, 503);
    assert!(answer.contains("schema not usable"), "{answer}");
    let (_, answer) = daemon.get("/api/status");
    assert!(answer.contains("stands in the schema shop"), "{answer}");

    db.execute("DROP SCHEMA public; ALTER SCHEMA shop RENAME TO public");
    daemon.wait_ready();
}

/// Goal: a table of the same name that is no outbox, as other tools make it, is not taken for one,
/// and not migrated.
#[test]
fn a_table_of_that_name_that_is_no_outbox_does_not_hide_the_one_that_is() {
    let db = with_shop();
    db.execute(
        "CREATE TABLE public.outbox_event (id uuid, aggregatetype text, type text, payload jsonb)",
    );
    let fact = r#"the table outbox_event stands in the schema shop; the search_path ("$user", public) reaches another table of that name, in public"#;

    let mut daemon = Daemon::new(&db).route("*=log").start();
    daemon.assert_exits(78);
    daemon.wait_log(&format!("could not start: {REMEDY}: {fact}"));
    let said = Cli::new(["migrate", "--dsn", &db.dsn()]).run();
    assert_eq!(said.status, 78);
    assert_eq!(
        said.stderr,
        format!("error: could not choose the schema: {fact}\nhint: {REMEDY}\n")
    );
    let said = Cli::new(["dead-events", "list", "--dsn", &db.dsn()]).run();
    assert!(
        said.stderr.ends_with(&format!("hint: {REMEDY}: {fact}\n")),
        "{}",
        said.stderr
    );
    assert_eq!(tables_in_public(&db), 1);

    // The other way round: such a table elsewhere keeps nobody from an outbox.
    db.execute("DROP SCHEMA shop CASCADE; CREATE SCHEMA cdc; ALTER TABLE public.outbox_event SET SCHEMA cdc");
    let said = Cli::new(["migrate", "--dsn", &db.dsn()]).run();
    assert_eq!(said.status, 0, "{}", said.stderr);
}
