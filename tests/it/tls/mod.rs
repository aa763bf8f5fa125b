//! TLS to the database: each description connects or fails as it does with psql, and what is asked
//! for is never quietly left out.

/// Each command's way to a database that takes TLS alone, and what README and unit say of it.
mod commands;
/// TLS that begins at once.
mod direct;
/// By which methods the server may ask for the login.
mod require_auth;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::thread;
use std::time::Duration;

use dispatchbox::dev::cluster::{Cluster, ServerSettings, StopMode};
use dispatchbox::store::dsn::{Dsn, Env};
use dispatchbox::store::{Session, Timeouts, connect};

use crate::support::certificate::{Authority, Wanted, YEARS, authority};
use crate::support::psql::libpq_version;
use crate::support::session::TIMEOUTS;
use crate::support::{Cli, Daemon, TestDb, TestDir, cluster, psql, wait_until};

/// An address that no other process and no other server of this module takes.
fn address(server: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 200 + server, high, low)
}

/// The rules of access: by user, with TLS alone, without alone, by certificate, by password.
const RULES: &str = "local all all trust
hostssl all tlsonly all trust
hostnossl all plainonly all trust
hostssl all certified all cert
host all locked all scram-sha-256
host all cleartext all password
host all hashed all md5
host all all all trust
";

/// A certificate for `db1`.
const OF_DB1: Wanted<'_> = Wanted {
    common: "server",
    dns: &["db1"],
    addresses: &[],
    years: YEARS,
};

/// A server at an address of its own, whose certificate is for `db1` and by this authority.
fn server_of_db1(number: u8) -> (Cluster, Authority) {
    let authority = authority("ours");
    let server = server(number, Some(&OF_DB1.signed_by(&authority)), &authority);
    (server, authority)
}

/// A server at an address of its own, with a certificate or without TLS.
fn server(number: u8, identity: Option<&(String, String)>, clients: &Authority) -> Cluster {
    let settings =
        ServerSettings::volatile().with("listen_addresses", &address(number).to_string());
    let server = cluster::private_with(&settings);
    let data = server.directory().join("data");
    fs::write(data.join("pg_hba.conf"), RULES).unwrap();
    let mut client = server.client("postgres").unwrap();
    for user in [
        "tlsonly",
        "plainonly",
        "certified",
        "locked",
        "cleartext",
        "hashed",
    ] {
        let kind = if user == "hashed" {
            "md5"
        } else {
            "scram-sha-256"
        };
        let sql = format!(
            "set password_encryption = '{kind}'; create role {user} superuser login password 'hunter2'"
        );
        client.batch_execute(&sql).unwrap();
    }
    if let Some((certificate, key)) = identity {
        for (name, text) in [
            ("server.crt", certificate.as_str()),
            ("server.key", key.as_str()),
            ("clients.crt", &clients.pem()),
        ] {
            put(&data.join(name), text);
        }
        for sql in ["ssl = on", "ssl_ca_file = 'clients.crt'"] {
            client
                .batch_execute(&format!("alter system set {sql}"))
                .unwrap();
        }
    }
    client.batch_execute("select pg_reload_conf()").unwrap();
    let is_on = if identity.is_some() { "on" } else { "off" };
    wait_until("the server has read its files", || {
        let mut client = server.client("postgres").unwrap();
        client.simple_query("show ssl").is_ok_and(|rows| {
            rows.iter().any(|row| matches!(row, postgres::SimpleQueryMessage::Row(row) if row.get(0) == Some(is_on)))
        })
    });
    server
}

/// Writes a file of a server, which belongs to the server's user and to nobody else.
fn put(path: &std::path::Path, text: &str) {
    let owner = fs::metadata(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

const WHO: &str = "select current_user || '|' || coalesce((select ssl::text || '|' || coalesce(version, '-') from pg_stat_ssl where pid = pg_backend_pid()), '-')";

fn env_of(variables: &[(&str, &str)]) -> Env {
    variables
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Opens a session as the program does.
fn open(text: &str, env: &Env) -> Result<Session, String> {
    let dsn = Dsn::resolve(Some(text), env, &mut Vec::new()).map_err(|error| error.to_string())?;
    connect(&dsn, &TIMEOUTS, "tls test").map_err(|error| error.to_string())
}

/// What the server says about our connection, or why there is none.
fn ours(text: &str, env: &Env, watchers: &mut [postgres::Client]) -> Result<String, String> {
    let _session = open(text, env)?;
    let about = "select usename || '|' || ssl::text || '|' || coalesce(version, '-')
                   from pg_stat_activity join pg_stat_ssl using (pid) where application_name = 'tls test'";
    let said = watchers
        .iter_mut()
        .find_map(|watcher| watcher.query_opt(about, &[]).unwrap())
        .expect("one of the servers has the connection");
    Ok(said.get(0))
}

/// The same for psql.
fn theirs(text: &str, env: &Env) -> Result<String, String> {
    psql::ask(WHO, text, env)
}

/// The files of a client.
struct Files {
    directory: TestDir,
}

impl Files {
    fn put(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.directory.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

/// Descriptions with their environments.
struct Cases {
    home: String,
    list: Vec<(String, Env)>,
}

impl Cases {
    fn add(&mut self, text: String, variables: &[(&str, &str)]) {
        let mut env = env_of(variables);
        env.entry("HOME".to_owned())
            .or_insert_with(|| self.home.clone());
        self.list.push((text, env));
    }

    /// Every mode with root files, names and certificates of all kinds.
    fn add_modes(&mut self, roots: &[String; 4], own_root: &str, socket: &str) {
        let [root, none, other_root, both_roots] = roots;
        for mode in [
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ] {
            for (number, host, root) in [
                (0, "db1", root.as_str()),
                (0, "db1", none),
                (0, "db1", other_root),
                (0, "db1", both_roots),
                (0, "db2", root),
                (0, "a.shop.example", root),
                (0, "a.b.shop.example", root),
                (1, "db1", root),
                (2, "db1", root),
                (3, "db1", root),
                (4, "db1", root),
                (5, "db1", own_root),
                (5, "db2", own_root),
                (6, "db1", root),
            ] {
                let words = format!("host={host} sslmode={mode} sslrootcert={root}");
                self.add(at(number, &words), &[]);
            }
            for user in ["tlsonly", "plainonly"] {
                let words = format!("user={user} sslmode={mode} sslrootcert={root}");
                self.add(format!("host={} dbname=postgres {words}", address(0)), &[]);
            }
            let words = format!("user=postgres dbname=postgres sslmode={mode}");
            self.add(format!("host={socket} {words} sslrootcert={root}"), &[]);
        }
    }

    /// No word at all, and words in the environment.
    fn add_variables(&mut self, root: &str, none: &str, empty: &str) {
        let full = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root)];
        self.add(at(0, ""), &[]);
        self.add(at(0, "host=db1"), &full);
        self.add(at(0, "host=db2"), &full);
        self.add(at(0, "host=db2 sslmode=require"), &full);
        self.add(at(0, "sslmode=verify-full"), &[("PGSSLROOTCERT", root)]);
        for (number, file) in [(0, empty), (0, none), (6, none)] {
            let variables = [("PGREQUIRESSL", "1"), ("PGSSLROOTCERT", file)];
            self.add(at(number, "host=db1"), &variables);
        }
        for words in [
            "ssl_min_protocol_version=TLSv1.3",
            "ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.3",
            "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version=1.2",
            "sslsni=0",
        ] {
            self.add(at(0, &format!("host=db1 sslmode=require {words}")), &[]);
        }
    }

    fn add_passwords(&mut self) {
        for binding in ["disable", "prefer", "require"] {
            for mode in ["disable", "prefer", "require"] {
                for password in ["hunter2", "hunter3"] {
                    let words = format!("sslmode={mode} channel_binding={binding}");
                    let text = format!("host={} user=locked password={password}", address(0));
                    self.add(format!("{text} dbname=postgres {words}"), &[]);
                }
            }
        }
    }

    /// The client's certificate with its key; the pairs are (certificate, key).
    fn add_certificates(&mut self, pairs: &[(&String, &String)]) {
        for (cert, key) in pairs {
            for mode in ["require", "prefer"] {
                let words = format!("sslmode={mode} sslcert={cert} sslkey={key}");
                let text = format!("host={} user=certified dbname=postgres", address(0));
                self.add(format!("{text} {words}"), &[]);
            }
        }
    }

    /// Words of PostgreSQL 16, which older libraries do not know.
    fn add_certificate_modes(&mut self, cert: &str, key: &str) {
        for user in ["certified", "postgres"] {
            for cert_mode in ["disable", "allow", "require"] {
                for files in [format!("sslcert={cert} sslkey={key}"), String::new()] {
                    for mode in ["disable", "prefer", "require"] {
                        let words = format!("sslmode={mode} sslcertmode={cert_mode} {files}");
                        let text = format!("host={} user={user} dbname=postgres", address(0));
                        self.add(format!("{text} {words}"), &[]);
                    }
                }
            }
        }
        let words = "host=db1 sslmode=require sslcertmode=require";
        self.add(at(6, words), &[]);
        self.add(
            at(6, &words.replace("sslmode=require", "sslmode=prefer")),
            &[],
        );
    }

    /// The files of ~/.postgresql.
    fn add_usual_files(&mut self, home: &str) {
        for (host, mode) in [
            ("db1", "verify-full"),
            ("db2", "verify-full"),
            ("db2", "require"),
        ] {
            for user in ["certified", "postgres"] {
                let words = format!("host={host} user={user} dbname=postgres sslmode={mode}");
                self.add(
                    format!("hostaddr={} {words}", address(0)),
                    &[("HOME", home)],
                );
            }
        }
    }
}

fn at(number: u8, words: &str) -> String {
    format!(
        "hostaddr={} user=postgres dbname=postgres {words}",
        address(number)
    )
}

/// Servers with certificates of each kind, the last one without TLS, and the certificate of the one
/// that signed its own.
fn servers(authority: &Authority) -> ([Cluster; 7], String) {
    let addresses: [Ipv4Addr; 7] = std::array::from_fn(|at| address(u8::try_from(at).unwrap()));
    let wanted = |at: usize| Wanted {
        common: "server",
        dns: &["db1", "*.shop.example"],
        addresses: &addresses[at..=at],
        years: YEARS,
    };
    let by_common_name = |dns| Wanted {
        common: "db1",
        dns,
        addresses: &[],
        years: YEARS,
    };
    let valid = |at: usize, years| Wanted {
        years,
        ..wanted(at)
    };
    let own = wanted(5).self_signed();
    let identities = [
        Some(wanted(0).signed_by(authority)),
        Some(by_common_name(&[]).signed_by(authority)),
        Some(by_common_name(&["db2"]).signed_by(authority)),
        Some(valid(3, (2020, 2021)).signed_by(authority)),
        Some(valid(4, (2099, 2100)).signed_by(authority)),
        Some(own.clone()),
        None,
    ];
    let servers = std::array::from_fn(|at| {
        server(
            u8::try_from(at).unwrap(),
            identities[at].as_ref(),
            authority,
        )
    });
    (servers, own.0)
}

/// Goal: every description with its environment connects with TLS, without, or not at all, as it
/// does with psql.
#[test]
fn every_description_ends_as_it_does_with_psql() {
    let files = Files {
        directory: TestDir::new(),
    };
    let (authority, other) = (self::authority("ours"), self::authority("other"));
    let (servers, own) = servers(&authority);
    let none = files.directory.file("none.crt");
    let roots = [
        files.put("root.crt", &authority.pem(), 0o644),
        none.clone(),
        files.put("other.crt", &other.pem(), 0o644),
        files.put("both.crt", &(other.pem() + &authority.pem()), 0o644),
    ];
    let own_root = files.put("own.crt", &own, 0o644);
    let empty = files.put("empty.crt", "", 0o644);
    let pair = |name: &str, common, authority| {
        let wanted = Wanted {
            common,
            dns: &[],
            addresses: &[],
            years: YEARS,
        };
        let (cert, key) = wanted.signed_by(authority);
        let cert = files.put(&format!("{name}.crt"), &cert, 0o644);
        (cert, files.put(&format!("{name}.key"), &key, 0o600), key)
    };
    let (cert, key, key_text) = pair("client", "certified", &authority);
    let open_key = files.put("open.key", &key_text, 0o644);
    let (stranger, stranger_key, _) = pair("stranger", "certified", &other);
    let (other_name, other_key, _) = pair("other-name", "another", &authority);
    let home = TestDir::new();
    let usual = home.path().join(".postgresql");
    fs::create_dir(&usual).unwrap();
    for (from, name) in [
        (&roots[0], "root.crt"),
        (&cert, "postgresql.crt"),
        (&key, "postgresql.key"),
    ] {
        fs::copy(from, usual.join(name)).unwrap();
    }

    let mut cases = Cases {
        home: files.directory.path().display().to_string(),
        list: Vec::new(),
    };
    let socket = servers[0].directory().display().to_string();
    cases.add_modes(&roots, &own_root, &socket);
    cases.add_variables(&roots[0], &none, &empty);
    cases.add_passwords();
    cases.add_certificates(&[
        (&cert, &key),
        (&cert, &open_key),
        (&cert, &none),
        (&cert, &stranger_key),
        (&none, &none),
        (&none, &key),
        (&empty, &key),
        (&stranger, &stranger_key),
        (&other_name, &other_key),
    ]);
    cases.add_usual_files(&home.path().display().to_string());
    if libpq_version() >= 16 {
        cases.add_certificate_modes(&cert, &key);
    }

    let mut watchers = servers
        .each_ref()
        .map(|server| server.client("postgres").unwrap());
    let mut different = Vec::new();
    let mut n_connected = 0;
    for (text, env) in &cases.list {
        let (ours, theirs) = (ours(text, env, &mut watchers), theirs(text, env));
        n_connected += usize::from(theirs.is_ok());
        if ours.as_ref().ok() != theirs.as_ref().ok() {
            different.push(format!(
                "{text} {env:?}\n  ours: {ours:?}\n  psql: {theirs:?}"
            ));
        }
    }
    let n_cases = cases.list.len();
    eprintln!("{n_cases} descriptions, of which {n_connected} connect");
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(n_cases >= 100 && (50..n_cases).contains(&n_connected));
}

/// What a server that is made up for a test answers to the question for TLS.
fn made_up(answer: &'static [u8]) -> (u16, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        // The ping comes first.
        let (mut ping, _) = listener.accept().unwrap();
        let mut question = [0; 8];
        let _ = ping.read_exact(&mut question);
        drop(ping);
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut question).unwrap();
        stream.write_all(answer).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        said
    });
    (port, serving)
}

fn open_briefly(text: &str) -> Result<Session, String> {
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        query: Duration::from_secs(1),
    };
    connect(&Dsn::parse(text).unwrap(), &timeouts, "test").map_err(|error| error.to_string())
}

/// Goal: a proxy that says no to TLS gets neither user nor password.
#[test]
fn a_server_that_says_no_to_tls_learns_nothing() {
    let (port, serving) = made_up(b"N");
    let text =
        format!("host=127.0.0.1 port={port} user=u password=hunter2 dbname=d sslmode=require");

    let error = open_briefly(&text).err().unwrap();

    assert!(error.contains("does not support TLS"), "{error}");
    assert_eq!(serving.join().unwrap(), b"");
}

/// Goal: what stands in plain text behind the answer for TLS is never taken for the server's word
/// (CVE-2021-23214). Method: "login done, ready" is injected there.
#[test]
fn plain_text_before_the_handshake_is_not_believed() {
    let (port, serving) = made_up(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    let text =
        format!("host=127.0.0.1 port={port} user=u password=hunter2 dbname=d sslmode=require");

    let error = open_briefly(&text).err().unwrap();

    assert!(error.contains("does not speak TLS"), "{error}");
    let said = serving.join().unwrap();
    assert!(!said.windows(7).any(|word| word == b"hunter2"));
}

/// Goal: a server without TLS is spoken to over the connection on which it has said so.
#[test]
fn a_server_without_tls_is_asked_by_no_second_connection() {
    let (port, serving) = made_up(b"N");
    let text = format!("host=127.0.0.1 port={port} user=hunter2 dbname=d sslmode=prefer");

    let error = open_briefly(&text).err().unwrap();

    assert!(error.contains("no answer within 2 s"), "{error}");
    let said = serving.join().unwrap();
    assert!(said.windows(7).any(|word| word == b"hunter2"), "{said:?}");
}

/// Goal: where the question for TLS is never answered, the connection is given up, and its thread
/// with it. Method: the server waits until it is closed.
#[test]
fn a_question_for_tls_that_is_never_answered_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut ping, _) = listener.accept().unwrap();
        let mut question = [0; 8];
        ping.read_exact(&mut question).unwrap();
        ping.write_all(b"N").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut question).unwrap();
        let limit = Some(Duration::from_mins(1));
        stream.set_read_timeout(limit).unwrap();
        stream.read(&mut question)
    });
    let text = format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=require");

    let error = open_briefly(&text).err().unwrap();

    assert!(error.contains("no answer within 2 s"), "{error}");
    assert_eq!(serving.join().unwrap().unwrap(), 0);
}

/// Goal: a handshake that is never answered ends with the time that a connect may take.
#[test]
fn a_silent_handshake_ends() {
    let (port, serving) = made_up(b"S");
    let text = format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=require");

    let error = open_briefly(&text).err().unwrap();

    assert!(error.contains("no answer within 2 s"), "{error}");
    assert!(!serving.join().unwrap().is_empty());
}

/// Goal: a call over TLS to a server that is frozen ends, and events are delivered over TLS before
/// and after.
#[test]
fn a_daemon_over_tls_outlives_a_frozen_server_and_a_renewed_certificate() {
    let authority = authority("ours");
    let wanted = Wanted {
        common: "server",
        dns: &["db1"],
        addresses: &[address(10)],
        years: YEARS,
    };
    let mut server = server(10, Some(&wanted.signed_by(&authority)), &authority);
    let db = TestDb::on(&server);
    let files = Files {
        directory: TestDir::new(),
    };
    let root = files.put("root.crt", &authority.pem(), 0o644);
    let mut daemon = Daemon::new(&db)
        .dsn(format!(
            "hostaddr={} host=db1 user=postgres dbname={} sslmode=verify-full sslrootcert={root}",
            address(10),
            db.name()
        ))
        .route("*=log")
        .args(["--query-timeout", "1", "--connect-timeout", "1"])
        .start();
    daemon.wait_ready();
    db.insert_events("order.created", 10);
    wait_until("all are done", || db.count("done") == 10);
    let encrypted = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where ssl and application_name like 'dispatchbox%'";
    assert!(db.number(encrypted, &[]) >= 2);

    server.pause().unwrap();
    wait_until("the worker knows", || {
        daemon.log().contains("database is away")
    });
    server.resume().unwrap();
    db.insert_events("order.created", 10);
    wait_until("all are done", || db.count("done") == 20);

    // Another authority and another certificate: neither side is started again.
    let renewed = self::authority("renewed");
    let (certificate, key) = wanted.signed_by(&renewed);
    files.put("root.crt", &renewed.pem(), 0o644);
    let data = server.directory().join("data");
    put(&data.join("server.crt"), &certificate);
    put(&data.join("server.key"), &key);
    server.stop(StopMode::Immediate).unwrap();
    server.start_again().unwrap();
    db.insert_events("order.created", 10);
    wait_until("all are done", || db.count("done") == 30);
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert_eq!(db.leases(), 0);
}

/// Goal: what fails says which file, name or word would set it right.
#[test]
fn a_failure_names_its_remedy() {
    let (server, authority) = server_of_db1(11);
    let files = Files {
        directory: TestDir::new(),
    };
    let root = files.put("root.crt", &authority.pem(), 0o644);
    let other = files.put("other.crt", &self::authority("other").pem(), 0o644);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = files.put("encrypted.key", encrypted, 0o600);
    let host = format!("hostaddr={} user=postgres dbname=postgres", address(11));
    for (words, part) in [
        (
            format!("host=db2 sslmode=verify-full sslrootcert={root}"),
            "the server's certificate is for `db1`, not for `db2`; use such a name as host, or reissue it with subjectAltName=DNS:db2",
        ),
        (
            format!("host=db1 sslmode=verify-ca sslrootcert={other}"),
            "is signed by no authority that is trusted here (trusted: sslrootcert",
        ),
        (
            "host=db1 sslmode=verify-full sslrootcert=/none".to_owned(),
            "the root file `/none` does not exist, and sslmode=verify-full checks",
        ),
        (
            "host=db1 sslmode=verify-ca".to_owned(),
            "sslmode=verify-ca needs a root file: name it in sslrootcert",
        ),
        (
            format!("sslmode=verify-full sslrootcert={root}"),
            "sslmode=verify-full needs the host's name in `host`",
        ),
        (
            format!("host=db1 sslmode=require sslcert={root} sslkey={encrypted}"),
            "is encrypted, which this version cannot read",
        ),
        (
            format!("host=db1 sslmode=require sslrootcert={root} sslcrl=/list"),
            "the list of revoked certificates `/list` (sslcrl) cannot be kept to",
        ),
        (
            format!("host=db1 sslrootcert={root} sslcrl=/list"),
            "the list of revoked certificates `/list` (sslcrl) cannot be kept to",
        ),
        (
            format!("host=db1 sslcert={root} sslkey={encrypted}"),
            "is encrypted, which this version cannot read",
        ),
        (
            "host=db1 sslrootcert=system".to_owned(),
            "is signed by no authority that is trusted here (trusted: the system's certificates)",
        ),
        (
            "host=db1 sslmode=require sslrootcert=system".to_owned(),
            "sslmode=require is too weak for sslrootcert=system",
        ),
        (
            "host=db1 sslnegotiation=direct".to_owned(),
            "sslmode=prefer is too weak for sslnegotiation=direct",
        ),
        (
            "host=db1 sslcertmode=maybe".to_owned(),
            "sslcertmode must be one of disable, allow, require",
        ),
        (
            "host=db1 sslmode=require ssl_max_protocol_version=TLSv1.1".to_owned(),
            "ssl_max_protocol_version must be TLSv1.2 or TLSv1.3",
        ),
    ] {
        let outcome = open(&format!("{host} {words}"), &Env::new()).map(|_| ());
        let error = outcome.expect_err(&words);
        assert!(error.contains(part), "{words}: {error}");
    }

    let demanding = format!("{host} host=db1 sslmode=require sslcertmode=require");
    let error = open(&demanding, &Env::new()).err().unwrap();
    assert!(
        error.contains("took the connection without a client certificate"),
        "{error}"
    );
    let (cert, key) = OF_DB1.signed_by(&authority);
    let cert = files.put("client.crt", &cert, 0o644);
    let key = files.put("client.key", &key, 0o600);
    let demanding = format!("{demanding} sslcert={cert} sslkey={key}");
    open(&demanding, &Env::new()).unwrap();
    let mut client = server.client("postgres").unwrap();
    client
        .batch_execute("alter system reset ssl_ca_file")
        .unwrap();
    client.batch_execute("select pg_reload_conf()").unwrap();
    wait_until("the server asks for no certificate", || {
        open(&demanding, &Env::new())
            .is_err_and(|error| error.contains("the server did not ask for a client certificate"))
    });
}

/// Goal: `doctor` tells when the certificates of the connection end, also where nobody checks them.
#[test]
fn the_doctor_tells_when_the_certificates_end() {
    let clients = authority("clients");
    let expired = Wanted {
        common: "db",
        dns: &[],
        addresses: &[],
        years: (2020, 2021),
    };
    let own = Wanted {
        common: "certified",
        years: (2020, 2090),
        ..expired
    };
    let server = server(12, Some(&expired.self_signed()), &clients);
    let files = TestDir::new();
    let (certificate, key) = own.signed_by(&clients);
    let [certificate_file, key_file] = ["own.crt", "own.key"].map(|name| files.file(name));
    fs::write(&certificate_file, certificate).unwrap();
    fs::write(&key_file, key).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let dsn = format!(
        "host={} dbname=postgres user=certified sslmode=require sslcert={} sslkey={}",
        address(12),
        certificate_file,
        key_file
    );

    let said = Cli::new(["doctor", "--json", "--dsn", &dsn]).run();

    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found: Vec<_> = findings
        .iter()
        .filter(|it| it["check"] == "encryption")
        .collect();
    let [found] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(found["level"], "error", "{found}");
    assert_eq!(
        found["message"],
        "the server's certificate has ended 2021-01-01T00:00:00Z"
    );
    let plain = dsn.replace("sslmode=require", "sslmode=disable");
    let plain = plain.replace("user=certified", "user=plainonly");
    let said = Cli::new(["doctor", "--dsn", &plain]).run();
    assert!(
        said.stdout.contains("encryption") && said.stdout.contains("not encrypted, on one host"),
        "{}",
        said.stdout
    );
    drop(server);
}
