//! The daemon asks its own /health, and says when nobody answers.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::exchange::metric_in;
use crate::support::{Daemon, TestDb, wait_until};

/// Goal: whoever reads the log learns that nobody can reach the port, once, and when it is over.
/// Method: no descriptor is to be had for a while, so no connection can be accepted.
#[test]
fn a_port_that_does_not_answer_is_told_once_and_so_is_its_end() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();
    wait_until("the daemon reaches its own port", || {
        daemon.metric("dispatchbox_http_up", &[]) == Some(1.0)
    });
    let supervisor = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    let limit = |current| {
        // What the daemon inherited; only the limit in force changes.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limits = Rlimit { current, maximum };
        prlimit(supervisor, Resource::Nofile, limits).unwrap()
    };

    let before = limit(Some(0));
    daemon.wait_log("the HTTP port does not answer");
    limit(before.current);

    daemon.wait_log("the HTTP port answers again");
    assert_eq!(daemon.metric("dispatchbox_http_up", &[]), Some(1.0));
    assert_eq!(daemon.log().matches("does not answer").count(), 1);
    db.insert_events("order.created", 1);
    wait_until("events are delivered", || db.count("done") == 1);
}

/// Goal: the daemon finds its own port wherever it listens.
#[test]
fn a_daemon_on_all_addresses_reaches_its_own_port() {
    let db = TestDb::new();
    // A machine may have no IPv6 at all, and then nobody can listen there.
    let hosts = ["0.0.0.0", "::", "::1"];
    for host in hosts
        .into_iter()
        .filter(|host| TcpListener::bind((*host, 0)).is_ok())
    {
        let daemon = Daemon::new(&db).route("*=log").host(host).start();
        wait_until(&format!("it reaches {host}"), || {
            let answer = get_at(host, daemon.http_port(), "/metrics");
            answer.is_some_and(|text| metric_in(&text, "dispatchbox_http_up", &[]) == Some(1.0))
        });
    }
}

/// Goal: a client need not know which family a host name leads to. Method: no address is given, so
/// the port answers both, and each client is judged by its own address.
#[test]
fn without_an_address_the_port_answers_both_families_alike() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").without_host().start();
    daemon.wait_ready();
    let loopbacks = ["127.0.0.1", "::1"];

    for address in loopbacks
        .into_iter()
        .filter(|address| TcpListener::bind((*address, 0)).is_ok())
    {
        let status = |path| {
            let host = "Host: localhost\r\n";
            daemon.exchange(address, "GET", path, host, "").status
        };
        assert_eq!(status("/health"), 200, "{address}");
        assert_eq!(status("/api/dead-events"), 200, "{address}");
    }
    wait_until("it reaches its own port", || {
        daemon.metric("dispatchbox_http_up", &[]) == Some(1.0)
    });

    // A given address is meant as it is.
    let daemon = Daemon::new(&db).route("*=log").host("0.0.0.0").start();
    let port = daemon.http_port();
    assert_eq!(daemon.get("/health").0, 200);
    assert!(TcpStream::connect(("::1", port)).is_err());
}

/// Goal: what was possible with IPv4 alone stays possible where the port cannot be had by IPv6.
/// Method: something else has it there.
#[test]
fn a_port_that_ipv6_does_not_give_is_opened_for_ipv4_and_nowhere_twice() {
    let db = TestDb::new();
    let Ok(other) = TcpListener::bind(("::1", 0)) else {
        // No IPv6 here: then every other test has shown it.
        return;
    };
    let port = other.local_addr().unwrap().port().to_string();

    let start = || {
        Daemon::new(&db)
            .route("*=log")
            .without_host()
            .port(&port)
            .start()
    };
    let daemon = start();
    daemon.wait_ready();
    let log = daemon.log();
    assert!(log.contains("answers IPv4 alone"), "{log}");
    drop(other);
    let mut second = start();

    second.assert_exits(1);
    let named = format!(
        "could not listen on `0.0.0.0:{port}`: Address already in use (os error 98); \
         is it another dispatchbox? --http-port chooses another port"
    );
    second.wait_log(&named);
}

/// What a daemon that listens on this address answers.
fn get_at(host: &str, port: u16, path: &str) -> Option<String> {
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let mut stream = TcpStream::connect((host, port)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
