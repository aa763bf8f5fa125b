//! Names with several addresses, and names that move: the client's connections, with a resolver
//! that the test tells what to say.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dispatchbox::handlers::transport::{Connections, LIFE};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Error};

use super::server::Server;
use crate::support::wait_until;

/// Says what the test says.
#[derive(Debug, Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    fn of(addresses: &[SocketAddr]) -> Names {
        Names(Arc::new(Mutex::new(addresses.to_vec())))
    }

    fn move_to(&self, address: SocketAddr) {
        *self.0.lock().unwrap() = vec![address];
    }
}

impl Resolver for Names {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut result = self.empty();
        for address in self.0.lock().unwrap().iter() {
            result.push(*address);
        }
        Ok(result)
    }
}

fn agent(names: &Names, life: Duration) -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(30)))
        .timeout_connect(Some(Duration::from_secs(10)))
        .build();
    Agent::with_parts(config, Connections::new(None, life), names.clone())
}

#[track_caller]
fn post(agent: &Agent) {
    let mut answer = agent
        .post("http://receiver.example/hook")
        .send("{}")
        .unwrap();
    answer.body_mut().read_to_string().unwrap();
}

fn address(server: &Server) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port()))
}

/// A port that takes no connection and refuses none, as behind a firewall that drops: its backlog
/// is full.
struct Hole {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Hole {
    /// `None` where the host has no such address, as one without IPv6.
    fn new(address: &str) -> Option<Hole> {
        let listener = TcpListener::bind((address, 0)).ok()?;
        rustix::net::listen(&listener, 0).unwrap();
        let local = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&local, Duration::from_millis(100));
        let waiting = std::iter::from_fn(|| connect().ok()).collect();
        Some(Hole {
            listener,
            _waiting: waiting,
        })
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

#[test]
fn an_address_that_swallows_delays_the_first_connection_only() {
    let server = Server::start(|mut connection| {
        connection.read_request();
        connection.answer("200 OK\r\nConnection: close", "");
    });
    let holes: Vec<Hole> = ["127.0.0.2", "::1"]
        .into_iter()
        .filter_map(Hole::new)
        .collect();
    let mut all: Vec<SocketAddr> = holes.iter().map(Hole::address).collect();
    all.push(address(&server));
    let agent = agent(&Names::of(&all), LIFE);

    let started = Instant::now();
    post(&agent);
    assert!(started.elapsed() >= Duration::from_secs(1));

    // Each of them would take a second or two more.
    let started = Instant::now();
    for _ in 0..10 {
        post(&agent);
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(server.n_connections(), 11);
}

#[test]
fn an_address_that_refuses_is_passed_over_in_either_family() {
    let server = Server::answering("200 OK", "");
    let refusing = ["127.0.0.1", "::1"].into_iter().filter_map(|host| {
        let free = TcpListener::bind((host, 0)).ok()?;
        free.local_addr().ok()
    });
    let all: Vec<SocketAddr> = refusing.chain([address(&server)]).collect();
    let agent = agent(&Names::of(&all), LIFE);

    post(&agent);

    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_name_that_moves_is_followed_though_its_connections_are_busy() {
    assert!(LIFE <= Duration::from_mins(1));
    let before = Server::answering("200 OK", "");
    let after = Server::answering("200 OK", "");
    let names = Names::of(&[address(&before)]);
    let agent = agent(&names, Duration::from_millis(300));
    for _ in 0..3 {
        post(&agent);
    }
    assert_eq!(before.n_connections(), 1);

    names.move_to(address(&after));

    wait_until("the new address gets requests", || {
        post(&agent);
        after.n_connections() > 0
    });
}
