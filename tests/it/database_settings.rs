//! Settings that a role, a database or a server may have change nothing: the same work comes to the
//! same, whatever is turned.
//!
//! Every setting that a role can have is turned, in rounds: switches to their other side, each word
//! of those that have words, numbers to their least and their greatest. A round that comes out
//! otherwise is halved until it names its culprit.

use std::fmt::{Debug, Write as _};
use std::time::Duration;

use dispatchbox::dev::cluster::Cluster;
use dispatchbox::domain::event::Outcome;
use dispatchbox::store::dsn::Dsn;
use dispatchbox::store::{
    ClaimQuery, DeadFilter, NewEvent, Position, Session, SettleBatch, Settlement, Timeouts,
    connect, schema,
};

use crate::support::cluster::{TEMPLATE, private, schema_sql};
use crate::support::versions::drop_database;
use crate::support::{Cli, TestDb, session};

/// Whose settings are turned: the owner of the tables, no superuser.
const ROLE: &str = "shop";

/// What is not turned, and why. What begins with `log_` only tells the server's own log more or
/// less.
const LEFT_ALONE: &[(&str, &str)] = &[
    (
        "default_transaction_read_only",
        "an operator stops all writing by it, and it is waited for: chaos::server",
    ),
    (
        "exit_on_error",
        "ends the server process at the first error of any statement",
    ),
    (
        "idle_session_timeout",
        "closes connections, which is waited for: connect",
    ),
    ("role", "is who one is"),
    ("session_authorization", "is who one is"),
    ("transaction_isolation", "belongs to one transaction"),
    ("transaction_read_only", "belongs to one transaction"),
    ("transaction_deferrable", "belongs to one transaction"),
];

/// Values instead of the least and the greatest, of all words or of any text.
const CHOSEN: &[(&str, &[&str])] = &[
    ("statement_timeout", &["1", "0"]),
    ("lock_timeout", &["1", "0"]),
    ("idle_in_transaction_session_timeout", &["1", "0"]),
    ("client_min_messages", &["debug5", "error"]),
    ("datestyle", &["German, DMY", "SQL, MDY", "Postgres, YMD"]),
    (
        "timezone",
        &["Asia/Kathmandu", "America/St_Johns", "posix/Right"],
    ),
    ("timezone_abbreviations", &["Australia", "India"]),
    ("client_encoding", &["LATIN1", "SQL_ASCII"]),
    ("lc_monetary", &["POSIX"]),
    ("lc_numeric", &["POSIX"]),
    ("lc_time", &["POSIX"]),
    ("lc_messages", &["POSIX", "C.utf8"]),
    ("default_text_search_config", &["pg_catalog.german"]),
    ("default_tablespace", &["pg_default", "nowhere"]),
    ("temp_tablespaces", &["pg_default"]),
    ("default_table_access_method", &["heap"]),
    ("application_name", &["dispatchbox worker-99"]),
    // Without $libdir no PL/pgSQL runs at all, since PostgreSQL 18.
    ("dynamic_library_path", &["/nowhere:$libdir"]),
    (
        "search_path",
        &[
            "public, pg_catalog",
            "nowhere, public",
            "pg_temp, public",
            "public, decoys",
        ],
    ),
];

/// One setting and the value that it gets.
type Turned = (String, String);

/// What is done with a database whose settings are turned.
struct Bench {
    server: Cluster,
    n_databases: u32,
}

impl Bench {
    fn new() -> Bench {
        let server = private();
        let mut bench = Bench {
            server,
            n_databases: 0,
        };
        bench.execute(TEMPLATE, "select 1");
        bench.execute(
            "postgres",
            &format!(
                "create role {ROLE} login; create role other; alter role {ROLE} set geqo = on"
            ),
        );
        bench.execute("postgres", &format!("create database empty owner {ROLE}"));
        bench.execute("postgres", &format!("create database filled owner {ROLE}"));
        for name in ["empty", "filled"] {
            bench.execute(name, &format!("grant all on schema public to {ROLE}"));
        }
        let mut owner = postgres::Client::connect(&bench.dsn("filled"), postgres::NoTls).unwrap();
        owner.batch_execute(&schema_sql()).unwrap();
        owner.batch_execute(EVENTS).unwrap();
        // Things of the same names elsewhere in the path are none of ours.
        bench.execute("filled", DECOYS);
        bench
    }

    fn execute(&mut self, dbname: &str, sql: &str) {
        self.server
            .client(dbname)
            .unwrap()
            .batch_execute(sql)
            .unwrap();
    }

    fn dsn(&self, dbname: &str) -> String {
        self.server
            .dsn(dbname)
            .replace("user=postgres", &format!("user={ROLE}"))
    }

    /// A copy of a database for one round.
    fn copy_of(&mut self, template: &str) -> String {
        self.n_databases += 1;
        let name = format!("{template}_{}", self.n_databases);
        self.execute(
            "postgres",
            &format!("create database {name} template {template} owner {ROLE}"),
        );
        name
    }

    /// Gives the role these settings and no others; a value that the server does not take is passed
    /// over.
    fn turn(&mut self, settings: &[Turned]) {
        let mut sql = format!("alter role {ROLE} reset all;");
        for (name, value) in settings {
            let value = if name == "search_path" {
                value.clone()
            } else {
                format!("'{value}'")
            };
            write!(
                sql,
                "do $do$ begin alter role {ROLE} set {name} = {value}; exception when others then null; end $do$;"
            )
            .unwrap();
        }
        self.execute("postgres", &sql);
    }

    /// Does the work under these settings.
    fn outcome(&mut self, settings: &[Turned]) -> Result<Vec<String>, String> {
        let (full, empty) = (self.copy_of("filled"), self.copy_of("empty"));
        self.turn(settings);
        let done = work(&self.dsn(&full), &self.dsn(&empty));
        for name in [full, empty] {
            let mut server = self.server.client("postgres").unwrap();
            drop_database(&mut server, &name).unwrap();
        }
        done
    }

    /// Names the smallest part of the settings that makes a difference.
    fn culprits(&mut self, settings: &[Turned], expected: &[String]) -> Option<String> {
        let came_to = self.outcome(settings);
        if came_to.as_deref() == Ok(expected) {
            return None;
        }
        if settings.len() > 1 {
            let (first, second) = settings.split_at(settings.len() / 2);
            let found = [first, second].map(|half| self.culprits(half, expected));
            let found: Vec<String> = found.into_iter().flatten().collect();
            if !found.is_empty() {
                return Some(found.join("\n"));
            }
        }
        let difference = match came_to {
            Err(error) => error,
            Ok(lines) => {
                let at = lines
                    .iter()
                    .zip(expected)
                    .position(|(a, b)| a != b)
                    .unwrap_or(0);
                format!("{:?} instead of {:?}", lines.get(at), expected.get(at))
            }
        };
        Some(format!("{settings:?}: {difference}"))
    }

    /// Every setting that a role can have, with the values to turn it to.
    fn settings(&self) -> Vec<(String, Vec<String>)> {
        let sql = "select name, case vartype when 'bool' then array[case setting when 'on' then 'off' else 'on' end] \
                     when 'enum' then array_remove(enumvals, setting) \
                     when 'string' then '{}' else array[min_val, max_val] end \
                   from pg_settings where context in ('user', 'superuser') order by name";
        let rows = self
            .server
            .client("postgres")
            .unwrap()
            .query(sql, &[])
            .unwrap();
        let chosen = |name: &str| {
            let found = CHOSEN
                .iter()
                .find(|(known, _)| name.eq_ignore_ascii_case(known));
            found.map_or(&[][..], |(_, values)| *values)
        };
        rows.iter()
            .map(|row| (row.get::<_, String>(0), row.get::<_, Vec<String>>(1)))
            .filter(|(name, _)| !LEFT_ALONE.iter().any(|(known, _)| known == name))
            .filter(|(name, _)| !name.starts_with("log_"))
            .map(|(name, values)| match chosen(&name) {
                [] => (name, values),
                values => (name, values.iter().map(|&value| value.to_owned()).collect()),
            })
            .collect()
    }
}

/// Events whose texts would show it if they were read or written otherwise.
const EVENTS: &str = r#"
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts, next_run_at, created_at, last_error, headers)
    select 'order', i::text, 'order.created', '{"n": 0.1000000000000000055511151231257827, "t": "a\\b ''c'' \u00e4 NULL {}"}', 'pending', 2,
           '2024-03-31 01:30:00+00'::timestamptz + make_interval(secs => i), '2024-10-27 00:59:59.999999+00', null, '{"k": 1e300}'
      from generate_series(1, 6) i;
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts, created_at, last_error, last_error_at)
    select 'order', i::text, 'order.failed', 'null', 'dead', 5, '2024-01-02 03:04:05.000006+00'::timestamptz + make_interval(secs => i),
           E'it''s a \\ "quoted" NULL', '2024-01-02 03:04:05+00'
      from generate_series(7, 10) i;
    insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status, attempts, created_at, finished_at)
    values ('order', '11', 'order.done', '[]', 'done', 1, '2023-01-02 03:04:05+00', '2023-01-02 03:04:06+00');
    alter table outbox_event enable row level security, force row level security;
    create policy all_rows on outbox_event using (true)"#;

const DECOYS: &str = "
    create schema decoys;
    create table decoys.outbox_event (id int); create table decoys.outbox_lease (token int);
    create function decoys.outbox_claim_2(text) returns int language sql as 'select 1';
    create function decoys.now() returns int language sql as 'select 1';
    grant usage on schema decoys to public";

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    query: Duration::from_secs(20),
};

/// Makes every kind of call and tells what came of it.
fn work(full: &str, empty: &str) -> Result<Vec<String>, String> {
    let mut told = Told(Vec::new());
    let open = |dsn: &str| {
        let dsn = Dsn::parse(dsn).map_err(|error| error.to_string())?;
        connect(&dsn, &TIMEOUTS, "dispatchbox test").map_err(|error| error.to_string())
    };
    let mut session = open(full)?;
    deliver(&mut told, &mut session)?;
    look(&mut told, &mut session)?;
    change(&mut told, &mut session)?;
    let mut session = open(empty)?;
    let report = schema::migrate(&mut session, &mut |_| ());
    told.of("migrate", report)?;
    let report = schema::migrate(&mut session, &mut |_| ());
    told.of("migrate again", report)?;
    told.of("check", schema::check(&mut session))?;
    for (dsn, args) in [
        (full, "migrate --check"),
        (full, "dead-events show 8"),
        (full, "dead-events stats"),
        (full, "explain 3"),
        (full, "status"),
        (
            empty,
            "publish --aggregate-type order --aggregate-id 1 --event-type order.created --payload {\"a\":1}",
        ),
        (empty, "explain 1"),
    ] {
        let said = Cli::new(args.split(' ')).args(["--dsn", dsn]).run();
        told.0.push(format!("{args}: {}", said.status));
        if said.status > 1 {
            return Err(format!("{args}: {}{}", said.stdout, said.stderr));
        }
        if args.starts_with("dead-events") {
            told.0.push(said.stdout);
        }
    }
    Ok(told.0)
}

struct Told(Vec<String>);

impl Told {
    fn of<T: Debug, E: ToString>(&mut self, what: &str, result: Result<T, E>) -> Result<T, String> {
        let value = named(what, result)?;
        self.0.push(format!("{what}: {value:?}"));
        Ok(value)
    }
}

/// For what has the time of the call in it.
fn named<T, E: ToString>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {}", error.to_string()))
}

fn deliver(told: &mut Told, session: &mut Session) -> Result<(), String> {
    told.of("lack", session.missing_prerequisite())?;
    told.of("rehearse", session.rehearse())?;
    told.of("check", schema::check(session))?;
    // It binds the session to the schema; the others do without.
    let event = NewEvent {
        aggregate_type: "order".to_owned(),
        aggregate_id: "12".to_owned(),
        event_type: "order.published".to_owned(),
        payload: r#"{"a": "\\ ' \u00e4", "n": 0.30000000000000004}"#.to_owned(),
        headers: Some(r#"{"h": "\\"}"#.to_owned()),
        after: Duration::from_hours(1),
    };
    told.of("publish", session.publish(&event))?;
    let query = session::query("worker");
    let claimed = named("claim", session.claim(&query))?.ok_or("nothing was claimed")?;
    for event in &claimed.events {
        told.0.push(format!("{} {event:?}", event.to_json()));
    }
    let token = claimed.token;
    let renewed = session.renew("worker", &[token], Duration::from_mins(1));
    told.0.push(format!("renewed: {}", told_len(renewed)?));
    let leases = session
        .leases_of("worker")
        .map_err(|error| error.to_string())?;
    told.0.push(format!(
        "leases: {:?}",
        leases
            .iter()
            .map(|lease| &lease.event_ids)
            .collect::<Vec<_>>()
    ));
    told.0
        .push(format!("holders: {}", told_len(session.lease_holders())?));
    told.of("in flight", session.in_flight_types())?;
    let outcomes = [
        (1, Outcome::Done),
        (
            2,
            Outcome::Retry {
                delay: Duration::from_hours(1),
                reason: r"it's \ 'so' ä".to_owned(),
            },
        ),
        (
            3,
            Outcome::Dead {
                reason: "NULL".to_owned(),
            },
        ),
        (4, Outcome::Released),
        (5, Outcome::Done),
    ];
    let outcomes = outcomes.map(|(event_id, outcome)| Settlement {
        token,
        event_id,
        outcome,
    });
    let batch = SettleBatch {
        worker: "worker",
        outcomes: &outcomes,
        ended: &[token],
        expired: false,
    };
    let mut written = named("settle", session.settle(&batch))?;
    written.sort_by_key(|one| (one.event_id, one.written));
    told.0.push(format!("{written:?}"));
    Ok(())
}

fn told_len<T, E: ToString>(result: Result<Vec<T>, E>) -> Result<usize, String> {
    result
        .map(|list| list.len())
        .map_err(|error| error.to_string())
}

fn look(told: &mut Told, session: &mut Session) -> Result<(), String> {
    for id in 1..=11 {
        let mut found = named("inspect", session.inspect(id))?.ok_or("the event is gone")?;
        found.now_micros = 0;
        if found.next_run_at_micros > Some(1_735_689_600_000_000) {
            (found.next_run_at, found.next_run_at_micros) = (None, None);
        }
        for time in [&mut found.last_error_at, &mut found.finished_at] {
            *time = time.take().filter(|time| time < &"2025".to_owned());
        }
        told.0.push(format!("{found:?}"));
    }
    session
        .set_up_statistics()
        .map_err(|error| error.to_string())?;
    let backlog = session
        .count_backlog(&Position::FRONT, 100)
        .map_err(|error| error.to_string())?;
    told.0
        .push(format!("{} {:?}", backlog.n_events, backlog.first));
    let not_due = session
        .count_not_due(100)
        .map_err(|error| error.to_string())?;
    told.0
        .push(format!("{} {}", not_due.n_events, not_due.is_capped));
    told.of("dead", session.count_dead_by_type(100))?;
    Ok(())
}

fn change(told: &mut Told, session: &mut Session) -> Result<(), String> {
    let filter = DeadFilter {
        error: Some("\\ \"quoted\"".to_owned()),
        since_micros: Some(1_704_164_646_000_000),
        ..DeadFilter::default()
    };
    told.of("count", session.count_dead(&filter))?;
    let listed = named("list", session.dead_events(&filter, 10, 0, 1 << 20))?;
    for event in listed {
        told.0.push(
            event
                .to_json()
                .split("\"next_run_at\"")
                .map(str::to_owned)
                .collect::<Vec<_>>()[0]
                .clone(),
        );
        told.0.push(format!(
            "{:?} {:?} {:?}",
            event.created_at, event.last_error, event.last_error_at
        ));
    }
    let mut requeued = named("requeue", session.requeue(&[7, 9, 11]))?;
    requeued.ids.sort_unstable();
    told.0.push(format!("requeued: {requeued:?}"));
    told.of("discard", session.discard(&[10]))?;
    told.0.push(format!(
        "archived: {:?}",
        session
            .archived(10)
            .map(|found| found.map(|it| (it.status, it.attempts, it.last_error)))
            .map_err(|error| error.to_string())?
    ));
    Ok(())
}

/// Goal: whatever settings a role has, each call comes to what it comes to without them.
#[test]
fn no_setting_of_a_role_changes_what_a_call_comes_to() {
    let mut bench = Bench::new();
    let expected = bench.outcome(&[]).unwrap();
    assert_eq!(
        bench.outcome(&[]).unwrap(),
        expected,
        "without settings it is the same twice"
    );
    assert!(expected.len() > 40, "{expected:#?}");
    let settings = bench.settings();
    assert!(settings.len() > 120, "{}", settings.len());
    let n_rounds = settings
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap();
    let mut found = Vec::new();
    for round in 0..n_rounds {
        let turned: Vec<Turned> = settings
            .iter()
            .filter_map(|(name, values)| Some((name.clone(), values.get(round)?.clone())))
            .collect();
        found.extend(bench.culprits(&turned, &expected));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Goal: no setting makes a claim take longer than it may. Method: among thousands of claimed
/// events, with as little memory and as dear an index as a role can have.
#[test]
fn no_planner_setting_of_a_role_makes_a_claim_run_out_of_time() {
    let db = TestDb::new();
    db.insert_events("order.created", 30_000);
    db.execute(
        "insert into outbox_lease (token, worker, expires_at, event_ids)
         select l, 'other', 'infinity', array(select i::bigint from generate_series(l * 900 - 899, l * 900) i) from generate_series(1, 30) l;
         analyze outbox_event",
    );
    let turned = [
        "work_mem = '64kB'",
        "enable_indexscan = off",
        "enable_indexonlyscan = off",
        "enable_nestloop = off",
        "random_page_cost = 1e10",
        "cpu_index_tuple_cost = 1e10",
    ];
    for setting in turned {
        db.execute(&format!("alter database {} set {setting}", db.name()));
    }
    let timeouts = Timeouts {
        query: Duration::from_secs(5),
        ..TIMEOUTS
    };
    let mut session = connect(&Dsn::parse(&db.dsn()).unwrap(), &timeouts, "test").unwrap();
    let query = ClaimQuery {
        limit: 900,
        ..session::query("a")
    };

    let claimed = session.claim(&query).unwrap().unwrap();

    assert_eq!(claimed.events.len(), 900);
}
