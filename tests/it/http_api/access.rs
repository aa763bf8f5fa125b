//! Who gets in, and who does not: each test tries to.
//!
//! A path that is not there tells both apart: who may use the API learns so, who may not is refused
//! before.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Answer, Daemon, RunningDaemon, TestDb, TestDir};

const TOKEN: &str = "an-unguessable-token";

const PATH: &str = "/api/nowhere";

/// What a client sees that got in.
const IN: u16 = 404;

fn ask(daemon: &RunningDaemon, method: &str, headers: &str) -> Answer {
    daemon.exchange("127.0.0.1", method, PATH, headers, "")
}

fn start(db: &TestDb, args: &[&str]) -> RunningDaemon {
    let daemon = Daemon::new(db).route("*=log").args(args).start();
    daemon.http_port();
    daemon
}

/// An address of this host that is no loopback address, if it has one. No packet is sent.
fn outer_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then(|| address.to_string())
}

#[test]
fn a_web_page_cannot_get_in_by_a_name_of_its_own() {
    let db = TestDb::new();
    let daemon = start(&db, &["--http-allowed-hosts", "outbox.internal"]);

    for (host, status) in [
        ("localhost", IN),
        ("127.0.0.1:1", IN),
        ("[::1]:8080", IN),
        ("outbox.internal:8080", IN),
        ("rebound.example", 403),
        ("10.0.0.1", 403),
        ("localhost.example", 403),
    ] {
        for method in ["GET", "POST"] {
            let answer = ask(&daemon, method, &format!("Host: {host}\r\n"));
            assert_eq!(answer.status, status, "{method} {host}");
        }
    }
    let refused = ask(&daemon, "GET", "Host: rebound.example\r\n");
    assert!(refused.body.contains("--http-allowed-hosts"), "{refused:?}");
    let open = daemon.exchange("127.0.0.1", "GET", "/health", "Host: a.example\r\n", "");
    assert_eq!(open.status, 200);
}

#[test]
fn what_a_proxy_passes_on_is_remote() {
    let db = TestDb::new();
    let daemon = start(&db, &[]);
    let host = "Host: localhost\r\n";
    assert_eq!(ask(&daemon, "GET", host).status, IN);

    for header in [
        "X-Forwarded-For: 127.0.0.1",
        "x-forwarded-proto: http",
        "Forwarded: for=127.0.0.1",
        "Via: 1.1 proxy",
        "X-Real-IP: 127.0.0.1",
    ] {
        let answer = ask(&daemon, "GET", &format!("{host}{header}\r\n"));
        assert_eq!(answer.status, 403, "{header}");
        assert!(answer.body.contains("--api-token-file"), "{answer:?}");
    }
}

/// Goal: nobody in the network gets in, whatever he says about himself. Method: the host's own
/// outer address, where it has one, is as far away as any other.
#[test]
fn a_stranger_in_the_network_is_refused_and_the_start_says_how_to_let_him_in() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").host("0.0.0.0").start();
    let port = daemon.http_port();

    assert!(
        daemon
            .log()
            .contains("without --api-token-file the API at http://0.0.0.0:")
    );
    assert_eq!(ask(&daemon, "GET", "Host: localhost\r\n").status, IN);
    if let Some(address) = outer_address() {
        for headers in [
            format!("Host: {address}:{port}\r\n"),
            "Host: localhost\r\n".to_owned(),
            "Host: localhost\r\nX-Dispatchbox-Peer: 127.0.0.1\r\n".to_owned(),
        ] {
            for method in ["GET", "POST"] {
                let answer = daemon.exchange(&address, method, PATH, &headers, "");
                assert_eq!(answer.status, 403, "{method} {headers}");
            }
        }
        let health = daemon.exchange(&address, "GET", "/health", "Host: x\r\n", "");
        assert_eq!(health.status, 200);
    }
}

#[test]
fn a_web_page_elsewhere_cannot_post() {
    let db = TestDb::new();
    let daemon = start(&db, &[]);
    let own = format!("Host: localhost:{}\r\n", daemon.http_port());

    for (header, post, get) in [
        ("", IN, IN),
        ("Sec-Fetch-Site: same-origin\r\n", IN, IN),
        ("Sec-Fetch-Site: same-site\r\n", 403, IN),
        ("Sec-Fetch-Site: cross-site\r\n", 403, 403),
        ("Origin: https://evil.example\r\n", 403, IN),
        ("Origin: null\r\n", 403, IN),
        ("Origin: http://localhost:1\r\n", 403, IN),
    ] {
        for (method, status) in [("POST", post), ("GET", get)] {
            let answer = ask(&daemon, method, &format!("{own}{header}"));
            assert_eq!(answer.status, status, "{method} {header}");
        }
    }
    let preflight = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = ask(&daemon, "OPTIONS", &format!("{own}{preflight}"));
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
}

#[test]
fn with_a_token_only_who_shows_it_gets_in() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let path = directory.file("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = Daemon::new(&db)
        .route("*=log")
        .host("0.0.0.0")
        .args(["--api-token-file", &path, "--log-level", "DEBUG"])
        .start();
    let host = "Host: outbox.example\r\n";

    let missing = ask(&daemon, "GET", "Host: localhost\r\n");
    assert_eq!(missing.status, 401);
    assert_eq!(
        missing.header("WWW-Authenticate"),
        Some(r#"Bearer realm="dispatchbox""#)
    );
    for wrong in [
        "Bearer an-unguessable-toke",
        "Bearer an-unguessable-token2",
        "Basic YWJj",
        TOKEN,
    ] {
        let answer = ask(&daemon, "GET", &format!("{host}Authorization: {wrong}\r\n"));
        assert_eq!(answer.status, 401, "{wrong}");
    }
    let right = format!("{host}Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(ask(&daemon, "POST", &right).status, IN);
    let cross = format!("{right}Origin: https://evil.example\r\n");
    assert_eq!(ask(&daemon, "POST", &cross).status, 403);
    // What browsers send to the page behind a proxy that puts its own Host, or the name without a
    // port, in place of the public one.
    let behind = "Sec-Fetch-Site: same-origin\r\nOrigin: https://outbox.example:8443\r\nX-Forwarded-For: 192.0.2.7\r\n";
    for host in ["127.0.0.1:8080", "outbox.example"] {
        let tokenless = format!("Host: {host}\r\n{behind}");
        let shown = format!("{tokenless}Authorization: Bearer {TOKEN}\r\n");
        assert_eq!(ask(&daemon, "POST", &shown).status, IN, "{host}");
        assert_eq!(ask(&daemon, "POST", &tokenless).status, 403, "{host}");
        let cross = shown.replace("same-origin", "cross-site");
        assert_eq!(ask(&daemon, "POST", &cross).status, 403, "{host}");
    }
    if let Some(address) = outer_address() {
        let status = |headers: &str| daemon.exchange(&address, "GET", PATH, headers, "").status;
        assert_eq!(status(&right), IN);
        assert_eq!(status(host), 401);
    }
    assert_eq!(daemon.get("/health").0, 200);
    let log = daemon.log();
    assert!(
        !log.contains(TOKEN) && !log.contains("--api-token-file"),
        "{log}"
    );
}

#[test]
fn an_open_api_lets_everybody_in_and_says_so_at_the_start() {
    let db = TestDb::new();
    let daemon = start(&db, &["--http-open-api"]);

    let headers =
        "Host: a.example\r\nX-Forwarded-For: 10.0.0.1\r\nOrigin: https://evil.example\r\n";
    assert_eq!(ask(&daemon, "POST", headers).status, IN);
    assert!(
        daemon
            .log()
            .contains("--http-open-api: every client that reaches http://127.0.0.1:")
    );
}

#[test]
fn every_answer_is_what_its_type_says_and_nobody_else_may_keep_or_embed_it() {
    let db = TestDb::new();
    let daemon = start(&db, &[]);

    let answer = ask(&daemon, "GET", "Host: localhost\r\n");

    for (name, value) in [
        ("Content-Type", "application/json"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
}
