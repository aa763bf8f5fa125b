//! Processes that cannot be started, that end themselves, or whose program is replaced.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Signal, getrlimit};

use super::{assert_all_left, lines_with, n_restarts, wait_all_done};
use crate::support::{Daemon, Recorder, TestDb, TestDir, example, signal_pid, wait_until};

const NO_WORKERS: &str = r#"{"status":"not ready","reason":"no workers"}"#;

/// Copies the program, by another process: a copy that this one still had open for writing could
/// not be run (ETXTBSY), also where only a child that it has just forked has it open.
fn copy_program(to: &Path) {
    let copy = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_dispatchbox"))
        .arg(to)
        .status();
    assert!(copy.unwrap().success());
}

/// Writes a shell script that can be run.
fn write_script(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, path).unwrap();
}

/// Lets the user of this process have so many processes and threads from now on, as far as it asks
/// for more; `None` for as many as at its start. Only that user may set it, and few others.
fn allow_processes(db: &TestDb, pid: u32, n: Option<u64>) {
    let soft = n.or(getrlimit(Resource::Nproc).current);
    let soft = soft.map_or("unlimited".to_owned(), |n| n.to_string());
    let set = format!("prlimit --pid {pid} --nproc={soft}:");
    let line = as_bound_user(db).map_or(set.clone(), |user| format!("{user} {set}"));
    let status = Command::new("sh").args(["-c", &line]).status();
    assert!(status.unwrap().success(), "{line}");
}

/// What runs a program as the user of the server, where this process is root, whom that limit does
/// not bind.
fn as_bound_user(db: &TestDb) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let owner = fs::metadata(db.directory()).unwrap();
    let (uid, gid) = (owner.uid(), owner.gid());
    Some(format!(
        "setpriv --reuid={uid} --regid={gid} --clear-groups"
    ))
}

/// The program, for a user whom that limit binds. `directory` is that user's from here on.
fn bound_program(db: &TestDb, directory: &TestDir) -> PathBuf {
    let program = directory.path().join("dispatchbox");
    copy_program(&program);
    let Some(user) = as_bound_user(db) else {
        return program;
    };
    let owner = fs::metadata(db.directory()).unwrap();
    chown(directory.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    let script = directory.path().join("as_user");
    write_script(
        &script,
        &format!("exec {user} {} \"$@\"", program.display()),
    );
    script
}

/// Goal: where no process and no thread can be started, workers and programs are tried again, and
/// all goes on once they can be. Method: a limit on the processes of the daemon's user, for the
/// supervisor first, then for a worker that has its connections.
#[test]
fn a_daemon_that_can_start_no_process_goes_on_once_it_can() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let program = bound_program(&db, &directory);
    let mut daemon = Daemon::new(&db)
        .program(program)
        .route("*=exec:/bin/true")
        .args(["--max-attempts", "1000", "--retry-backoff-seconds", "0.05"])
        .env("RUNTIME_DIRECTORY", directory.file("run"))
        .start();
    daemon.wait_ready();
    let killed = daemon.wait_workers(1)[0];

    allow_processes(&db, daemon.pid(), Some(1));
    signal_pid(killed, Signal::KILL);
    wait_until("no worker can be started, twice", || {
        lines_with(&daemon, "could not start worker-00, trying again in") == 2
    });
    allow_processes(&db, daemon.pid(), None);
    let worker = daemon.wait_workers(1)[0];
    let mut ids = db.insert_events("order.created", 1);
    wait_all_done(&db, &ids);

    allow_processes(&db, worker, Some(1));
    ids.extend(db.insert_events("order.created", 3));
    let refused = "status = 'retry' and last_error like 'could not start `/bin/true`: Resource temporarily unavailable%'";
    wait_until("the programs cannot be started", || {
        db.count_where(refused) == 3
    });
    assert_eq!(daemon.get("/health").0, 200);
    allow_processes(&db, worker, None);

    wait_all_done(&db, &ids);
    assert_eq!(db.count_where("attempts > 1"), 3);
    assert_eq!(daemon.worker_pids(), [worker], "{}", daemon.log());
    assert_all_left(&db, [&mut daemon]);
}

/// Goal: where workers die at their start the daemon stays, says so, and goes on once they live.
/// Method: its user may not write into its directory, where each worker has a file.
#[test]
fn a_daemon_whose_workers_die_at_their_start_stays_and_says_so() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let program = bound_program(&db, &directory);
    let runtime = directory.path().join("run");
    let mut daemon = Daemon::new(&db)
        .program(program)
        .route("*=log")
        .env("RUNTIME_DIRECTORY", &runtime)
        .start();
    daemon.wait_ready();
    let killed = daemon.wait_workers(1)[0];
    let may_write = |mode| {
        fs::set_permissions(&runtime, fs::Permissions::from_mode(mode)).unwrap();
    };

    may_write(0o500);
    signal_pid(killed, Signal::KILL);
    wait_until("three workers have died at their start", || {
        lines_with(&daemon, "worker-00 (pid ") >= 4
    });
    wait_until("it says that it has no workers", || {
        daemon.get("/ready") == (503, NO_WORKERS.to_owned())
    });
    assert_eq!(daemon.get("/health").0, 200);
    may_write(0o700);

    let ids = db.insert_events("order.created", 3);
    wait_all_done(&db, &ids);
    assert_eq!(db.count_where("attempts <> 1"), 0);
    assert_all_left(&db, [&mut daemon]);
}

/// Goal: a supervisor starts workers of its own version, whatever has become of its file: an
/// upgrade replaces it, and removes it, under a running daemon.
#[test]
fn workers_are_their_supervisors_own_program_though_its_file_was_replaced() {
    let db = TestDb::new();
    let directory = TestDir::new();
    let program = directory.path().join("dispatchbox");
    copy_program(&program);
    let recorder = Recorder::new();
    let mut daemon = Daemon::new(&db)
        .program(program.clone())
        .route(recorder.route("*"))
        .start();
    daemon.wait_ready();
    let identity = |pid: u32| {
        let file = fs::metadata(format!("/proc/{pid}/exe")).unwrap();
        (file.dev(), file.ino())
    };
    let own = identity(daemon.pid());
    let mut worker = daemon.wait_workers(1)[0];
    let mut ids = Vec::new();

    for (n_replaced, replace) in [(1.0, true), (2.0, false)] {
        if replace {
            write_script(&program, "exit 3");
        } else {
            fs::remove_file(&program).unwrap();
        }
        signal_pid(worker, Signal::KILL);
        wait_until("another worker runs", || {
            n_restarts(&daemon) == Some(n_replaced) && daemon.worker_pids().len() == 1
        });
        let killed = std::mem::replace(&mut worker, daemon.worker_pids()[0]);
        assert_ne!(worker, killed);
        assert_eq!(identity(worker), own);
        ids.extend(db.insert_events("order.created", 1));
        wait_all_done(&db, &ids);
    }

    recorder.history().assert_complete(ids, 0);
    assert_eq!(db.count_where("attempts <> 1"), 0);
    assert_all_left(&db, [&mut daemon]);
}

/// Goal: an event whose handler ends the worker from within, by an abort or by a signal of the
/// kernel, is dead after its attempts, and no other pays for it.
#[test]
fn handlers_that_end_their_own_worker_bury_only_their_own_events() {
    let db = TestDb::new();
    db.insert_events("poison.abort", 1);
    db.insert_events("poison.overflow", 1);
    db.insert_events("order.created", 30);
    let mut daemon = Daemon::new(&db)
        .program(example("poison_handler"))
        .args(["--max-attempts", "2", "--retry-backoff-seconds", "0.05"])
        .args(["--max-parallel", "1"])
        .start();

    wait_until("everything is settled", || {
        db.count("dead") == 2 && db.count("done") == 30
    });
    let poison = "event_type like 'poison.%' and status = 'dead' and attempts = 2 and last_error like 'worker %/worker-00/% signal: 6%'";
    assert_eq!(db.count_where(poison), 2);
    assert_eq!(db.count_where("status = 'done' and attempts <> 1"), 0);
    assert_eq!(n_restarts(&daemon), Some(4.0), "{}", daemon.log());
    wait_until("a worker runs again", || daemon.worker_pids().len() == 1);
    assert_all_left(&db, [&mut daemon]);
}
