//! Asking the daemon to leave, politely and less so.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::support::{Daemon, TestDb, TestDir, process, signal_pid, wait_until};

#[test]
fn a_drain_finishes_what_runs_and_gives_back_what_does_not() {
    let db = TestDb::new();
    db.insert_events("order.created", 100);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--max-parallel", "4"])
        .start_gated(4);

    daemon.signal(Signal::TERM);
    wait_until("it is draining", || {
        daemon.get("/ready").1.contains("draining")
    });
    assert_eq!(daemon.get("/ready").0, 503);
    assert_eq!(daemon.get("/health").0, 200);
    recorder.open_gate();

    daemon.assert_exits(0);
    assert_eq!(db.count("done"), 4);
    assert_eq!(db.count_where("status = 'pending' and attempts = 0"), 96);
    assert_eq!(
        db.count_where("status = 'pending' and next_run_at <= now()"),
        96
    );
    assert_eq!(db.leases(), 0);
    assert_eq!(recorder.history().len(), 4);
    daemon.assert_no_files();
}

#[test]
fn an_idle_daemon_leaves_at_once_whatever_its_poll_interval() {
    let db = TestDb::new();
    let mut daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--poll-interval", "3600", "--processes", "2"])
        .start();
    daemon.wait_ready();
    // One event after the other, until the fetchers have nothing to do but wait for an hour.
    wait_until("an idle worker", || {
        daemon.metric("dispatchbox_db_connected", &[]) == Some(1.0)
    });

    daemon.signal(Signal::TERM);

    // An hour of waiting would not end within the limit.
    daemon.assert_exits(0);
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    let db = TestDb::new();
    db.insert_events("order.created", 10);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--max-parallel", "2", "--retry-backoff-seconds", "3600"])
        .start_gated(2);
    let worker = daemon.wait_workers(1)[0];
    let programs = process::children(worker);

    daemon.signal(Signal::INT);
    wait_until("it is draining", || {
        daemon.get("/ready").1.contains("draining")
    });
    daemon.signal(Signal::INT);

    daemon.assert_exits(1);
    wait_until("nothing runs any more", || daemon.processes().is_empty());
    assert!(programs.iter().all(|&pid| !process::is_alive(pid)));
    assert_eq!(db.leases(), 0);
    daemon.assert_no_files();
    assert!(!daemon.log().contains("leaving before"), "{}", daemon.log());
    recorder.open_gate();
}

#[test]
fn a_drain_that_takes_too_long_is_ended_and_what_ran_is_charged() {
    let db = TestDb::new();
    db.insert_events("order.created", 10);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args([
            "--max-parallel",
            "2",
            "--drain-timeout",
            "0.3",
            "--retry-backoff-seconds",
            "3600",
        ])
        .start_gated(2);

    assert_eq!(daemon.terminate(), 1);

    assert!(daemon.log().contains("timed out"), "{}", daemon.log());
    wait_until("nothing runs any more", || daemon.processes().is_empty());
    assert_eq!(db.count_where("status = 'retry' and attempts = 1"), 2);
    let told = "select count(*) from outbox_event where last_error ~ '^worker .* ended while it handled the event: .*, (while draining|drain timed out)$'";
    assert_eq!(db.number(told, &[]), 2, "a handler is blamed for a drain");
    assert_eq!(db.count_where("status = 'pending' and attempts = 0"), 8);
    assert_eq!(db.leases(), 0);
    recorder.open_gate();
}

#[test]
fn a_worker_that_is_told_to_leave_drains_and_is_replaced() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 30);
    let (recorder, daemon) = Daemon::new(&db).start_gated(10);
    let worker = daemon.wait_workers(1)[0];

    signal_pid(worker, Signal::TERM);
    recorder.open_gate();
    wait_until("another one runs", || {
        daemon.worker_pids().iter().any(|&pid| pid != worker)
    });
    wait_until("all events are done", || db.count("done") == 30);

    recorder.history().assert_complete(ids, 0);
    assert_eq!(db.count_where("attempts <> 1"), 0);
}

/// Goal: whoever signals every process of ours (`killall`, a unit with `KillMode=control-group`)
/// asks for one drain. Method: the worker gets the order by its input first, and by the signal only
/// when it drains already.
#[test]
fn a_signal_behind_the_end_of_its_input_is_no_second_order_to_a_worker() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 4);
    let (recorder, mut daemon) = Daemon::new(&db).start_gated(4);
    let worker = daemon.wait_workers(1)[0];

    daemon.signal(Signal::TERM);
    wait_until("the worker drains", || {
        daemon
            .get("/api/status")
            .1
            .contains(r#""state":"draining""#)
    });
    signal_pid(worker, Signal::TERM);
    wait_until("it has heard the signal", || {
        daemon.log().contains("SIGTERM received: draining already")
            || daemon.log().contains("SIGTERM while draining")
    });
    recorder.open_gate();

    daemon.assert_exits(0);
    assert_eq!(db.count("done"), 4);
    recorder.history().assert_complete(ids, 0);
}

#[test]
fn a_second_signal_to_a_worker_ends_it_at_once() {
    let db = TestDb::new();
    db.insert_events("order.created", 4);
    let (recorder, daemon) = Daemon::new(&db)
        .args(["--retry-backoff-seconds", "3600"])
        .start_gated(4);
    let worker = daemon.wait_workers(1)[0];

    signal_pid(worker, Signal::TERM);
    daemon.wait_log("SIGTERM received: draining");
    signal_pid(worker, Signal::TERM);

    wait_until("it is gone", || !process::is_alive(worker));
    wait_until("what it had in hand is charged", || {
        db.count_where("attempts = 1") == 4
    });
    assert_eq!(db.count("retry"), 4);
    recorder.open_gate();
}

#[test]
fn ctrl_c_in_a_shell_reaches_the_supervisor_alone() {
    let db = TestDb::new();
    db.insert_events("order.created", 4);
    let (recorder, mut daemon) = Daemon::new(&db)
        .args(["--max-parallel", "2"])
        .start_gated(2);

    // What a terminal does: the signal goes to every process of the daemon's group.
    let group = rustix::process::Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    daemon.wait_log("SIGINT received: draining");
    recorder.open_gate();

    daemon.assert_exits(0);
    assert_eq!(db.count("done"), 2);
    assert_eq!(recorder.history().len(), 2);
}

/// The program, started so that it ignores a signal, as `nohup` and shells without job control do
/// it.
fn ignoring(directory: &TestDir, signal: &str) -> PathBuf {
    let path = PathBuf::from(directory.file("ignoring"));
    let program = env!("CARGO_BIN_EXE_dispatchbox");
    let script = format!("#!/bin/sh\ntrap '' {signal}\nexec {program} \"$@\"\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_hangup_drains() {
    let db = TestDb::new();
    let mut daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_ready();

    daemon.signal(Signal::HUP);

    daemon.assert_exits(0);
    assert!(daemon.log().contains("SIGHUP received: draining"));
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let mut daemon = Daemon::new(&db)
        .program(ignoring(&directory, "HUP"))
        .route("*=log")
        .start();
    daemon.wait_ready();
    let workers = daemon.wait_workers(1);

    daemon.signal(Signal::HUP);
    signal_pid(workers[0], Signal::HUP);
    db.insert_events("order.created", 1);
    wait_until("the event is done", || db.count("done") == 1);

    assert_eq!(daemon.worker_pids(), workers);
    assert_eq!(daemon.terminate(), 0);
    assert!(!daemon.log().contains("SIGHUP"), "{}", daemon.log());
}

/// A terminal with one program in it, which ends with the terminal, however the test does.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        for pid in process::children(self.0.id()) {
            signal_pid(pid, Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Goal: what a script has put into the background survives the script's Ctrl-C, and ends when a
/// process asks for it. Method: a terminal of its own, whose driver sends the signal.
#[test]
fn an_interrupt_that_was_ignored_at_the_start_counts_only_when_a_process_sends_it() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let log = directory.file("log");
    let program = env!("CARGO_BIN_EXE_dispatchbox");
    let call = format!(
        "trap '' INT; exec {program} run --dsn '{}' --disable-http --route '*=log' 2>{log}",
        db.dsn()
    );
    let terminal = Command::new("script")
        .args(["-qefc", &call, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TMPDIR", directory.path())
        .env_remove("RUNTIME_DIRECTORY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let mut terminal = Terminal(terminal);
    wait_until("a worker has started", || {
        said().contains("worker-00 started")
    });
    let terminal = &mut terminal.0;
    let daemon = process::children(terminal.id())[0];

    let mut keys = terminal.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    // The driver shows the key behind the signal that it sends for it.
    let mut shown = [0; 2];
    terminal
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut shown)
        .unwrap();
    assert_eq!(&shown, b"^C");
    db.insert_events("order.created", 1);
    wait_until("the event is done", || db.count("done") == 1);
    assert!(!said().contains("SIGINT"), "{}", said());
    signal_pid(daemon, Signal::INT);

    assert_eq!(terminal.wait().unwrap().code(), Some(0), "{}", said());
    assert!(said().contains("SIGINT received: draining"), "{}", said());
}
