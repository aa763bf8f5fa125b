//! What happens when the process may open no more.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::client::{connect, read_all, send, status};
use super::siege::Siege;
use crate::support::{RunningDaemon, TestDir, wait_until};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";

/// Lets the supervisor have descriptors below this number from now on, or as many as at its start.
fn allow_descriptors(daemon: &RunningDaemon, below: Option<u64>) {
    let at_start = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: below.or(at_start.current),
        maximum: at_start.maximum,
    };
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

fn descriptors(daemon: &RunningDaemon) -> u64 {
    let path = format!("/proc/{}/fd", daemon.pid());
    u64::try_from(fs::read_dir(path).unwrap().count()).unwrap()
}

/// Waits until nothing is opened or closed any more, and gives the number below which two are free:
/// the limit is on numbers.
fn number_of_third_free(daemon: &RunningDaemon) -> u64 {
    let used = || -> BTreeSet<u64> {
        let entries = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .map(|name| name.to_str().unwrap().parse().unwrap())
            .collect()
    };
    let mut before = BTreeSet::new();
    let mut n_equal = 0;
    wait_until("nothing is opened or closed", || {
        let now = used();
        n_equal = if now == before { n_equal + 1 } else { 0 };
        before = now;
        n_equal == 20
    });
    (0..)
        .filter(|number| !before.contains(number))
        .nth(2)
        .unwrap()
}

#[test]
fn a_daemon_with_few_descriptors_keeps_some_for_its_work() {
    let directory = TestDir::new();
    let program = directory.path().join("few");
    let real = env!("CARGO_BIN_EXE_dispatchbox");
    fs::write(
        &program,
        format!("#!/bin/sh\nulimit -n 64\nexec {real} \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let siege = Siege::with(|daemon| daemon.program(program));

    siege.attack_of_fewer("silent connections and 64 descriptors", |target| {
        let Ok(mut stream) = connect(target.port) else {
            return;
        };
        read_all(&mut stream);
    });

    let log = siege.daemon.log();
    assert!(!log.contains("os error 24"), "it ran out of descriptors");
}

#[test]
fn a_port_without_descriptors_answers_again_once_there_are_some() {
    let siege = Siege::begin();
    let port = siege.daemon.http_port();
    let mut waiting: Vec<_> = (0..20).map(|_| connect(port).unwrap()).collect();
    wait_until("they are accepted", || descriptors(&siege.daemon) > 20);

    allow_descriptors(&siege.daemon, Some(1));
    for stream in &mut waiting {
        let _ = stream.write_all(HEALTH.as_bytes());
    }
    let _ = connect(port);
    wait_until("it is short of descriptors", || {
        siege
            .daemon
            .log()
            .contains("could not accept a connection on the HTTP port")
    });
    allow_descriptors(&siege.daemon, None);
    drop(waiting);

    wait_until("it answers", || {
        send(port, HEALTH).is_ok_and(|answer| status(&answer) == Some(200))
    });
    siege.check_recovery("no descriptors");
}

/// Goal: the end of tiny_http's accept loop is not the end of the port. Method: as many descriptors
/// as the guard needs to take a request and to connect to the server behind, and none for that
/// server to accept it.
#[test]
fn a_server_that_ended_behind_the_guard_is_replaced() {
    let siege = Siege::begin();
    let port = siege.daemon.http_port();
    wait_until("the server behind has ended", || {
        allow_descriptors(&siege.daemon, Some(number_of_third_free(&siege.daemon)));
        let _ = send(port, HEALTH);
        allow_descriptors(&siege.daemon, None);
        siege.daemon.log().contains("another one takes its place")
    });

    wait_until("it answers", || {
        send(port, HEALTH).is_ok_and(|answer| status(&answer) == Some(200))
    });
    siege.check_recovery("a server that was replaced");
}
