//! The guard of a route that must not reach into the network around it.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dispatchbox::handlers::transport::{Connections, LIFE};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Error};

use super::server::Server;
use super::{Only, event, retry_reason, routes_of};

const DENY: &str = "private_addresses = 'deny'";

/// Goal: whatever a host is called, no connection is made to an inner address.
#[test]
fn no_name_of_an_inner_address_leads_there() {
    let server = Server::answering("200 OK", "");
    let port = server.port();
    for host in [
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "017700000001",
        "0",
    ] {
        let url = format!("http://{host}:{port}/hook");
        let n_before = server.n_connections();

        let reason = retry_reason(Only::of_lines(&url, DENY).run(&event("a")));

        assert!(
            reason.contains(
                "the route has private_addresses = \"deny\", and its host has no other address than"
            ),
            "{host}: {reason}"
        );
        assert_eq!(server.n_connections(), n_before, "{host}");
        for lines in ["", "private_addresses = 'allow'"] {
            assert_eq!(
                Only::of_lines(&url, lines).run(&event("a")),
                Ok(()),
                "{host}"
            );
        }
    }
}

#[test]
fn an_inner_address_in_the_url_is_refused_at_the_start() {
    for (host, kind) in [
        ("127.0.0.1", "loopback address 127.0.0.1"),
        ("[::1]", "loopback address ::1"),
        ("[::ffff:169.254.169.254]", "metadata of a cloud address"),
        ("10.1.2.3:8080", "private address 10.1.2.3"),
    ] {
        let table = format!(
            "[[route]]\nevent_type = '*'\nhandler = 'http'\nurl = 'http://{host}/hook'\n{DENY}"
        );
        let refusal = routes_of(&table, &[]).err().unwrap();
        assert!(
            refusal.contains("has private_addresses = \"deny\" and the ") && refusal.contains(kind),
            "{refusal}"
        );
    }
    let table = "[[route]]\nevent_type = '*'\nhandler = 'http'\nurl = 'http://a/'\nprivate_addresses = 'never'";
    let refusal = routes_of(table, &[]).err().unwrap();
    assert!(refusal.contains("must be allow or deny"), "{refusal}");
}

/// Whether this name has an address depends on the host's name server.
#[test]
fn the_root_label_behind_a_name_leads_nowhere_else() {
    let server = Server::answering("200 OK", "");
    let url = format!("http://localhost.:{}/hook", server.port());

    let reason = retry_reason(Only::of_lines(&url, DENY).run(&event("a")));

    assert!(
        reason.contains("has private_addresses = \"deny\"") || reason.contains("lookup"),
        "{reason}"
    );
    assert_eq!(server.n_connections(), 0);
}

/// A name server that gives another answer to each question.
#[derive(Debug)]
struct Rebinding {
    answers: Vec<Vec<SocketAddr>>,
    n_asked: AtomicUsize,
}

impl Resolver for Rebinding {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let n = self.n_asked.fetch_add(1, Ordering::Relaxed);
        let mut result = self.empty();
        for address in &self.answers[n.min(self.answers.len() - 1)] {
            result.push(*address);
        }
        Ok(result)
    }
}

/// The other half of `a_name_that_moves_inwards_is_not_followed`, in a network of its own, where
/// addresses of the Internet are its own.
fn follow_names() {
    for arguments in ["link set lo up", "addr add 1.1.1.1/32 dev lo"] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "{arguments}");
    }
    let inner = Server::answering("200 OK", "");
    let outer = Server::start_at("1.1.1.1", |mut connection| {
        connection.read_request();
        connection.answer("200 OK\r\nConnection: close", "");
    });
    let inner_address = SocketAddr::from(([127, 0, 0, 1], inner.port()));
    let outer_address = SocketAddr::from(([1, 1, 1, 1], outer.port()));
    let names = Rebinding {
        answers: vec![
            vec![outer_address],
            vec![inner_address],
            vec![inner_address, outer_address],
        ],
        n_asked: AtomicUsize::new(0),
    };
    let config = Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(30)))
        .build();
    let agent = Agent::with_parts(config, Connections::new(None, LIFE).guarded(), names);
    let post = || agent.post("http://receiver.example/hook").send("{}");

    assert!(post().is_ok());
    let refused = post().unwrap_err().to_string();
    assert!(
        refused.contains("no other address than 127.0.0.1 (loopback)"),
        "{refused}"
    );
    assert!(post().is_ok());
    assert_eq!((inner.n_connections(), outer.n_connections()), (0, 2));
}

/// Goal: the address that was checked is the one that is connected to, also where a name has an
/// inner address beside another, or moves to one (DNS rebinding).
///
/// Method: this test runs itself again in a network namespace of its own.
#[test]
fn a_name_that_moves_inwards_is_not_followed() {
    const INNER: &str = "DISPATCHBOX_TEST_NAMESPACE";
    if std::env::var_os(INNER).is_some() {
        follow_names();
        return;
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "handler::private_addresses::a_name_that_moves_inwards_is_not_followed",
        ])
        .env(INNER, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}");
}
