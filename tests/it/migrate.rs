//! The command `migrate`: what it prints, what it checks, and the codes it ends with. What a
//! migration does is tested with the schema.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::cluster::{schema_sql, shared};
use crate::support::{Cli, TestDb, TestDir};

const HINT: &str = "hint: `dispatchbox help migrate` lists its options\n";

/// The DSN of a new database without any table. It goes with the server.
fn empty_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("empty_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
    let mut client = cluster.client("postgres").unwrap();
    client
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
        .unwrap();
    cluster.dsn(&name)
}

#[test]
fn print_gives_the_schema_without_a_database() {
    Cli::new(["migrate", "--print"])
        .stdout(schema_sql())
        .check();
}

#[test]
fn what_is_missing_is_listed_until_it_is_migrated() {
    let dsn = empty_database();
    let check = || Cli::new(["migrate", "--check", "--dsn", &dsn]).run();
    let migrate = || Cli::new(["migrate"]).env("DISPATCHBOX_DSN", &dsn).run();

    let before = check();
    assert_eq!((before.status, before.stderr.as_str()), (78, ""));
    // What belongs to the tables goes without saying.
    assert_eq!(
        before.stdout,
        "missing: table outbox_event\nmissing: table outbox_event_archive\nmissing: table outbox_lease\n"
    );

    let first = migrate();
    assert_eq!((first.status, first.stderr.as_str()), (0, ""));
    assert!(
        first.stdout.contains("add table outbox_event"),
        "{}",
        first.stdout
    );
    assert!(
        first.stdout.ends_with("the schema is complete\n"),
        "{}",
        first.stdout
    );

    let after = check();
    assert_eq!(
        (after.status, after.stdout.as_str()),
        (0, "the schema is complete\n")
    );
    let second = migrate();
    assert_eq!(
        (second.status, second.stdout.as_str()),
        (
            0,
            format!(
                "database {}\nschema public\nthe schema is complete: nothing to do\n",
                place(&dsn)
            )
            .as_str()
        )
    );
}

/// Where it is, as it is shown.
fn place(dsn: &str) -> String {
    let value = |name: &str| {
        dsn.split(' ')
            .find_map(|part| part.strip_prefix(name))
            .unwrap()
    };
    format!(
        "{}:5432/{} as {}",
        value("host="),
        value("dbname="),
        value("user=")
    )
}

/// Makes a role that may log in and nothing else.
fn role(name: &str) {
    let cluster = shared().lock().unwrap_or_else(PoisonError::into_inner);
    let mut client = cluster.client("postgres").unwrap();
    client
        .batch_execute(&format!("CREATE ROLE {name} LOGIN"))
        .unwrap();
}

#[test]
fn who_may_not_migrate_is_told_who_may() {
    let db = TestDb::new();
    role("stranger");
    let as_stranger = db.dsn().replace("user=postgres", "user=stranger");
    db.execute("ALTER TABLE outbox_event DROP COLUMN headers");
    let migrate = || Cli::new(["migrate", "--dsn", &as_stranger]).run();

    let said = migrate();
    assert_eq!(said.status, 78);
    assert_eq!(
        said.stderr,
        "error: could not migrate the schema: must be owner of table outbox_event\n\
         hint: `migrate` is for the owner of the tables\n"
    );

    // What cannot be seen is not missing, and is not made once more in another schema that can.
    db.execute(
        "ALTER SCHEMA public RENAME TO hidden; CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO stranger; \
         REVOKE ALL ON SCHEMA hidden FROM PUBLIC",
    );
    db.execute(&format!(
        "ALTER DATABASE {} SET search_path = hidden, open",
        db.name()
    ));
    for command in [&["migrate", "--check"][..], &["migrate"]] {
        let said = Cli::new(command).env("DISPATCHBOX_DSN", &as_stranger).run();
        assert_eq!(said.status, 78);
        assert!(
            said.stderr.starts_with(
                "error: could not look at the schema: the role stranger lacks USAGE on schema hidden\n"
            ),
            "{}",
            said.stderr
        );
    }
    let made = "SELECT count(*) FROM pg_class WHERE relnamespace = 'open'::regnamespace";
    assert_eq!(db.number(made, &[]), 0);
}

#[test]
fn a_database_that_cannot_be_reached_is_told_from_one_that_is_not_there() {
    let directory = TestDir::new();
    let path = directory.path().display();
    for command in [&["migrate"][..], &["migrate", "--check"]] {
        Cli::new(command)
            .env(
                "DISPATCHBOX_DSN",
                format!("host={path} dbname=d user=u password=hunter2"),
            )
            .stderr(format!(
                "error: could not connect to the database: no such file or directory\n\
                 hint: the database is {path}:5432/d as u\n"
            ))
            .status(69)
            .check();
    }

    let dsn = empty_database();
    let (place, _) = dsn.split_once(" dbname=").unwrap();
    let said = Cli::new(["migrate", "--dsn", &format!("{place} dbname=nowhere")]).run();
    assert_eq!(said.status, 78);
    assert!(
        said.stderr.starts_with(
            "error: could not connect to the database: database \"nowhere\" does not exist\n"
        ),
        "{}",
        said.stderr
    );
    let said = Cli::new([
        "migrate",
        "--dsn",
        &dsn.replace("user=postgres", "user=nobody_here"),
    ])
    .run();
    assert_eq!(said.status, 78, "{}", said.stderr);
}

#[test]
fn a_file_gives_the_dsn_and_needs_no_routes() {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    std::fs::write(&path, format!("dsn = '{}'\n", empty_database())).unwrap();
    let said = Cli::new(["migrate", "--check", "--config", &path]).run();
    assert_eq!((said.status, said.stderr.as_str()), (78, ""));
    assert!(said.stdout.starts_with("missing: "), "{}", said.stdout);
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let refused = |args: &[&str], error: &str| {
        Cli::new(args)
            .stderr(format!("error: {error}\n{HINT}"))
            .status(2)
            .check();
    };
    refused(
        &["migrate", "--print", "--check"],
        "--print and --check exclude each other",
    );
    refused(&["migrate", "--print=yes"], "--print takes no value");
    refused(&["migrate", "now"], "unexpected argument `now`");
    refused(
        &["migrate", "--dsn=host=h", "--connect-timeout=0"],
        "--connect-timeout must be at least 0.1, not `0`",
    );
    Cli::new(["migrate"])
        .stderr(
            "error: no database is named: give --dsn\n\
             hint: or --dsn-file, DISPATCHBOX_DSN, DATABASE_URL, or PGHOST, PGDATABASE and the like\n",
        )
        .status(2)
        .check();
}
