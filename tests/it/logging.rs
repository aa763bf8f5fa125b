//! The log of the real program: its form, and what never stands in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatchbox::dev::cluster::Cluster;

use crate::support::{Cli, Daemon, RunningDaemon, TestDb, TestDir, cluster, wait_until};

/// A secret that no output may contain.
const SECRET: &str = "hunter2";

/// Says whether a line begins as `2026-11-23T23:16:01.123Z INFO  name target  sentence` does.
fn is_log_line(line: &str) -> bool {
    let Some((time, rest)) = line.split_once(' ') else {
        return false;
    };
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    shape == "9999-99-99T99:99:99.999Z" && is_after_time(rest)
}

fn is_after_time(rest: &str) -> bool {
    let levels = ["ERROR ", "WARN  ", "INFO  ", "DEBUG "];
    let Some(rest) = levels.iter().find_map(|level| rest.strip_prefix(level)) else {
        return false;
    };
    let mut words = rest.splitn(4, ' ');
    let process = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    (process == "supervisor" || process.starts_with("worker-"))
        && target
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && words.next() == Some("")
}

/// A daemon at DEBUG that has logged one event whose texts try everything, and its log.
fn log_of_an_evil_event(env: &[(&str, &str)]) -> String {
    let db = TestDb::new();
    db.execute(&format!(
        "INSERT INTO outbox_event (aggregate_type, aggregate_id, event_type, payload) VALUES \
         (E'a\\n<3>ERROR forged', E'\\x1b[31m\\u2028\\u202e\\r', 'order.created', '{{\"card\": \"{SECRET}\"}}')"
    ));
    let mut daemon = Daemon::new(&db).args(["--route", "*=log", "--log-level", "debug"]);
    for (name, value) in env {
        daemon = daemon.env(*name, *value);
    }
    let mut daemon = daemon.start();
    wait_until("the event is done", || db.count("done") == 1);
    daemon.terminate();
    daemon.log()
}

#[test]
fn every_line_has_its_form_and_no_event_can_forge_one() {
    let log = log_of_an_evil_event(&[]);

    assert!(log.contains("event 1 order.created"), "{log}");
    for line in log.lines() {
        assert!(is_log_line(line), "{line:?}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    assert!(!log.contains(SECRET), "{log}");
    assert!(
        !log.contains('\u{2028}') && !log.contains('\u{202e}'),
        "{log}"
    );
}

#[test]
fn under_the_journal_every_line_begins_with_its_priority() {
    let log = log_of_an_evil_event(&[("JOURNAL_STREAM", "8:1")]);

    for line in log.lines() {
        let rest = ["<3>", "<4>", "<6>", "<7>"]
            .iter()
            .find_map(|priority| line.strip_prefix(priority));
        assert!(rest.is_some_and(is_after_time), "{line:?}");
    }
}

/// A server that asks every role but its superuser for a password.
fn server_with_passwords() -> Cluster {
    let cluster = cluster::private();
    let rules = "local all postgres trust\nlocal all all scram-sha-256\n";
    fs::write(cluster.directory().join("data/pg_hba.conf"), rules).unwrap();
    let mut client = cluster.client("postgres").unwrap();
    client
        .batch_execute("CREATE ROLE someone LOGIN PASSWORD 'right'; SELECT pg_reload_conf()")
        .unwrap();
    let place = cluster.directory().display();
    let refused = format!("host={place} user=someone dbname=postgres password=wrong");
    wait_until("the rules are in force", || {
        postgres::Client::connect(&refused, postgres::NoTls).is_err()
    });
    cluster
}

/// Arguments and environment of a call.
type Call<'a> = (Vec<String>, Vec<(&'a str, &'a str)>);

/// Goal: a wrong password ends the start, and is shown nowhere. Method: every way to give one, at
/// DEBUG.
#[test]
fn a_wrong_password_ends_the_start_and_is_never_shown() {
    let cluster = server_with_passwords();
    let place = cluster.directory().display();
    let plain = format!("host={place} user=someone dbname=postgres");
    let dsn = format!("{plain} password={SECRET}");
    let url = format!("postgres://someone:{SECRET}@/postgres?host={place}");
    let directory = TestDir::new();
    let write = |name: &str, text: &str| {
        let path = directory.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let dsn_file = write("dsn", &url);
    let config = write(
        "c.toml",
        &format!("dsn = '{dsn}'\n[[route]]\nevent_type='*'\nhandler='log'\n"),
    );
    let passfile = write("pass", &format!("*:*:*:*:{SECRET}\n"));
    let services = write(
        "services",
        &format!("[s]\nhost={place}\nuser=someone\ndbname=postgres\npassword={SECRET}\n"),
    );

    let by_flag = |dsn: &str| vec!["--dsn".to_owned(), dsn.to_owned()];
    let calls: [Call; 9] = [
        (by_flag(&dsn), vec![]),
        (by_flag(&url), vec![]),
        (vec!["--dsn-file".to_owned(), dsn_file], vec![]),
        (vec!["--config".to_owned(), config], vec![]),
        (vec![], vec![("DISPATCHBOX_DSN", &dsn)]),
        (vec![], vec![("DATABASE_URL", &url)]),
        (by_flag(&plain), vec![("PGPASSWORD", SECRET)]),
        (by_flag(&plain), vec![("PGPASSFILE", &passfile)]),
        (
            vec![],
            vec![("PGSERVICEFILE", &services), ("PGSERVICE", "s")],
        ),
    ];
    for (args, env) in calls {
        for command in ["run", "migrate"] {
            let mut call = Cli::new(
                [command, "--log-level=DEBUG"]
                    .into_iter()
                    .chain(args.iter().map(String::as_str)),
            );
            if command == "run" {
                call = call.args(["--disable-http"]);
            }
            let said = env
                .iter()
                .fold(call, |call, (name, value)| call.env(name, value))
                .run();

            assert_eq!(
                said.status, 78,
                "{command} {args:?} {env:?}: {}",
                said.stderr
            );
            assert!(
                said.stderr.contains("password authentication failed"),
                "{}",
                said.stderr
            );
            assert!(!said.stderr.contains(SECRET), "{}", said.stderr);
            assert!(!said.stdout.contains(SECRET), "{}", said.stdout);
        }
    }
}

#[test]
fn the_right_password_opens_the_database_from_every_place() {
    let cluster = server_with_passwords();
    let place = cluster.directory().display().to_string();
    let plain = format!("host={place} user=someone dbname=postgres");
    let directory = TestDir::new();
    let passfile = directory.file(".pgpass");
    fs::write(&passfile, format!("{place}:5432:postgres:someone:right\n")).unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    let home = directory.path().display().to_string();

    for env in [
        ("HOME", home.as_str()),
        ("PGPASSFILE", &passfile),
        ("PGPASSWORD", "right"),
    ] {
        let said = Cli::new(["migrate", "--check", "--dsn", &plain])
            .env(env.0, env.1)
            .run();
        assert!(
            said.stdout.starts_with("missing: "),
            "{env:?} {}",
            said.stderr
        );
    }
    let said = Cli::new(["migrate", "--check", "--dsn", &plain]).run();
    assert_eq!(said.status, 78);
    assert!(said.stderr.contains("password"), "{}", said.stderr);
}

/// A reader that has gone away, or a full disk, ends no daemon.
/// Goal: a worker gets the password by its pipe alone, wherever the operator has put it.
#[test]
fn the_password_stands_in_no_argument_and_no_variable_of_a_worker() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let file = directory.file("dsn");
    let dsn = format!("{} password={SECRET}", db.dsn());
    fs::write(&file, &dsn).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    let daemon = Daemon::new(&db)
        .dsn_file(&file)
        .route("*=log")
        .env("PGPASSWORD", SECRET)
        .env("DATABASE_URL", format!("postgres://u:{SECRET}@h/d"))
        .env("DISPATCHBOX_DSN", dsn)
        .start();
    let worker = daemon.wait_workers(1)[0];
    daemon.wait_ready();

    let has_it = |pid: u32, what: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap();
        assert!(!bytes.is_empty(), "{pid} {what}");
        String::from_utf8_lossy(&bytes).contains(SECRET)
    };
    assert!(has_it(daemon.pid(), "environ"), "nothing would be shown");
    assert!(!has_it(worker, "environ") && !has_it(worker, "cmdline"));
}

#[test]
fn a_log_that_cannot_be_written_harms_nothing() {
    let full = || {
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(["run", "--disable-http", "--dsn"])
        .arg(
            TestDb::new()
                .dsn()
                .replace("user=postgres", "user=nobody_here"),
        )
        .env_clear()
        .stdout(full())
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(78));
}

/// Starts a daemon whose log is not read, and waits until it has delivered 10,000 events: each has
/// a line, more than the pipe and the queue hold.
fn daemon_with_unread_log(db: &TestDb) -> RunningDaemon {
    let daemon = Daemon::new(db).route("*=log").start();
    daemon.wait_ready();
    daemon.pause_log();
    db.insert_events("order.created", 10_000);
    wait_until("all are delivered", || db.count("done") == 10_000);
    daemon
}

/// Ends the daemon, and returns its log once that is read to the end.
fn log_to_its_end(daemon: &mut RunningDaemon) -> String {
    assert_eq!(daemon.terminate(), 0);
    daemon.wait_log("drained in");
    daemon.log()
}

/// Goal: a log that nothing reads stops neither deliveries nor the answers of the port nor a drain,
/// and what it lacks is counted.
#[test]
fn a_log_that_nothing_reads_stops_neither_deliveries_nor_a_drain() {
    let db = TestDb::new();
    let mut daemon = daemon_with_unread_log(&db);

    assert_eq!(daemon.get("/health").0, 200);
    wait_until("the metric counts what was dropped", || {
        let n_dropped = daemon.metric("dispatchbox_log_lines_dropped_total", &[]);
        n_dropped.is_some_and(|n_dropped| n_dropped > 1000.0)
    });

    assert_eq!(daemon.terminate(), 0);
}

/// Goal: a log that is read again tells how many lines are missing, and where they are, and lacks
/// no line from then on.
#[test]
fn a_log_that_is_read_again_tells_how_many_lines_it_lacks() {
    let db = TestDb::new();
    let mut daemon = daemon_with_unread_log(&db);

    daemon.resume_log();
    daemon.wait_log("lines of the log were dropped");
    db.insert_events("order.later", 1);
    wait_until("the last one is delivered", || db.count("done") == 10_001);

    let log = log_to_its_end(&mut daemon);

    let n_logged = log.matches(" order.created ").count();
    let told = log
        .lines()
        .find_map(|line| {
            line.strip_suffix(" lines of the log were dropped: nothing read them in time")
        })
        .unwrap();
    let n_dropped: usize = told.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(n_logged + n_dropped, 10_000, "{told}");
    assert!(
        log.contains("order.later"),
        "a line after the gap is missing"
    );
    for line in log.lines() {
        assert!(is_log_line(line), "{line:?}");
    }
}

/// Goal: the last words of a process that ends by itself come out, in their order, however soon it
/// ends.
#[test]
fn what_is_said_at_the_end_is_written() {
    let db = TestDb::new();
    for _ in 0..5 {
        let mut daemon = Daemon::new(&db).route("*=log").start();
        wait_until("a worker has started", || {
            daemon.log().contains("-pid") && daemon.log().contains(" started\n")
        });

        let log = log_to_its_end(&mut daemon);

        let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} in {log}"));
        assert!(at("SIGTERM received") < at("drained 0 events"), "{log}");
        assert!(at("drained 0 events") < at("drained in"), "{log}");
    }
}

#[test]
fn each_worker_names_itself_at_its_start() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db)
        .args(["--processes", "2"])
        .route("*=log")
        .start();
    let workers = daemon.wait_workers(2);

    for pid in workers {
        wait_until("the worker has named itself", || {
            let log = daemon.log();
            log.lines().any(|line| {
                line.contains(" INFO  worker-0")
                    && line.ends_with(" started")
                    && line.contains(&format!("-pid{pid} "))
            })
        });
    }
}
