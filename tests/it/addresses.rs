//! Several hosts, several addresses of one name, standbys among them: each is tried until one
//! serves.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use dispatchbox::dev::cluster::{Cluster, ServerSettings, StopMode};
use dispatchbox::store::dsn::Dsn;
use dispatchbox::store::{Resolver, Session, StoreError, Timeouts, connect, connect_by};

use crate::support::session::TIMEOUTS;
use crate::support::{Daemon, Recorder, TestDb, TestDir, cluster, wait_until};

/// PostgreSQL's, on an address of this process's own.
const PORT: u16 = 5432;

/// Addresses that no other process takes: each test has two, by its number.
fn address(test: u8, server: u8) -> Ipv4Addr {
    let pid = std::process::id();
    let [_, _, high, low] = pid.to_be_bytes();
    Ipv4Addr::new(127, 128 + test * 2 + server, high, low)
}

/// Knows one name per test: a first address and a second one.
#[expect(clippy::unnecessary_wraps, reason = "the form of a resolver")]
fn names(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let test: u8 = name.trim_start_matches("pair").parse().unwrap();
    let both = [0, 1].map(|server| SocketAddr::from((address(test, server), port)));
    Ok(both.to_vec())
}

/// Servers are reached at their own address, too.
fn at(address: Ipv4Addr) -> ServerSettings {
    ServerSettings::volatile().with("listen_addresses", &address.to_string())
}

/// Puts lines before the access rules of a server.
fn allow(server: &Cluster, lines: &str) {
    let path = server.directory().join("data/pg_hba.conf");
    let rules = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{lines}\n{rules}")).unwrap();
    execute(server, "select pg_reload_conf()");
}

fn execute(server: &Cluster, sql: &str) {
    let mut client = server.client("postgres").unwrap();
    client.batch_execute(sql).unwrap();
}

/// A primary and its hot standby, at the addresses of a test: the standby's is the first.
fn pair(test: u8) -> (Cluster, Cluster) {
    let primary = cluster::private_with(&at(address(test, 1)));
    allow(&primary, "host all all 127.0.0.0/8 trust");
    let standby = Cluster::standby_of(&primary, &at(address(test, 0))).unwrap();
    (primary, standby)
}

fn connect_to(text: &str, timeouts: &Timeouts) -> Result<Session, StoreError> {
    connect_by(
        names as Resolver,
        &Dsn::parse(text).unwrap(),
        timeouts,
        "test",
    )
}

/// Whether a session could write: what changes no row is refused by a standby, too.
fn can_write(session: &mut Session) -> bool {
    match session.requeue(&[]) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.reason(), "read_only", "{error}");
            false
        }
    }
}

/// Goal: a name that gives a standby and a primary leads to the primary, unless the first that
/// answers is asked for.
#[test]
fn a_name_of_a_standby_and_a_primary_leads_to_the_primary() {
    let (primary, mut standby) = pair(0);
    let db = TestDb::on(&primary);
    wait_until("the standby has the database", || {
        standby.client(db.name()).is_ok()
    });
    let base = format!("host=pair0 user=postgres dbname={}", db.name());

    for attributes in [
        "",
        "target_session_attrs=read-write",
        "target_session_attrs=primary",
    ] {
        let mut session = connect_to(&format!("{base} {attributes}"), &TIMEOUTS).unwrap();
        assert!(can_write(&mut session), "{attributes}");
    }
    let mut any = connect_to(&format!("{base} target_session_attrs=any"), &TIMEOUTS).unwrap();
    assert!(!can_write(&mut any));

    // Lists of addresses, with and without names.
    for hosts in ["", "host=a,b "] {
        let addresses = format!("{hosts}hostaddr={},{}", address(0, 0), address(0, 1));
        let text = base.replace("host=pair0", &addresses);
        assert!(
            can_write(&mut connect_to(&text, &TIMEOUTS).unwrap()),
            "{text}"
        );
    }

    // Both only read: what looks for a primary waits for it, and what does not care takes the
    // first.
    execute(
        &primary,
        "alter system set default_transaction_read_only = on",
    );
    execute(&primary, "select pg_reload_conf()");
    let choosy = format!("{base} target_session_attrs=read-write");
    wait_until("the primary only reads", || {
        connect_to(&choosy, &TIMEOUTS).is_err()
    });
    let error = connect_to(&choosy, &TIMEOUTS).err().unwrap();
    assert!(
        error.is_transient() && error.reason() == "read_only",
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "could not connect to the database: the server only reads"
    );
    assert!(!can_write(&mut connect_to(&base, &TIMEOUTS).unwrap()));

    // One is gone and the other only reads: each cause is told.
    standby.stop(StopMode::Immediate).unwrap();
    let error = connect_to(&choosy, &TIMEOUTS).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "could not connect to the database: {}:{PORT}: connection refused; {}:{PORT}: the server only reads",
            address(0, 0),
            address(0, 1)
        )
    );
}

/// Goal: a first address that swallows what is sent to it costs a part of the time once; the next
/// connect begins with the other one.
#[test]
fn a_first_address_that_is_silent_costs_its_share_once() {
    let silent = TcpListener::bind((address(1, 0), PORT)).unwrap();
    let server = cluster::private_with(&at(address(1, 1)));
    allow(&server, "host all all 127.0.0.0/8 trust");
    let dsn = Dsn::parse("host=pair1 user=postgres dbname=postgres").unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_secs(4),
        ..TIMEOUTS
    };

    let since = Instant::now();
    let mut first = connect_by(names, &dsn, &timeouts, "test").unwrap();
    assert!(since.elapsed() < timeouts.connect);
    first.now().unwrap();

    // No ping is answered at this address, so a connect that began with it would have to wait.
    silent.set_nonblocking(true).unwrap();
    let n_pings = std::iter::from_fn(|| silent.accept().ok()).count();
    let mut second = connect_by(names, &dsn, &timeouts, "test").unwrap();
    second.now().unwrap();
    assert_eq!(std::iter::from_fn(|| silent.accept().ok()).count(), 0);
    assert_eq!(n_pings, 1);
}

/// Goal: the same for the first host of a list, and a worker knows from its supervisor which one is
/// the good one.
#[test]
fn a_first_host_that_is_silent_costs_its_time_once_in_the_whole_fleet() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let server = cluster::private();
    let text = format!(
        "host=127.0.0.1,{} port={port},5432 user=postgres dbname=postgres",
        server.directory().display()
    );
    let dsn = Dsn::parse(&text).unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_millis(500),
        ..TIMEOUTS
    };
    connect(&dsn, &timeouts, "test").unwrap();

    let line = serde_json::to_string(&dsn.newest()).unwrap();
    let told: Dsn = serde_json::from_str(&line).unwrap();
    for dsn in [&dsn, &told] {
        connect(dsn, &timeouts, "test").unwrap();
    }

    silent.set_nonblocking(true).unwrap();
    let pings = std::iter::from_fn(|| silent.accept().ok());
    assert_eq!(pings.count(), 1);
}

/// Goal: libpq gives up at the first server that refuses the login; here the next one is asked.
#[test]
fn a_server_that_refuses_the_login_does_not_hide_the_next_one() {
    let (strange, server) = (cluster::private(), cluster::private());
    execute(&server, "create role box login");
    let text = format!(
        "host={},{} user=box dbname=postgres",
        strange.directory().display(),
        server.directory().display()
    );

    connect_to(&text, &TIMEOUTS).unwrap().now().unwrap();

    execute(&server, "drop role box");
    let error = connect_to(&text, &TIMEOUTS).err().unwrap();
    assert!(error.is_configuration(), "{error}");
    assert_eq!(
        error.to_string(),
        "could not connect to the database: role \"box\" does not exist"
    );
}

/// Each host of a list has the password that the passfile has for it.
#[test]
fn hosts_may_have_passwords_of_their_own() {
    let servers = [cluster::private(), cluster::private()];
    let mut lines = String::new();
    for (n, server) in servers.iter().enumerate() {
        execute(
            server,
            &format!("create role box login password 'secret {n}'"),
        );
        allow(server, "local all box scram-sha-256");
        writeln!(lines, "{}:*:*:box:secret {n}", server.directory().display()).unwrap();
    }
    let directory = TestDir::new();
    let path = directory.file("pass");
    fs::write(&path, lines).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let [a, b] = servers
        .each_ref()
        .map(|server| server.directory().display());

    for hosts in [
        format!("{a},{b}"),
        format!("{b},{a}"),
        format!("/nowhere,{b}"),
    ] {
        let text = format!("host={hosts} user=box dbname=postgres passfile={path}");
        connect_to(&text, &TIMEOUTS).unwrap().now().unwrap();
    }
}

/// Goal: after a failover the daemon finds the new primary by itself; nothing is charged and
/// nothing runs twice. Method: the primary is gone as by a power failure, its standby is promoted.
#[test]
fn after_a_failover_the_promoted_standby_is_found() {
    let mut primary = cluster::private();
    let db = TestDb::on(&primary);
    let standby = Cluster::standby_of(&primary, &ServerSettings::volatile()).unwrap();
    execute(&primary, "alter system set synchronous_standby_names = '*'");
    execute(&primary, "select pg_reload_conf()");
    let dsn = format!(
        "host={},{} user=postgres dbname={}",
        primary.directory().display(),
        standby.directory().display(),
        db.name()
    );
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db).dsn(dsn).route(recorder.route("*")).start();
    db.insert_events("order.created", 20);
    wait_until("the first events are done", || db.count("done") == 20);

    primary.stop(StopMode::Immediate).unwrap();
    daemon.wait_log("database is away");
    execute(&standby, "select pg_promote()");
    let promoted = Instant::now();
    let mut client = standby.client(db.name()).unwrap();
    let insert = "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload) values ('order', '1', 'order.created', '{}')";
    client.batch_execute(insert).unwrap();
    let mut n_done = || -> i64 {
        let sql = "select count(*) from outbox_event where status = 'done' and attempts = 1";
        client.query_one(sql, &[]).unwrap().get(0)
    };
    wait_until("the new event is done", || n_done() == 21);
    eprintln!(
        "delivered {} ms after the promotion",
        promoted.elapsed().as_millis()
    );
    daemon.signal(rustix::process::Signal::TERM);
    daemon.assert_exits(0);
    assert_eq!(recorder.history().len(), 21);
}

/// A person who looks for the application finds it by the name that he gave; the sweep of a dead
/// worker looks for ours.
#[test]
fn the_name_that_the_description_gives_stands_before_ours() {
    let db = TestDb::new();
    let ours = "dispatchbox worker-00 0123456789abcdef";
    let shown = |given: &str| -> String {
        let dsn = Dsn::parse(&format!("{} {given}", db.dsn())).unwrap();
        let mut session = connect(&dsn, &TIMEOUTS, ours).unwrap();
        assert!(session.has_backend(ours).unwrap());
        assert!(
            !session
                .has_backend("dispatchbox worker-00 0123456789abcdee")
                .unwrap()
        );
        assert_eq!(session.connected_workers().unwrap(), 1);
        let sql = "select application_name from pg_stat_activity where datname = current_database() and application_name like '%' || $1";
        let rows = db.client().query(sql, &[&ours]).unwrap();
        rows[0].get(0)
    };

    assert_eq!(shown(""), ours);
    assert_eq!(shown("application_name=shop"), format!("shop {ours}"));
    assert_eq!(
        shown("fallback_application_name=shop"),
        format!("shop {ours}")
    );
    assert_eq!(
        shown("application_name='größer als 63 Bytes und noch ein Stück'"),
        format!("gr??er als 63 Bytes und {ours}")
    );
    assert_eq!(shown("application_name=' '"), ours);
}
