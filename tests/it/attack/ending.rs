//! What else the guard must not change: who asks for /health waits for nobody, and the daemon's end
//! is as it was.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::Signal;

use super::client::{connect, read_all, send, status};
use super::siege::Siege;
use crate::support::wait_until;

#[test]
fn requests_that_wait_for_the_database_hold_up_no_health() {
    let siege = Siege::begin();
    let mut client = siege.db.client();
    let mut lock = client.transaction().unwrap();
    lock.execute("lock table outbox_event in access exclusive mode", &[])
        .unwrap();

    siege.attack_while("/ready and API calls that are stuck", |target| {
        for path in ["/ready", "/api/dead-events", "/metrics"] {
            let _ = send(
                target.port,
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            );
        }
    });

    lock.rollback().unwrap();
    siege.check_recovery("calls that were stuck");
}

#[test]
fn open_connections_hold_up_no_end() {
    let mut siege = Siege::begin();
    let port = siege.daemon.http_port();
    let mut silent: Vec<TcpStream> = (0..40).map(|_| connect(port).unwrap()).collect();
    for stream in &mut silent[..20] {
        stream.write_all(b"POST / HTTP/1.1\r\nHo").unwrap();
    }
    let answer = send(port, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(status(&answer), Some(200));

    siege.daemon.signal(Signal::TERM);
    let exit = siege.daemon.wait_exit();

    assert_eq!(exit.code(), Some(0));
    assert_eq!(
        siege.daemon.remaining_files(),
        Vec::<std::path::PathBuf>::new()
    );
    for stream in &mut silent {
        assert_eq!(read_all(stream), "");
    }
}

#[test]
fn a_killed_daemon_leaves_no_socket() {
    let mut siege = Siege::begin();

    siege.daemon.kill();
    wait_until("its worker has gone", || {
        siege.daemon.processes().is_empty()
    });

    let left: Vec<_> = siege
        .daemon
        .remaining_files()
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
