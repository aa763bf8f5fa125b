//! The roles of `sql/roles.sql` can do what they are for and no more, and the start names what a
//! role lacks.
//!
//! Roles belong to a whole server, so each test has one of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatchbox::dev::cluster::Cluster;
use dispatchbox::domain::event::Outcome;
use dispatchbox::store::dsn::Dsn;
use dispatchbox::store::{Session, SettleBatch, StoreError, connect};
use rustix::process::Signal;

use crate::support::session::{TIMEOUTS, dead, query, retry, settlements};
use crate::support::{Cli, Daemon, Recorder, TestDb, cluster, psql, signal_pid, wait_until};

/// Each privilege of the daemon's role that delivering needs, as it is revoked, and as it is named
/// when it lacks.
const NEEDED: &[(&str, &str)] = &[
    ("select on outbox_event", "SELECT on outbox_event"),
    (
        "update (status) on outbox_event",
        "UPDATE (status) on outbox_event",
    ),
    (
        "update (attempts) on outbox_event",
        "UPDATE (attempts) on outbox_event",
    ),
    (
        "update (next_run_at) on outbox_event",
        "UPDATE (next_run_at) on outbox_event",
    ),
    (
        "update (last_error) on outbox_event",
        "UPDATE (last_error) on outbox_event",
    ),
    (
        "update (last_error_at) on outbox_event",
        "UPDATE (last_error_at) on outbox_event",
    ),
    (
        "update (finished_at) on outbox_event",
        "UPDATE (finished_at) on outbox_event",
    ),
    ("select on outbox_lease", "SELECT on outbox_lease"),
    ("insert on outbox_lease", "INSERT on outbox_lease"),
    ("delete on outbox_lease", "DELETE on outbox_lease"),
    (
        "update (expires_at) on outbox_lease",
        "UPDATE (expires_at) on outbox_lease",
    ),
    (
        "update (event_ids) on outbox_lease",
        "UPDATE (event_ids) on outbox_lease",
    ),
    (
        "execute on function outbox_leases_1",
        "EXECUTE on function outbox_leases_1",
    ),
    (
        "execute on function outbox_claim_2",
        "EXECUTE on function outbox_claim_2",
    ),
    (
        "execute on function outbox_settle_1",
        "EXECUTE on function outbox_settle_1",
    ),
    (
        "execute on function outbox_renew_1",
        "EXECUTE on function outbox_renew_1",
    ),
    ("usage on schema app", "USAGE on schema app"),
];

/// A database whose outbox stands in a schema that nobody may use by default, with the roles and a
/// login for each.
struct Roles {
    _server: Cluster,
    db: TestDb,
}

/// The file.
fn roles_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/roles.sql")
}

/// What psql sends of it.
fn roles_sql() -> String {
    let text = std::fs::read_to_string(roles_file()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('\\'));
    lines.collect::<Vec<_>>().join("\n")
}

impl Roles {
    fn new() -> Roles {
        let server = cluster::private();
        let db = TestDb::on(&server);
        let roles = roles_sql();
        db.execute(&format!(
            "drop schema public cascade; create schema app; alter database {} set search_path = app",
            db.name()
        ));
        db.execute(&cluster::schema_sql());
        // Twice: it may be repeated.
        db.execute(&roles);
        db.execute(&roles);
        for role in ["daemon", "producer", "archivist"] {
            db.execute(&format!(
                "create role a_{role} login in role dispatchbox_{role}"
            ));
        }
        Roles {
            _server: server,
            db,
        }
    }

    fn dsn(&self, user: &str) -> String {
        self.db
            .dsn()
            .replace("user=postgres", &format!("user={user}"))
    }

    fn session(&self, user: &str) -> Session {
        connect(&Dsn::parse(&self.dsn(user)).unwrap(), &TIMEOUTS, "test").unwrap()
    }

    /// Runs one statement as this user; an error is the server's message.
    fn try_as(&self, user: &str, sql: &str) -> Result<(), String> {
        let mut client = postgres::Client::connect(&self.dsn(user), postgres::NoTls).unwrap();
        client
            .batch_execute(sql)
            .map_err(|error| error.as_db_error().unwrap().message().to_owned())
    }

    #[track_caller]
    fn assert_refused(&self, user: &str, sql: &str) {
        let refused = self.try_as(user, sql);
        assert!(
            refused
                .as_ref()
                .is_err_and(|message| message.starts_with("permission denied")),
            "{user}: {sql}: {refused:?}"
        );
    }

    fn produce(&self, event_type: &str, n: u32) {
        let sql = format!(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) \
             select 'order', i::text, '{event_type}', '{{}}' from generate_series(1, {n}) i returning id"
        );
        self.try_as("a_producer", &sql).unwrap();
    }
}

/// Goal: everything that a daemon does to the table goes through under its role: done, retry, dead,
/// renewal, the sweep of a worker that died, and that of a lease whose host is lost.
#[test]
fn the_daemons_role_is_enough_for_all_that_a_daemon_does() {
    let roles = Roles::new();
    let db = &roles.db;
    let (failing, refusing) = (Recorder::exiting(1), Recorder::exiting(65));
    let gated = Recorder::new().gated();
    roles.produce("order.created", 30);
    roles.produce("mail.sent", 2);
    roles.produce("mail.refused", 2);
    let lost = "select count(token) from outbox_claim_2('gone/1', 3, 1000000, '0 s', '-infinity', 0, null, null, null, null)";
    assert_eq!(db.number(lost, &[]), 3);

    let mut daemon = Daemon::new(db)
        .dsn(roles.dsn("a_daemon"))
        .route("order.*=log")
        .route(failing.route("mail.sent"))
        .route(refusing.route("mail.refused"))
        .route(gated.route("slow.*"))
        .args(["--max-attempts", "2", "--retry-backoff-seconds", "0.05"])
        .args(["--lease-seconds", "2", "--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();
    wait_until("all is settled, the lost lease's events, too", || {
        db.count("done") == 30 && db.count("dead") == 4
    });

    roles.produce("slow.one", 20);
    gated.wait_runs(10);
    let expiry = "select extract(epoch from min(expires_at))::bigint from outbox_lease";
    let before = db.number(expiry, &[]);
    wait_until("their leases are renewed", || {
        db.number(expiry, &[]) > before
    });
    signal_pid(daemon.wait_workers(1)[0], Signal::KILL);
    gated.open_gate();
    wait_until("what the killed worker held is done", || {
        db.count("done") == 50
    });
    assert!(
        !daemon.log().contains("permission denied"),
        "{}",
        daemon.log()
    );
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert_eq!(db.leases(), 0);
}

#[test]
fn the_roles_are_enough_for_the_commands_that_they_are_for() {
    let roles = Roles::new();
    roles.produce("order.created", 5);
    roles
        .db
        .execute("update outbox_event set status = 'dead', last_error = 'no' where id < 5");
    let calls: [&[&str]; 9] = [
        &["dead-events", "list"],
        &["dead-events", "show", "1"],
        &["dead-events", "stats"],
        &["dead-events", "export"],
        &["dead-events", "retry", "1"],
        &["dead-events", "discard", "2", "--yes"],
        &["dead-events", "retry-batch", "--all", "--yes"],
        &["explain", "2"],
        &["explain", "5"],
    ];
    for call in calls {
        let dsn = roles.dsn("a_daemon");
        let said = Cli::new(call.iter().copied()).args(["--dsn", &dsn]).run();
        assert_eq!(said.status, 0, "{call:?} {}", said.stderr);
    }
    Cli::new([
        "publish",
        "--event-type=a",
        "--aggregate-type=a",
        "--aggregate-id=1",
    ])
    .args([
        "--headers={}",
        "--after=1h",
        "--dsn",
        &roles.dsn("a_producer"),
    ])
    .stdout("6\n")
    .check();
}

#[test]
fn each_role_may_do_no_more_than_its_work() {
    let roles = Roles::new();
    roles.produce("order.created", 3);

    roles.assert_refused("a_daemon", "update outbox_event set payload = '{}'");
    roles.assert_refused("a_daemon", "truncate outbox_event");
    roles.assert_refused("a_daemon", "select archive_outbox_events(0)");
    roles.assert_refused("a_daemon", "delete from outbox_event_archive");
    roles.assert_refused("a_producer", "select payload from outbox_event");
    roles.assert_refused("a_producer", "update outbox_event set status = 'done'");
    roles.assert_refused("a_producer", "delete from outbox_event");
    roles.assert_refused("a_producer", "select from outbox_lease");
    roles.assert_refused("a_producer", "select archive_outbox_events(0)");
    roles.assert_refused(
        "a_producer",
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status) values ('', '', '', '{}', 'done')",
    );
    roles.assert_refused("a_archivist", "update outbox_event set status = 'done'");
    roles.assert_refused("a_archivist", "delete from outbox_lease");

    roles.db.execute("update outbox_event set status = 'done', finished_at = now() - interval '8 days' where id < 3");
    roles
        .try_as("a_archivist", "select archive_outbox_events(7)")
        .unwrap();
    let archived = "select count(*) from outbox_event_archive";
    assert_eq!(roles.db.number(archived, &[]), 2);
}

/// Goal: nothing is granted or asked for in vain. Method: each privilege is revoked alone; then
/// some call of a worker is refused, and the look before the start names exactly that one.
#[test]
fn each_privilege_is_needed_and_the_look_before_the_start_names_it() {
    let roles = Roles::new();
    roles.produce("order.created", 200);
    assert_eq!(roles.session("a_daemon").missing_prerequisite(), Ok(None));
    work(&mut roles.session("a_daemon")).unwrap();

    for (privilege, named) in NEEDED {
        roles
            .db
            .execute(&format!("revoke {privilege} from dispatchbox_daemon"));

        let missing = roles.session("a_daemon").missing_prerequisite().unwrap();
        let told = missing.map(|missing| missing.to_string());
        let expected = format!(
            "grant what `sql/roles.sql` grants to dispatchbox_daemon: the role a_daemon lacks {named}"
        );
        assert_eq!(told.as_deref(), Some(expected.as_str()), "{privilege}");
        let refused = work(&mut roles.session("a_daemon")).unwrap_err();
        assert!(
            refused.is_permission_denied() || refused.is_schema(),
            "{privilege}: {refused}"
        );

        roles
            .db
            .execute(&format!("grant {privilege} to dispatchbox_daemon"));
    }
    work(&mut roles.session("a_daemon")).unwrap();
}

/// Does everything that a worker, its keeper and the sweeper do, on a few of the due events.
fn work(session: &mut Session) -> Result<(), StoreError> {
    let worker = "host/worker-00/1";
    let mut query = query(worker);
    query.limit = 6;
    let claimed = session.claim(&query)?.expect("events are due");
    let ids: Vec<i64> = claimed.events.iter().map(|event| event.id).collect();
    session.renew(worker, &[claimed.token], Duration::from_mins(1))?;
    session.events_brief(&ids)?;
    session.leases_of(worker)?;
    session.expired_leases(10)?;
    let mut settle = |ids: &[i64], outcome: &Outcome, ended: &[i64]| {
        session.settle(&SettleBatch {
            worker,
            outcomes: &settlements(claimed.token, ids, outcome),
            ended,
            expired: false,
        })
    };
    settle(&ids[..1], &Outcome::Done, &[])?;
    settle(&ids[1..2], &retry(Duration::from_hours(1)), &[])?;
    settle(&ids[2..3], &dead(), &[])?;
    settle(&ids[3..5], &Outcome::Released, &[])?;
    session.read_back(&ids)?;
    session.release_orphans(worker, &[]).map(drop)
}

/// Goal: a person's orders go through under the daemon's role; whoever wants no discards takes two
/// privileges away, and nothing else changes.
#[test]
fn dead_events_are_requeued_and_discarded_under_the_daemons_role() {
    let roles = Roles::new();
    roles.produce("order.created", 4);
    roles.db.execute("update outbox_event set status = 'dead'");
    let mut session = roles.session("a_daemon");

    assert_eq!(session.requeue(&[1]).unwrap().ids, [1]);
    assert_eq!(session.discard(&[2]).unwrap().ids, [2]);
    for privilege in ["delete on outbox_event", "insert on outbox_event_archive"] {
        roles
            .db
            .execute(&format!("revoke {privilege} from dispatchbox_daemon"));
        let refused = session.discard(&[3]).unwrap_err();
        assert!(refused.is_permission_denied(), "{privilege}: {refused}");
        assert_eq!(session.missing_prerequisite(), Ok(None));
        roles
            .db
            .execute(&format!("grant {privilege} to dispatchbox_daemon"));
    }
    assert_eq!(session.discard(&[3]).unwrap().ids, [3]);
}

#[test]
fn a_role_that_lacks_privileges_does_not_start() {
    let roles = Roles::new();
    roles.db.execute("create role stranger login");

    let mut daemon = Daemon::new(&roles.db)
        .dsn(roles.dsn("stranger"))
        .route("*=log")
        .start();

    daemon.assert_exits(78);
    wait_until("the log names what is missing and the remedy", || {
        let log = daemon.log();
        log.contains("sql/roles.sql")
            && log.contains("the role stranger lacks USAGE on schema app, SELECT on outbox_event")
    });
}

/// Goal: privileges that vanish under a running daemon are told by /ready, the connection is not
/// taken for lost, and nothing is lost.
#[test]
fn privileges_that_vanish_while_it_runs_are_told_and_waited_for() {
    let roles = Roles::new();
    let daemon = Daemon::new(&roles.db)
        .dsn(roles.dsn("a_daemon"))
        .route("*=log")
        .args(["--poll-interval", "0.05"])
        .start();
    daemon.wait_ready();

    roles
        .db
        .execute("revoke select on outbox_event from dispatchbox_daemon");
    roles.produce("order.created", 5);
    wait_until("/ready says so", || {
        daemon.get("/ready").1.contains("events cannot be claimed")
    });
    wait_until("the worker counts it", || {
        daemon.metric("dispatchbox_db_errors_total", &[("reason", "permission")]) >= Some(1.0)
    });
    assert_eq!(daemon.metric("dispatchbox_db_connected", &[]), Some(1.0));
    roles
        .db
        .execute("grant select on outbox_event to dispatchbox_daemon");

    wait_until("the events are done", || roles.db.count("done") == 5);
    daemon.wait_ready();
}

/// Goal: psql, as the README calls it, ends with an error where something is wrong, says what that
/// is, and has then granted nothing.
#[test]
fn the_file_of_the_roles_stops_at_what_is_wrong_and_names_it() {
    let server = cluster::private();
    let db = TestDb::on(&server);
    db.execute(
        "create role app login; create role stranger login createrole; alter schema public owner to app; \
         do $$ declare name text; begin \
           for name in select format('table %I', relname) from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' \
            union all select 'routine ' || oid::regprocedure from pg_proc where pronamespace = 'public'::regnamespace loop \
             execute 'alter ' || name || ' owner to app'; \
           end loop; end $$",
    );
    let apply = |user: &str, options: &str| {
        let dsn = db.dsn().replace("user=postgres", &format!("user={user}"));
        let output = psql()
            .env("PGOPTIONS", options)
            .args(["-d", &dsn, "-f"])
            .arg(roles_file())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let check_refused = |user: &str, options: &str, error: &str, hint: &str| {
        let (code, said) = apply(user, options);
        assert_eq!(code, Some(3), "{said}");
        assert_eq!(said.matches("ERROR:").count(), 1, "{said}");
        assert!(said.contains(error) && said.contains(hint), "{said}");
        let made = "select count(*) from pg_roles where rolname like 'dispatchbox%'";
        assert_eq!(db.number(made, &[]), 0, "{said}");
    };

    check_refused(
        "app",
        "",
        "app may not create the roles dispatchbox_archivist, dispatchbox_daemon, dispatchbox_producer",
        "create role NAME nologin",
    );
    check_refused(
        "stranger",
        "",
        "tables or functions of the outbox belong to app, whose privileges stranger does not have",
        "as their owner",
    );
    check_refused(
        "postgres",
        "-csearch_path=nowhere",
        "the search_path (nowhere) reaches no table outbox_event",
        "It stands in the schema public",
    );
    db.execute("alter table outbox_lease rename to renamed_away");
    check_refused(
        "postgres",
        "",
        "the schema public lacks outbox_lease",
        "dispatchbox migrate",
    );
    db.execute("alter table renamed_away rename to outbox_lease");
    for (table, column) in [
        ("outbox_event", "headers"),
        ("outbox_event_archive", "last_error"),
    ] {
        db.execute(&format!(
            "alter table {table} rename {column} to renamed_away"
        ));
        let error = format!("the schema public lacks the columns {table}.{column}");
        check_refused("postgres", "", &error, "dispatchbox migrate");
        db.execute(&format!(
            "alter table {table} rename renamed_away to {column}"
        ));
    }

    // The schema of the tables counts, not the first one of the search_path.
    db.execute("create schema other; alter role app createrole");
    assert_eq!(
        apply("app", "-csearch_path=other,public"),
        (Some(0), String::new())
    );
    db.execute("create role a_daemon login in role dispatchbox_daemon");
    let dsn = db.dsn().replace("user=postgres", "user=a_daemon");
    let mut session = connect(&Dsn::parse(&dsn).unwrap(), &TIMEOUTS, "test").unwrap();
    assert_eq!(session.missing_prerequisite(), Ok(None));
}

/// Goal: row-level security that hides rows is told before the start, by `migrate --check` and
/// while the daemon runs, with a remedy that works; policies that let all rows pass are none of
/// that. Method: each policy of `cases` alone.
#[test]
fn row_level_security_that_hides_rows_is_named_with_its_remedy() {
    let roles = Roles::new();
    let db = &roles.db;
    let hidden = || {
        roles
            .session("a_daemon")
            .missing_prerequisite()
            .unwrap()
            .map(|missing| missing.to_string())
    };
    let remedy = |table: &str| {
        format!(
            "row-level security hides rows of {table} from the role a_daemon: create policy dispatchbox on {table} to a_daemon using (true)"
        )
    };
    db.execute("alter table outbox_event enable row level security");
    assert_eq!(hidden(), Some(remedy("outbox_event")));
    assert_eq!(session_of_owner(db).missing_prerequisite(), Ok(None));

    let checked = Cli::new(["migrate", "--check", "--dsn", &roles.dsn("a_daemon")]).run();
    assert_eq!(checked.status, 78);
    assert_eq!(
        checked.stdout,
        format!("unfit: {}\n", remedy("outbox_event"))
    );
    let started = Cli::new(["run", "--http-port", "0", "--dsn", &roles.dsn("a_daemon")]).run();
    assert_eq!(started.status, 78);
    assert!(
        started
            .stderr
            .contains("could not start: row-level security hides"),
        "{}",
        started.stderr
    );

    for (command, words) in [
        (
            "explain 1",
            "this role sees no such event, and it does not see all",
        ),
        ("dead-events list", "no dead events"),
        ("status --once", "backlog        0"),
    ] {
        let said = Cli::new(command.split(' '))
            .args(["--dsn", &roles.dsn("a_daemon")])
            .run();
        let all = said.stderr + &said.stdout;
        for part in [words, &remedy("outbox_event")] {
            assert!(all.contains(part), "{command}: {all}");
        }
    }

    let cases: [(&str, Option<String>); 8] = [
        ("using (true)", None),
        ("to a_producer using (true)", Some(remedy("outbox_event"))),
        ("to dispatchbox_daemon using (true)", None),
        ("for select using (true)", Some(remedy("outbox_event"))),
        ("for all using (true) with check (status <> 'dead')", Some(remedy("outbox_event"))),
        ("using (aggregate_type = 'order')", Some(remedy("outbox_event"))),
        ("for select using (true); create policy p2 on outbox_event for update using (true)", None),
        (
            "using (true); create policy p2 on outbox_event as restrictive using (aggregate_type <> 'x')",
            Some("row-level security hides rows of outbox_event from the role a_daemon: drop the restrictive policy p2, or alter role a_daemon bypassrls".to_owned()),
        ),
    ];
    for (policy, told) in cases {
        db.execute(&format!("create policy p1 on outbox_event {policy}"));
        assert_eq!(hidden(), told, "{policy}");
        db.execute("drop policy p1 on outbox_event; drop policy if exists p2 on outbox_event");
    }
    db.execute("alter role a_daemon bypassrls");
    assert_eq!(hidden(), None);
    db.execute(
        "alter role a_daemon nobypassrls; alter table outbox_event disable row level security",
    );

    let daemon = Daemon::new(db)
        .dsn(roles.dsn("a_daemon"))
        .route("*=log")
        .start();
    daemon.wait_ready();
    db.execute("alter table outbox_event enable row level security; alter table outbox_lease enable row level security");
    wait_until("/ready says 503", || daemon.get("/ready").0 == 503);
    daemon.wait_log("row-level security hides rows of outbox_event");
    db.insert_events("order.created", 3);
    let told = hidden().unwrap();
    assert_eq!(
        told,
        format!("{}; {}", remedy("outbox_event"), remedy("outbox_lease"))
    );
    for part in told.split("; ") {
        db.execute(part.split_once(": ").unwrap().1);
    }
    daemon.wait_ready();
    wait_until("the events are done", || db.count("done") == 3);
}

fn session_of_owner(db: &TestDb) -> Session {
    connect(&Dsn::parse(&db.dsn()).unwrap(), &TIMEOUTS, "test").unwrap()
}
