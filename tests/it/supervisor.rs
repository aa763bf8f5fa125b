//! Workers that die, are killed, or never get on; and what a supervisor leaves to the next one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Daemon, Recorder, TestDb, TestDir, process, signal_pid, wait_until};

#[test]
fn a_killed_worker_is_replaced_and_only_what_was_in_hand_is_charged() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 40);
    let recorder = Recorder::new().gated();
    let daemon = Daemon::new(&db)
        .route(recorder.route("*"))
        .args(["--max-parallel", "3", "--retry-backoff-seconds", "3600"])
        .start();
    let killed = daemon.wait_workers(1)[0];
    recorder.wait_runs(3);
    let in_hand: BTreeSet<i64> = recorder.history().counts().into_keys().collect();

    signal_pid(killed, Signal::KILL);
    wait_until("another worker runs", || {
        daemon
            .worker_pids()
            .first()
            .is_some_and(|&pid| pid != killed)
    });
    recorder.open_gate();
    wait_until("all the others are done", || db.count("done") == 37);

    let charged = "select count(*) from outbox_event where status = 'retry' and attempts = 1 and next_run_at > now() \
                   and last_error like '%/worker-00/%' and last_error like '%signal: 9%'";
    assert_eq!(db.number(charged, &[]), 3);
    for id in &in_hand {
        assert_eq!(
            db.number(
                "select attempts::bigint from outbox_event where id = $1",
                &[id]
            ),
            1
        );
    }
    recorder.history().assert_complete(ids, 0);
    assert_eq!(
        daemon.metric("dispatchbox_worker_restarts_total", &[]),
        Some(1.0)
    );
}

#[test]
fn an_event_that_kills_its_worker_is_dead_after_its_attempts_and_its_neighbours_are_not() {
    let db = TestDb::new();
    let poison = db.insert_events("poison.one", 1)[0];
    let healthy = db.insert_events("order.created", 30);
    let recorder = Recorder::new();
    // The handler's parent is the worker that runs it.
    let poisonous = Recorder::new().then("kill -KILL $PPID; sleep 5");

    let _daemon = Daemon::new(&db)
        .route(poisonous.route("poison.*"))
        .route(recorder.route("*"))
        .args([
            "--max-attempts",
            "2",
            "--retry-backoff-seconds",
            "0.05",
            "--max-parallel",
            "1",
        ])
        .start();
    wait_until("everything is settled", || {
        db.count("dead") == 1 && db.count("done") == 30
    });

    assert_eq!(
        db.number(
            "select count(*) from outbox_event where status = 'dead' and id = $1",
            &[&poison]
        ),
        1
    );
    assert_eq!(
        db.number(
            "select attempts::bigint from outbox_event where id = $1",
            &[&poison]
        ),
        2
    );
    let named = "select count(*) from outbox_event where id = $1 and last_error like 'worker %/worker-00/%'";
    assert_eq!(db.number(named, &[&poison]), 1);
    // Each kill may repeat what was finished and not yet settled.
    recorder.history().assert_complete(healthy, 2 * 30);
    assert_eq!(db.count_where("status = 'done' and attempts <> 1"), 0);
}

#[test]
fn a_killed_workers_programs_are_ended() {
    let db = TestDb::new();
    db.insert_events("order.created", 1);
    let (_recorder, daemon) = Daemon::new(&db)
        .args(["--retry-backoff-seconds", "3600"])
        .start_gated(1);
    let worker = daemon.wait_workers(1)[0];
    let program = process::children(worker)[0];

    signal_pid(worker, Signal::KILL);

    wait_until("the program has ended", || !process::is_alive(program));
}

#[test]
fn workers_drain_and_go_when_their_supervisor_is_killed_and_the_next_one_goes_on() {
    let db = TestDb::new();
    let ids = db.insert_events("order.created", 30);
    let recorder = Recorder::new().gated();
    let mut first = Daemon::new(&db).route(recorder.route("*")).start();
    recorder.wait_runs(10);
    let port = first.http_port().to_string();

    first.kill();
    // Its workers still run, and its port is free all the same.
    let mut second = Daemon::new(&db)
        .route(recorder.route("*"))
        .port(&port)
        .start();
    second.wait_ready();
    assert!(!first.processes().is_empty());
    recorder.open_gate();
    wait_until("all events are done", || db.count("done") == 30);
    wait_until("the first one's workers are gone", || {
        first.processes().is_empty()
    });

    recorder.history().assert_complete(ids, 0);
    assert_eq!(db.count_where("attempts <> 1"), 0);
    // Only a supervisor removes the directory; the files in it are the workers' own.
    let files: Vec<_> = first
        .remaining_files()
        .iter()
        .flat_map(|path| std::fs::read_dir(path).unwrap())
        .collect();
    assert!(files.is_empty(), "{files:?}");
    assert_eq!(second.terminate(), 0);
}

/// Goal: workers without a supervisor keep the drain timeout by themselves, and take their programs
/// along. Method: a program that never ends.
#[test]
fn workers_of_a_killed_supervisor_end_by_their_own_deadline() {
    let db = TestDb::new();
    db.insert_events("order.created", 2);
    let (_recorder, mut daemon) = Daemon::new(&db)
        .args(["--drain-timeout", "1", "--handler-timeout", "3600"])
        .start_gated(2);
    assert!(daemon.processes().len() > 3, "{:?}", daemon.processes());

    daemon.kill();

    wait_until("its workers and their programs are gone", || {
        daemon.processes().is_empty()
    });
    // A worker that has the time left charges a program that it had to kill.
    assert_eq!(
        db.count_where("status in ('pending', 'retry') and attempts <= 1"),
        2
    );
}

#[test]
fn the_next_supervisor_recovers_at_once_what_a_killed_tree_left() {
    let db = TestDb::new();
    db.insert_events("order.created", 20);
    let recorder = Recorder::new().gated();
    let runtime = crate::support::TestDir::new();
    let start = || {
        Daemon::new(&db)
            .route(recorder.route("*"))
            .args([
                "--max-parallel",
                "2",
                "--retry-backoff-seconds",
                "3600",
                "--lease-seconds",
                "3600",
            ])
            .env("RUNTIME_DIRECTORY", runtime.path())
            .start()
    };
    let mut first = start();
    let worker = first.wait_workers(1)[0];
    recorder.wait_runs(2);
    let programs = process::children(worker);
    first.kill_tree();
    assert!(db.leases() > 0);

    let mut second = start();
    wait_until("the left programs have ended", || {
        programs.iter().all(|&pid| !process::is_alive(pid))
    });
    recorder.open_gate();
    wait_until("all the others are done", || db.count("done") == 18);

    assert_eq!(db.count_where("status = 'retry' and attempts = 1"), 2);
    assert_eq!(second.terminate(), 0, "{}", second.log());
    assert_eq!(db.leases(), 0);
    assert!(runtime.entries().is_empty(), "{:?}", runtime.entries());
}

#[test]
fn a_worker_that_does_not_turn_is_replaced() {
    let db = TestDb::new();
    let daemon = Daemon::new(&db)
        .route("*=log")
        .args(["--query-timeout", "1", "--connect-timeout", "1"])
        .start();
    let stopped = daemon.wait_workers(1)[0];
    daemon.wait_ready();

    signal_pid(stopped, Signal::STOP);

    wait_until("the stopped worker is gone", || !process::is_alive(stopped));
    wait_until("another one runs", || daemon.worker_pids().len() == 1);
    db.insert_events("order.created", 1);
    wait_until("the event is done", || db.count("done") == 1);
}

#[test]
fn the_port_in_use_is_told_before_anything_starts() {
    let db = TestDb::new();
    db.insert_events("order.created", 1);
    let first = Daemon::new(&db).route("nothing=log").start();
    let port = first.http_port().to_string();

    let mut second = Daemon::new(&db)
        .args(["--route", "*=log"])
        .port(&port)
        .start();

    second.assert_exits(1);
    second.wait_log(&format!("could not listen on `127.0.0.1:{port}`"));
    assert_eq!(db.count("done"), 0);
}

#[test]
fn the_daemon_waits_for_a_database_that_is_not_there_yet() {
    let mut cluster = crate::support::cluster::private();
    let db = TestDb::on(&cluster);
    db.insert_events("order.created", 1);
    cluster
        .stop(dispatchbox::dev::cluster::StopMode::Fast)
        .unwrap();

    let daemon = Daemon::new(&db).route("*=log").start();
    daemon.wait_log("waiting for the database");
    assert_eq!(daemon.get("/health").0, 200);
    let (status, body) = daemon.get("/ready");
    assert_eq!(
        (status, body.as_str()),
        (
            503,
            r#"{"status":"not ready","reason":"database not connected"}"#
        )
    );
    cluster.start_again().unwrap();

    wait_until("the event is done", || db.count("done") == 1);
    drop(daemon);
}

#[test]
fn a_start_waits_for_a_server_that_only_reads() {
    let server = crate::support::cluster::private();
    let db = TestDb::on(&server);
    db.insert_events("order.created", 1);
    db.set_read_only(true);

    let daemon = Daemon::new(&db).route("*=log").start();
    wait_until("it says that it waits", || {
        let log = daemon.log();
        log.contains("waiting for the database") && log.contains("read-only")
    });
    wait_until("it is not ready", || {
        daemon.get("/ready").1.contains("database not writable")
    });
    assert!(!daemon.log().contains("started:"), "{}", daemon.log());
    db.set_read_only(false);

    wait_until("the event is done", || db.count("done") == 1);
    assert!(daemon.log().contains("started:"), "{}", daemon.log());
}

#[test]
fn a_missing_schema_is_told_with_the_remedy() {
    let db = TestDb::new();
    db.execute("drop function outbox_settle_1; alter table outbox_event drop column last_error");

    let mut daemon = Daemon::new(&db).route("*=log").start();

    daemon.assert_exits(78);
    let log = daemon.log();
    assert!(
        log.contains("dispatchbox migrate")
            && log.contains("outbox_settle_1")
            && log.contains("last_error"),
        "{log}"
    );
}

#[test]
fn a_dead_workers_programs_are_known_by_their_mark() {
    let sleep = |program: &[&str], mark: &str| {
        Command::new(program[0])
            .args(&program[1..])
            .env(dispatchbox::system::process::MARK, mark)
            .process_group(0)
            .spawn()
            .unwrap()
    };
    let worker = format!("test/{}", std::process::id());
    let mut marked = sleep(&["sleep", "60"], &worker);
    let mut of_another = sleep(&["sleep", "60"], &format!("{worker}0"));
    // It leads a group already, so setsid runs the program in a child.
    let mut left_session = sleep(&["setsid", "--wait", "sleep", "60"], &worker);
    wait_until("it has left the session", || {
        !process::children(left_session.id()).is_empty()
    });
    let left = process::children(left_session.id())[0];
    wait_until("it leads a session", || is_session_leader(left));

    dispatchbox::system::process::kill_programs_of(&worker);

    assert_eq!(marked.wait().unwrap().signal(), Some(9));
    assert_eq!(left_session.wait().unwrap().signal(), Some(9));
    assert!(process::is_alive(left));
    assert!(process::is_alive(of_another.id()));
    signal_pid(left, Signal::KILL);
    of_another.kill().unwrap();
    of_another.wait().unwrap();
}

fn is_session_leader(pid: u32) -> bool {
    dispatchbox::system::process::Stat::of(pid).is_some_and(|stat| stat.session == pid)
}

/// Goal: a host without a usable place for temporary files, or with a runtime directory that is not
/// safe, is told the remedy, and served.
#[test]
fn where_the_private_directory_cannot_be_another_safe_place_is_used() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let open = directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let missing = directory.path().join("missing");
    let cases = [
        ("TMPDIR", &missing, "No such file or directory"),
        ("RUNTIME_DIRECTORY", &open, "`chmod go-w` it"),
    ];

    for (n_done, (variable, value, why)) in (1..).zip(cases) {
        let mut daemon = Daemon::new(&db).route("*=log").env(variable, value).start();
        daemon.wait_ready();
        db.insert_events("order.created", 1);
        wait_until("the event is done", || db.count("done") == n_done);

        let log = daemon.log();
        let warning = log.lines().find(|line| line.contains(" WARN ")).unwrap();
        let begin = format!("could not use `{}", value.display());
        assert!(warning.contains(&begin), "{warning}");
        assert!(warning.contains(why), "{warning}");
        assert!(
            warning.contains(" is used instead; RUNTIME_DIRECTORY "),
            "{warning}"
        );
        assert_eq!(daemon.terminate(), 0);
        assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
    }
}
