//! A load balancer in front of two daemons sees what is true, and no request and no event pays for
//! a restart.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Daemon, Receiver, RunningDaemon, TestDb, TestDir, n_events, wait_until};

/// HAProxy in front of a few ports. It listens on unix sockets, so it needs no port of its own.
struct Balancer {
    process: Child,
    directory: TestDir,
}

impl Balancer {
    fn start(ports: &[u16]) -> Balancer {
        let directory = TestDir::new();
        let path = directory.file("haproxy.cfg");
        std::fs::write(&path, configuration(&directory, ports)).unwrap();
        // Debian installs it where the PATH of an ordinary user does not lead.
        let path_variable = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let process = Command::new("haproxy")
            .env("PATH", path_variable)
            // In the foreground: what is killed is what was started.
            .args(["-db", "-f", &path])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "HAProxy is missing: `scripts/install-test-tools`, or `apt-get install haproxy`",
            );
        let balancer = Balancer { process, directory };
        wait_until("the balancer listens", || {
            balancer.try_get("/health").is_some()
        });
        balancer
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The status of one request through it; `None` when there is no answer.
    fn try_get(&self, path: &str) -> Option<u16> {
        let mut stream = UnixStream::connect(self.socket("http")).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    /// Which daemons it sends requests to.
    fn up(&self) -> Vec<bool> {
        let mut stream = UnixStream::connect(self.socket("admin")).unwrap();
        stream.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        stream.read_to_string(&mut table).unwrap();
        let columns: Vec<&str> = table.lines().next().unwrap().split(',').collect();
        let status = columns.iter().position(|name| *name == "status").unwrap();
        table
            .lines()
            .map(|line| line.split(',').collect::<Vec<_>>())
            .filter(|cells| cells.len() > status && cells[1].starts_with("daemon"))
            .map(|cells| cells[status] == "UP")
            .collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the README shows, with a quicker check.
fn configuration(directory: &TestDir, ports: &[u16]) -> String {
    let directory = directory.path().display();
    let mut text = format!(
        "global
  stats socket {directory}/admin level admin
defaults
  mode http
  timeout connect 2s
  timeout client 20s
  timeout server 20s
  timeout check 5s
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response
frontend front
  bind {directory}/http
  default_backend daemons
backend daemons
  option httpchk GET /ready
  http-request disable-l7-retry unless METH_GET
  default-server check inter 200ms fall 1 rise 1
"
    );
    for (number, port) in ports.iter().enumerate() {
        writeln!(text, "  server daemon{number} 127.0.0.1:{port}").unwrap();
    }
    text
}

/// Goal: rolling restarts under load behind a balancer that asks /ready: every request is answered
/// with 200, and every event is delivered exactly once. Method: requests without a pause through
/// HAProxy, two daemons restarted in turn on their own ports while events flow, each time only once
/// both are in use again.
#[test]
fn daemons_restarted_in_turn_behind_a_balancer_fail_no_request_and_no_event() {
    let db = TestDb::new();
    let receiver = Receiver::start();
    receiver.set_delay(Duration::from_millis(8));
    let start = |port: &str| -> RunningDaemon {
        Daemon::new(&db)
            .route(receiver.route("*"))
            .args(["--max-parallel", "4"])
            .port(port)
            .start()
    };
    let mut daemons = [start("0"), start("0")];
    let ports = daemons.each_ref().map(RunningDaemon::http_port);
    let balancer = Balancer::start(&ports);
    let both_up = || balancer.up() == [true, true];
    wait_until("both daemons are in use", both_up);

    let is_over = AtomicBool::new(false);
    let n_answered = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let mut ids = Vec::new();
    thread::scope(|scope| {
        let _end = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    match balancer.try_get("/health") {
                        Some(200) => {
                            n_answered.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failed.lock().unwrap().push(other),
                    }
                }
            });
        }
        for turn in 0..6 {
            let daemon = &mut daemons[turn % 2];
            let (n_runs, n_before) = (receiver.history().len(), n_answered.load(Ordering::Relaxed));
            ids.extend(db.insert_events("order.created", n_events(1200) / 6));
            wait_until("events and requests flow", || {
                receiver.history().len() >= n_runs + 20
                    && n_answered.load(Ordering::Relaxed) > n_before
            });
            assert_eq!(daemon.terminate(), 0, "turn {turn}: {}", daemon.log());
            wait_until("the balancer has noticed", || !both_up());
            *daemon = start(&ports[turn % 2].to_string());
            wait_until("both daemons are in use again", both_up);
        }
        let n_done = i64::try_from(ids.len()).unwrap();
        wait_until("all events are done", || db.count("done") == n_done);
    });

    let failed = failed.into_inner().unwrap();
    let n_answered = n_answered.into_inner();
    eprintln!("{n_answered} requests answered during 6 restarts");
    assert!(failed.is_empty(), "{failed:?} of {n_answered} requests");
    receiver.history().assert_complete(ids, 0);
    for daemon in &mut daemons {
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    }
}

/// Goal: a daemon that cannot deliver gets no traffic, and gets it again when it can.
#[test]
fn a_balancer_sends_nothing_to_daemons_whose_table_is_locked() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db).route("*=log").start();
    let balancer = Balancer::start(&[daemon.http_port()]);
    wait_until("the daemon is in use", || balancer.up() == [true]);

    let mut other = db.client();
    let mut lock = other.transaction().unwrap();
    lock.batch_execute("lock table outbox_event in access exclusive mode")
        .unwrap();
    wait_until("it is not in use", || balancer.up() == [false]);
    assert_eq!(balancer.try_get("/health"), Some(503));
    lock.commit().unwrap();

    wait_until("it is in use again", || balancer.up() == [true]);
    assert_eq!(balancer.try_get("/health"), Some(200));
}

/// Runs when it goes out of scope, also when a test fails.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
