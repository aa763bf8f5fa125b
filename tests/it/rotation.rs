//! A password that changes while the program runs: what said where the database is is read again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatchbox::dev::cluster::Cluster;
use dispatchbox::store::dsn::{Dsn, Env, Place, Source};
use dispatchbox::store::{StoreError, connect};

use crate::support::session::TIMEOUTS;
use crate::support::{Daemon, Recorder, TestDb, TestDir, cluster, wait_until};

/// A server with a database, where the role `box` needs a password.
struct Guarded {
    // Dropped in this order.
    db: TestDb,
    server: Cluster,
}

impl Guarded {
    fn with_password(password: &str) -> Guarded {
        let server = cluster::private();
        let db = TestDb::on(&server);
        let path = server.directory().join("data/pg_hba.conf");
        let rules = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("local all box scram-sha-256\n{rules}")).unwrap();
        db.execute(&format!(
            "create role box superuser login password '{password}'; select pg_reload_conf()"
        ));
        Guarded { db, server }
    }

    /// Changes the password, and ends the connections that were made with the old one.
    fn rotate(&self, password: &str) {
        self.db.execute(&format!(
            "alter role box password '{password}'; \
             select pg_terminate_backend(pid) from pg_stat_activity where usename = 'box'"
        ));
    }

    fn dsn(&self, password: &str) -> String {
        format!("{} password={password}", self.db.dsn()).replace("user=postgres", "user=box")
    }
}

/// A file of this text that only its owner may read, put there in one step.
fn put(directory: &TestDir, name: &str, text: &str) -> String {
    let (path, new) = (directory.file(name), directory.file("new"));
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, &path).unwrap();
    path
}

fn lines_with(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

/// Goal: a changed password costs no exit and no charge, whatever stands in the file meanwhile, and
/// no log tells it.
#[test]
fn a_changed_password_in_the_dsn_file_is_picked_up_while_running() {
    let guarded = Guarded::with_password("first-secret");
    let db = &guarded.db;
    let directory = TestDir::new();
    let path = put(&directory, "dsn", &guarded.dsn("first-secret"));
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(db)
        .dsn_file(&path)
        .route(recorder.route("*"))
        .args(["--processes", "2"])
        .start();
    let mut ids = db.insert_events("order.created", 20);
    wait_until("it works with the first password", || {
        db.count("done") == 20
    });
    daemon.wait_ready();

    guarded.rotate("second-secret");
    ids.extend(db.insert_events("order.created", 20));
    let refused = "password authentication failed";
    daemon.wait_log(refused);
    let away = |daemon: &crate::support::RunningDaemon| daemon.get("/ready").0 == 503;
    wait_until("it is not ready", || away(&daemon));
    let unusable = "could not be used again";
    put(&directory, "dsn", "\n");
    wait_until("the empty file is told", || {
        lines_with(&daemon.log(), unusable) > 0
    });
    put(&directory, "dsn", &guarded.dsn("half"));
    put(&directory, "dsn", &guarded.dsn("second-secret"));
    wait_until("all events are done", || db.count("done") == 40);
    daemon.wait_ready();

    let charged = "select count(*) from outbox_event where attempts <> 1";
    assert_eq!(db.number(charged, &[]), 0);
    recorder.history().assert_complete(ids, 0);
    let log = daemon.log();
    // The supervisor and each worker, once.
    assert!(lines_with(&log, unusable) <= 3, "{log}");
    assert!(lines_with(&log, "WARN") <= 9, "{log}");
    assert!(!log.contains("secret"), "{log}");
    daemon.signal(rustix::process::Signal::TERM);
    daemon.assert_exits(0);
}

/// A description from a file, whose service file and passfile are in the directory.
fn from_file(directory: &TestDir, text: &str) -> Dsn {
    let path = put(directory, "dsn", text);
    let env = Env::from([
        ("PGSERVICEFILE".to_owned(), directory.file("services")),
        ("PGPASSFILE".to_owned(), directory.file("pass")),
    ]);
    let source = Source::new("the file".to_owned(), Place::File(path.into()), &env);
    let dsn = Dsn::resolve(Some(text), &env, &mut Vec::new()).unwrap();
    // As a worker gets it.
    let line = serde_json::to_string(&dsn.with_source(source)).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn try_connect(dsn: &Dsn) -> Result<(), StoreError> {
    connect(dsn, &TIMEOUTS, "test").map(drop)
}

#[test]
fn a_changed_password_in_service_file_or_passfile_is_picked_up() {
    let guarded = Guarded::with_password("one");
    let directory = TestDir::new();
    let words = guarded.dsn("").replace(' ', "\n").replace("password=", "");
    let services = |password: &str| format!("[outbox]\n{words}\npassword={password}\n");
    put(&directory, "services", &services("one"));
    put(&directory, "pass", "*:*:*:box:one\n");
    let by_service = from_file(&directory, "service=outbox");
    let by_passfile = from_file(&directory, guarded.dsn("").trim_end_matches("password="));
    try_connect(&by_service).unwrap();
    try_connect(&by_passfile).unwrap();

    guarded.rotate("two");
    assert!(try_connect(&by_passfile).unwrap_err().is_configuration());
    put(&directory, "services", &services("two"));
    put(&directory, "pass", "*:*:*:box:two\n");
    // The passfile's own description stands in the file now.
    try_connect(&by_passfile).unwrap();
    put(&directory, "dsn", "service=outbox");
    try_connect(&by_service).unwrap();
    // What was learned by one copy is known to all, and to those that are passed on.
    assert_eq!(by_service.clone().newest(), by_service.newest());
    assert_ne!(by_service.newest(), by_service);
}

/// Goal: a file that cannot be used, whatever it is, leaves things as they were; one that is right
/// again is used.
#[test]
fn what_cannot_be_used_leaves_the_last_good_description() {
    let guarded = Guarded::with_password("one");
    let directory = TestDir::new();
    let good = |password: &str| guarded.dsn(password);
    let dsn = from_file(&directory, &good("one"));
    try_connect(&dsn).unwrap();
    // While the login works nothing is read.
    put(&directory, "dsn", "garbage");
    try_connect(&dsn).unwrap();

    guarded.rotate("two");
    let half = good("two");
    let unusable = [
        String::new(),
        "garbage".to_owned(),
        half[..half.len() - 1].to_owned(),
        half.replace("password=two", ""),
        half.replace("dbname=", "dbname=other"),
        half.replace("user=box", "user=stranger"),
        "host=/nowhere user=box password=two dbname=x".to_owned(),
        "\u{0}".to_owned(),
    ];
    for text in unusable {
        put(&directory, "dsn", &text);
        let error = try_connect(&dsn).unwrap_err();
        assert!(error.is_configuration(), "{text}: {error}");
        assert_eq!(dsn.newest(), dsn, "{text}");
    }
    let path = directory.file("dsn");
    fs::remove_file(&path).unwrap();
    assert!(try_connect(&dsn).unwrap_err().is_configuration());
    fs::create_dir(&path).unwrap();
    assert!(try_connect(&dsn).unwrap_err().is_configuration());
    fs::remove_dir(&path).unwrap();

    // The old one is the good one after all.
    put(&directory, "dsn", &good("three"));
    guarded.rotate("one");
    try_connect(&dsn).unwrap();
    assert_eq!(dsn.newest(), dsn);

    // The file first, then the role.
    try_connect(&dsn).unwrap();
    guarded.rotate("three");
    try_connect(&dsn).unwrap();
    assert_ne!(dsn.newest(), dsn);
    // A role of another name is a login like any other.
    guarded
        .db
        .execute("create role heir superuser login; drop role box");
    put(
        &directory,
        "dsn",
        &good("").replace("user=box", "user=heir"),
    );
    assert!(try_connect(&dsn).is_err(), "it has no password any more");
    put(
        &directory,
        "dsn",
        &good("x").replace("user=box", "user=heir"),
    );
    try_connect(&dsn).unwrap();
    drop(guarded.server);
}
