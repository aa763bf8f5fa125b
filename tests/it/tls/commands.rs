//! A managed database takes TLS and passwords alone: each command reaches it by each way to say
//! where it is, and as README and unit show it.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use dispatchbox::dev::cluster::Cluster;

use super::{Authority, Files, address, put, server_of_db1};
use crate::support::cli::Said;
use crate::support::{Cli, Daemon, TestDb, TestDir, wait_until};

const PASSWORD: &str = "hunter2";

/// What is asked of no database of somebody's own: a throwaway server is made for it.
const OF_NO_DATABASE: [&str; 4] = ["run", "demo", "bench", "chaos"];

/// A server that lets nobody in without TLS and a password, its authority, and the files of a
/// client: the root files `root.crt` and `other.crt`.
fn managed(number: u8) -> (Cluster, Authority, Files) {
    let (server, authority) = server_of_db1(number);
    let rules = "local all postgres trust\nhostssl all all all scram-sha-256\n";
    put(&server.directory().join("data/pg_hba.conf"), rules);
    let mut client = server.client("postgres").unwrap();
    client.batch_execute("select pg_reload_conf()").unwrap();
    let plain = format!("host={} user=locked password={PASSWORD}", address(number));
    wait_until("nobody gets in without TLS", || {
        let config: postgres::Config = format!("{plain} dbname=postgres").parse().unwrap();
        config.connect(postgres::NoTls).is_err()
    });
    let files = Files {
        directory: TestDir::new(),
    };
    files.put("root.crt", &authority.pem(), 0o644);
    files.put("other.crt", &super::authority("other").pem(), 0o644);
    (server, authority, files)
}

/// One way to say where the database is.
struct Way {
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Way {
    fn new(args: &[&str], env: &[(&str, &str)]) -> Way {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Way {
            args: args.iter().map(|&word| word.to_owned()).collect(),
            env: env.iter().map(owned).collect(),
        }
    }

    fn cli(&self, command: &[&str]) -> Said {
        self.env
            .iter()
            .fold(
                Cli::new(command.iter().copied()).args(&self.args),
                |cli, (name, value)| cli.env(name, value),
            )
            .run()
    }
}

/// The ways to the database: by file, by password in libpq's places, by variables alone, by
/// service, by configuration file; with the system's authorities, which `SSL_CERT_FILE` stands for,
/// or with a root file.
fn ways(db: &TestDb, number: u8, files: &Files) -> Vec<Way> {
    let root = files.directory.file("root.crt");
    let (address, name) = (address(number).to_string(), db.name());
    let place = format!("host=db1 hostaddr={address} dbname={name} user=locked");
    let system = format!("{place} sslmode=verify-full sslrootcert=system");
    let dsn_file = files.put("dsn", &format!("{system} password={PASSWORD}\n"), 0o600);
    let passfile = files.put("pass", &format!("db1:5432:*:locked:{PASSWORD}\n"), 0o600);
    let home = files.directory.path().display().to_string();
    files.put(".pgpass", &format!("*:*:*:locked:{PASSWORD}\n"), 0o600);
    let section = format!("[shop]\n{}\n", system.replace(' ', "\n"));
    let services = files.put("services", &section, 0o644);
    let config = files.put(
        "dispatchbox.toml",
        &format!("dsn_file = \"{dsn_file}\"\n\n[[route]]\nevent_type = \"*\"\nhandler = \"log\"\n"),
        0o644,
    );
    let trusted = ("SSL_CERT_FILE", root.as_str());
    let url = format!(
        "postgresql://locked:{PASSWORD}@db1/{name}?hostaddr={address}&sslmode=verify-full&sslrootcert=system"
    );
    vec![
        Way::new(&["--dsn-file", &dsn_file], &[trusted]),
        Way::new(
            &["--dsn", &format!("{system} passfile={passfile}")],
            &[trusted],
        ),
        Way::new(&["--dsn", &system], &[trusted, ("PGPASSFILE", &passfile)]),
        Way::new(&["--dsn", &system], &[trusted, ("HOME", &home)]),
        Way::new(
            &["--dsn", "service=shop"],
            &[
                trusted,
                ("PGSERVICEFILE", &services),
                ("PGPASSWORD", PASSWORD),
            ],
        ),
        Way::new(&["--config", &config], &[trusted]),
        Way::new(&[], &[trusted, ("DATABASE_URL", &url)]),
        Way::new(
            &[],
            &[
                ("PGHOST", "db1"),
                ("PGHOSTADDR", &address),
                ("PGDATABASE", name),
                ("PGUSER", "locked"),
                ("PGPASSWORD", PASSWORD),
                ("PGSSLMODE", "verify-full"),
                ("PGSSLROOTCERT", &root),
            ],
        ),
    ]
}

/// Each command that works in a database, for three dead events, and how it ends: its exit code,
/// and a part of what it says.
fn commands(ids: &[i64], nobody: &str) -> Vec<(Vec<String>, i32, &'static str)> {
    let [first, second, third] = [ids[0], ids[1], ids[2]].map(|id| id.to_string());
    [
        (&["migrate"][..], 0, ""),
        (&["migrate", "--check"], 0, ""),
        (&["config", "check"], 0, " as locked "),
        // Nobody answers at the daemon's address, so the database is asked.
        (
            &["status", "--url", nobody, "--json"],
            1,
            "\"database_error\":null",
        ),
        // The server of the suite has fsync and autovacuum off, which are errors.
        (&["doctor"], 2, "TLSv1."),
        (&["explain", &first], 0, "dead"),
        (
            &[
                "publish",
                "--event-type",
                "order.created",
                "--aggregate-type",
                "order",
                "--aggregate-id",
                "1",
            ],
            0,
            "",
        ),
        (&["dead-events", "list"], 0, "order.created"),
        (&["dead-events", "show", &first], 0, "order.created"),
        (&["dead-events", "stats"], 0, "order.created"),
        (&["dead-events", "export"], 0, "order.created"),
        (&["dead-events", "retry", &second], 0, ""),
        (&["dead-events", "retry-batch", "--all", "--dry-run"], 0, ""),
        (&["dead-events", "discard", &third, "--yes"], 0, ""),
    ]
    .into_iter()
    .map(|(words, status, part)| {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        (words, status, part)
    })
    .collect()
}

fn dead_events(db: &TestDb) -> Vec<i64> {
    let ids = db.insert_events("order.created", 3);
    let dead = "update outbox_event set status = 'dead', attempts = 5, last_error = 'no' where id = any($1)";
    db.client().execute(dead, &[&ids]).unwrap();
    ids
}

/// An address of the loopback range that is bound, and at which nobody listens.
fn nobody() -> (UdpSocket, String) {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", taken.local_addr().unwrap().port());
    (taken, url)
}

/// Goal: each command takes each way to the database, and shows the password to nobody.
#[test]
fn each_command_reaches_a_database_that_takes_tls_alone() {
    let (server, _, files) = managed(22);
    let db = TestDb::on(&server);
    let (_taken, nobody) = nobody();

    for way in ways(&db, 22, &files) {
        let ids = dead_events(&db);
        for (words, status, part) in commands(&ids, &nobody) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let said = way.cli(&words);

            let shown = format!("{words:?} {:?}\n{}{}", way.args, said.stdout, said.stderr);
            assert_eq!(said.status, status, "{shown}");
            assert!(said.stdout.contains(part), "{shown}");
            assert!(!said.stdout.contains(PASSWORD), "{shown}");
            assert!(!said.stderr.contains(PASSWORD), "{shown}");
        }
        let daemon = way.env.iter().fold(
            Daemon::new(&db).without_dsn().args(&way.args),
            |daemon, (name, value)| daemon.env(name, value),
        );
        let mut daemon = daemon.start();
        daemon.wait_ready();
        wait_until("what is due is done", || {
            db.count("pending") == 0 && db.leases() == 0
        });
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert!(!daemon.log().contains(PASSWORD), "{}", daemon.log());
    }
}

/// Goal: each command checks who the server is. Method: its authority is not among those that the
/// system trusts.
#[test]
fn no_command_takes_a_server_that_it_cannot_verify() {
    let (server, _, files) = managed(23);
    let db = TestDb::on(&server);
    let (_taken, nobody) = nobody();
    let other = files.directory.file("other.crt");
    let mut way = ways(&db, 23, &files).swap_remove(0);
    way.env = vec![("SSL_CERT_FILE".to_owned(), other)];
    let ids = dead_events(&db);

    for (words, _, _) in commands(&ids, &nobody) {
        if words[0] == "config" {
            continue;
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = way.cli(&words);

        let shown = format!("{words:?}\n{}{}", said.stdout, said.stderr);
        // For the doctor it is a finding.
        let status = if words == ["doctor"] { 2 } else { 69 };
        assert_eq!(said.status, status, "{shown}");
        let all = said.stdout + &said.stderr;
        assert!(all.contains("is signed by no authority"), "{shown}");
    }
    assert_eq!(db.count("dead"), 3);
}

/// Goal: a command that comes later is tested here, too.
#[test]
fn every_command_is_among_them() {
    let help = Cli::new(["--help"]).run().stdout;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let is_command = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let told: BTreeSet<String> = list
        .lines()
        .filter(is_command)
        .map(|line| line.trim().split("  ").next().unwrap().to_owned())
        .collect();

    let mut tested: BTreeSet<String> = OF_NO_DATABASE.map(str::to_owned).into();
    for (words, _, _) in commands(&[1, 2, 3], "") {
        let is_group = matches!(words[0].as_str(), "dead-events" | "config");
        tested.insert(words[..=usize::from(is_group)].join(" "));
    }

    assert!(told.len() > 10, "{told:?}");
    assert_eq!(told, tested);
}

/// The lines that the README shows for a managed database, for this one.
fn lines_of_readme(directory: &str, number: u8) -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (before, after) = readme.split_once("sslrootcert=system'").unwrap();
    let (_, begin) = before.rsplit_once("```sh\n").unwrap();
    let (end, _) = after.split_once("```").unwrap();
    let host = format!("host=db1 hostaddr={} ", address(number));
    format!("{begin}sslrootcert=system'{end}")
        .replace("/etc/dispatchbox", directory)
        .replace("host=db.example.com ", &host)
        .replace("password=…", &format!("password={PASSWORD}"))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Goal: what README and unit show for a managed database works as it stands there. Method: only
/// the directory, the host's address and the password are other ones.
#[test]
fn what_readme_and_unit_show_of_a_managed_database_works() {
    let (server, _, files) = managed(24);
    let root = files.directory.file("root.crt");
    let mut postgres = server.client("postgres").unwrap();
    let role = format!("create role dispatchbox login password '{PASSWORD}'");
    postgres.batch_execute(&role).unwrap();
    let database = "create database shop owner dispatchbox";
    postgres.batch_execute(database).unwrap();
    let mut shop = server.client("shop").unwrap();
    let directory = files.directory.path().join("etc").display().to_string();
    let lines = lines_of_readme(&directory, 24);
    let program = Path::new(env!("CARGO_BIN_EXE_dispatchbox"));
    let path = std::env::var("PATH").unwrap();

    let (run, first) = lines.split_last().unwrap();
    assert_eq!(first.len(), 3, "{lines:?}");
    let output = Command::new("sh")
        .args(["-ec", &first.join("\n")])
        .env(
            "PATH",
            format!("{}:{path}", program.parent().unwrap().display()),
        )
        .env("SSL_CERT_FILE", &root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let dsn_file = format!("{directory}/dsn");
    let mode = fs::metadata(&dsn_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (run, comment) = run.split_once('#').unwrap();
    let words: Vec<&str> = run.split_whitespace().collect();
    assert_eq!(words, ["dispatchbox", "run", "--dsn-file", &dsn_file]);
    deliver(&mut shop, &dsn_file, &root);

    // systemd copies the file into a directory of the service's own.
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/dispatchbox.service");
    let unit = fs::read_to_string(unit).unwrap();
    let credential = comment.trim().strip_prefix("in the unit: ").unwrap();
    let credential = credential.replace(&directory, "/etc/dispatchbox");
    assert!(unit.lines().any(|line| line == credential), "{credential}");
    let exec = "ExecStart=/usr/local/bin/dispatchbox run --dsn-file ${CREDENTIALS_DIRECTORY}/dsn";
    assert!(unit.lines().any(|line| line == exec), "{exec}");
    let text = fs::read_to_string(&dsn_file).unwrap();
    deliver(&mut shop, &files.put("dsn", &text, 0o400), &root);
}

/// Starts a daemon with its DSN in this file, and sees one event delivered.
fn deliver(shop: &mut postgres::Client, dsn_file: &str, root: &str) {
    let insert = "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload)
                  values ('order', '1001', 'order.created', '{}')";
    shop.batch_execute(insert).unwrap();
    let mut daemon = Daemon::at(dsn_file).env("SSL_CERT_FILE", root).start();
    let is_done = "select count(*) = 0 from outbox_event where status <> 'done'";
    wait_until("the event is done", || {
        shop.query_one(is_done, &[]).unwrap().get(0)
    });
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
}
