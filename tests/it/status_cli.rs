//! The command `status`: what a daemon tells, what the database tells where none answers.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::session::{claim, session};
use crate::support::{
    Cli, Daemon, Receiver, RunningDaemon, TestDb, TestDir, signal_pid, wait_until,
};

fn url(daemon: &RunningDaemon) -> String {
    format!("http://127.0.0.1:{}", daemon.http_port())
}

fn json(args: &[&str]) -> (Value, i32) {
    let said = Cli::new(["status", "--json"])
        .args(args.iter().copied())
        .run();
    assert_eq!(said.stderr, "", "{}", said.stdout);
    (serde_json::from_str(&said.stdout).unwrap(), said.status)
}

#[test]
fn a_daemon_tells_its_work_its_workers_and_its_dead_events() {
    let db = TestDb::new();
    db.insert_events("order.created", 30);
    db.insert_events("mail.sent", 3);
    // Dead before the daemon's first statistics of the table.
    db.execute("UPDATE outbox_event SET status = 'dead' WHERE event_type = 'mail.sent'");
    let daemon = Daemon::new(&db)
        .route("order.*=log")
        .args(["--processes", "2"])
        .start();
    daemon.wait_ready();
    wait_until("everything is done", || db.count("done") == 30);
    wait_until("the survey has found the dead events", || {
        let (status, _) = json(&["--url", &url(&daemon)]);
        status["daemon"]["dead"]["total"] == 3
    });

    let without_scheme = url(&daemon).replace("http://", "");
    let said = Cli::new(["status", "--url", &without_scheme]).run();

    assert_eq!(
        (said.status, said.stderr.as_str()),
        (0, ""),
        "{}",
        said.stdout
    );
    let version = format!(
        "version {}, pid {}, running, up",
        env!("CARGO_PKG_VERSION"),
        daemon.pid()
    );
    for words in [
        "daemon         ready on ",
        &version,
        "backlog        ",
        "dead           3",
        " dead, over the last 10 s\n",
        "worker-00 ",
        "worker-01 ",
        "connected",
        "   3  mail.sent\n",
    ] {
        assert!(said.stdout.contains(words), "`{words}` in\n{}", said.stdout);
    }
    // The daemon has told everything: the database is not asked.
    let (status, code) = json(&["--url", &url(&daemon), "--dsn", "host=/nonexistent"]);
    assert_eq!((code, &status["database"]), (0, &Value::Null));
    assert_eq!(status["database_error"], Value::Null);
}

#[test]
fn the_daemon_is_found_where_its_settings_say() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    let said = Cli::new(["status", "--json"])
        .env("DISPATCHBOX_HTTP_PORT", daemon.http_port().to_string())
        .env("DISPATCHBOX_HTTP_HOST", "0.0.0.0")
        .run();

    assert_eq!(said.status, 0, "{}", said.stdout);
}

#[test]
fn where_no_daemon_answers_the_database_tells_what_it_can() {
    let db = TestDb::with_events(10);
    db.execute("UPDATE outbox_event SET status = 'dead' WHERE id > 6");
    claim(&mut session(&db), "db1/worker-00/x", 2);
    // Nobody listens on this port of the loopback range: it is bound without listening.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", taken.local_addr().unwrap().port());

    let said = Cli::new(["status", "--url", &url, "--dsn", &db.dsn()]).run();

    assert_eq!(said.status, 1, "{}", said.stdout);
    let first = format!("no daemon answers at {url}: connection refused\n");
    assert!(said.stdout.starts_with(&first), "{}", said.stdout);
    for words in [
        "backlog        4, the oldest due for ",
        "dead           4\n",
        "db1/worker-00/x",
        "   4  order.created",
    ] {
        assert!(said.stdout.contains(words), "`{words}` in\n{}", said.stdout);
    }
    let (status, code) = json(&["--url", &url, "--dsn", &db.dsn()]);
    assert_eq!((code, &status["daemon"]), (1, &Value::Null));
    assert_eq!(status["database"]["backlog"]["events"], 4);
    assert_eq!(status["database"]["workers"][0]["events"], 2);

    let (status, code) = json(&["--url", &url, "--dsn", "host=/nonexistent"]);
    assert_eq!(code, 69, "{status}");
    assert!(
        status["database_error"]
            .as_str()
            .unwrap()
            .contains("no such file"),
        "{status}"
    );
    let said = Cli::new(["status", "--url", &url]).run();
    assert!(
        said.stdout.contains("the database is not known"),
        "{}",
        said.stdout
    );
    assert_eq!(said.status, 1);
}

#[test]
fn a_daemon_with_a_token_is_asked_with_it() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let token = |name: &str, text: &str| {
        let path = directory.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let right = token("right", "0123456789abcdef0123456789abcdef\n");
    let wrong = token("wrong", "another-token-of-enough-bytes\n");
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--api-token-file", &right])
        .start();
    daemon.wait_ready();
    let url = url(&daemon);

    assert_eq!(json(&["--url", &url, "--api-token-file", &right]).1, 0);
    for (args, why) in [
        (&[][..], "wants a token: give --api-token-file"),
        (
            &["--api-token-file", &wrong],
            "wants another token: that of --api-token-file is wrong",
        ),
    ] {
        Cli::new(["status", "--url", &url])
            .args(args.iter().copied())
            .stdout(format!(
                "the daemon at {url} {why}\nthe database is not known: --dsn shows what it tells\n"
            ))
            .status(1)
            .check();
        let args = [&["--url", &url], args].concat();
        assert_eq!(json(&args).0["daemon_error"], format!("it {why}"));
    }
}

#[test]
fn a_database_without_the_schema_is_said_to_need_it() {
    let db = TestDb::new();
    db.execute("DROP FUNCTION outbox_leases_1 CASCADE");
    Cli::new(["status", "--url=http://127.0.0.1:1", "--dsn", &db.dsn()])
        .stdout(
            "no daemon answers at http://127.0.0.1:1: connection refused\n\
             the database tells nothing: could not list the claimed events: function outbox_leases_1() does not exist\n\
             hint: `dispatchbox migrate` brings what is missing\n",
        )
        .status(1)
        .check();
}

#[test]
fn a_port_without_tls_is_said_to_have_none() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    let url = url(&daemon).replace("http://", "https://");
    Cli::new(["status", "--url", &url])
        .stdout(format!(
            "no daemon answers at {url}: it speaks no TLS: use http://\n\
             the database is not known: --dsn shows what it tells\n"
        ))
        .status(1)
        .check();
}

#[test]
fn what_is_no_daemon_is_said_to_be_none() {
    let receiver = Receiver::start();
    let url = receiver.url().replace("/hook", "");
    let (status, code) = json(&["--url", &url]);
    assert_eq!(code, 1);
    let why = status["daemon_error"].as_str().unwrap();
    assert!(why.contains("no daemon of this version"), "{why}");
}

#[test]
fn status_on_a_terminal_is_drawn_again_until_it_is_interrupted() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    let (shown, status) =
        Cli::new(["status", "--url", &url(&daemon)]).on_terminal_typing(70, "worker-00", "\u{3}");

    assert!(shown.contains("\u{1b}[H"), "{shown:?}");
    assert!(shown.contains("worker-00"), "{shown:?}");
    assert_eq!(status, 0, "{shown:?}");
    for line in shown
        .replace("\u{1b}[H", "")
        .replace("\u{1b}[K", "")
        .replace("\u{1b}[J", "")
        .lines()
    {
        assert!(line.chars().count() <= 70, "{line:?}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
    let (shown, _) = Cli::new(["status", "--once", "--url", &url(&daemon)]).on_terminal(70);
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn a_watch_goes_on_through_a_restart_and_ends_with_its_reader() {
    let db = TestDb::new();
    let mut daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchbox"))
        .args(["status", "--watch", "--json", "--url", &url(&daemon)])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };

    assert!(next()["daemon"].is_object());
    daemon.terminate();
    // A look may have been under way.
    let mut look = next();
    if look["daemon"].is_object() {
        look = next();
    }
    assert_eq!(look["daemon_error"], "connection refused");

    signal_pid(child.id(), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_status_that_cannot_be_asked_for_is_a_usage_error() {
    let refused = |args: &[&str], error: &str| {
        Cli::new(["status"])
            .args(args.iter().copied())
            .stderr(format!(
                "error: {error}\nhint: `dispatchbox help status` lists its options\n"
            ))
            .status(2)
            .check();
    };
    for url in ["local host", "ftp://h", "http://", "http://h?x=1", ""] {
        refused(
            &["--url", url],
            &format!(
                "--url must be the address of a daemon, such as `http://127.0.0.1:8080`, not `{url}`"
            ),
        );
    }
    refused(
        &["--watch", "--once"],
        "--watch and --once exclude each other",
    );
    Cli::new(["status"])
        .env("DISPATCHBOX_HTTP_PORT", "0")
        .stderr(
            "error: DISPATCHBOX_HTTP_PORT is 0, any free port: give --url with the one that the daemon has logged\n\
             hint: `dispatchbox help status` lists its options\n",
        )
        .status(2)
        .check();
}
