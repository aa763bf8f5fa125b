//! The in-hand file: whose groups it lets one kill, and that no look at the directory gets in the
//! way of a worker that makes one.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dispatchbox::domain::protocol::Owner;
use dispatchbox::system::in_hand::{self, InHandFile, Leader, Remains};
use rustix::process::Signal;

use crate::support::{TestDir, process, signal_pid, wait_until};

/// Where the start time of the first slot's group stands in the file.
const STARTED_AT: u64 = 2048 + 20;

fn owner() -> Owner {
    Owner {
        worker: "host/worker-00/1".to_owned(),
        application_name: "dispatchbox worker-00 1".to_owned(),
        database: "here".to_owned(),
    }
}

/// What is left of a worker that was handling an event in this group.
fn remains_of(directory: &TestDir, group: u32) -> Remains {
    let file = InHandFile::create(directory.path(), "worker-00", &owner()).unwrap();
    file.note_group(0, 1, 7, group).unwrap();
    drop(file);
    Remains::take(&in_hand::path(directory.path(), "worker-00")).unwrap()
}

/// Goal: an event whose handler has ended is not charged, whatever became of its outcome.
#[test]
fn only_what_is_handled_is_in_hand() {
    let directory = TestDir::new();
    let file = InHandFile::create(directory.path(), "worker-00", &owner()).unwrap();
    for slot in 0..3 {
        file.start(slot, 10, 7).unwrap();
    }

    file.clear(0).unwrap();
    file.start(2, 12, 8).unwrap();
    // Its handler was ended, and not by itself.
    file.kill_groups();
    file.clear(1).unwrap();
    drop(file);

    let remains = Remains::take(&in_hand::path(directory.path(), "worker-00")).unwrap();
    let in_hand = remains.in_hand.iter().map(|one| (one.event_id, one.token));
    assert_eq!(in_hand.collect::<Vec<_>>(), [(10, 7), (12, 8)]);
}

/// A program in a group of its own, whose input ends when it is waited for.
fn program(script: &str) -> Child {
    Command::new("sh")
        .args(["-c", script])
        .process_group(0)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_group_of_a_dead_workers_program_is_killed() {
    for leader in [Leader::MayBeGone, Leader::MustLive] {
        let directory = TestDir::new();
        let mut child = program("exec sleep 60");

        remains_of(&directory, child.id()).kill_groups(leader);

        assert_eq!(child.wait().unwrap().signal(), Some(9), "{leader:?}");
    }
}

/// Goal: a number that another program has by now is left alone, however fresh the file is.
#[test]
fn a_group_whose_leader_started_at_another_time_is_left_alone() {
    for leader in [Leader::MayBeGone, Leader::MustLive] {
        let directory = TestDir::new();
        let mut child = program("exec sleep 60");
        let path = in_hand::path(directory.path(), "worker-00");
        drop(remains_of(&directory, child.id()));
        let earlier = in_hand::started_ticks(child.id()).unwrap() - 1;
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&earlier.to_ne_bytes(), STARTED_AT)
            .unwrap();

        Remains::take(&path).unwrap().kill_groups(leader);

        // A signal would have been delivered before this one.
        signal_pid(child.id(), Signal::TERM);
        assert_eq!(child.wait().unwrap().signal(), Some(15), "{leader:?}");
    }
}

/// Goal: where the leader has ended, its group is killed as long as the number surely means that
/// group, and not later.
#[test]
fn a_group_that_has_lost_its_leader_is_killed_only_where_that_was_a_moment_ago() {
    let directory = TestDir::new();
    let mut child = program("read line; sleep 60 & exit 0");
    let group = child.id();
    let remains = remains_of(&directory, group);
    child.wait().unwrap();
    let left = || process::in_group(group);
    wait_until("only the leader has ended", || left().len() == 1);

    remains.kill_groups(Leader::MustLive);
    assert_eq!(left().len(), 1);
    remains.kill_groups(Leader::MayBeGone);

    wait_until("the rest of the group is gone", || left().is_empty());
}

/// Goal: a worker that makes its file while a supervisor looks for what dead workers left gets its
/// file.
#[test]
fn a_file_that_is_being_made_is_not_taken_for_one_that_was_left() {
    let directory = TestDir::new();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Two of them: one may have opened a file that the other has removed since.
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    in_hand::files(directory.path(), "here");
                }
            });
        }
        let made: Result<(), std::io::Error> = (0..5000).try_for_each(|n| {
            let file = InHandFile::create(directory.path(), &format!("worker-{n}"), &owner())?;
            file.remove();
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        made.unwrap();
    });
    assert!(directory.entries().is_empty());
}

#[test]
fn what_a_worker_left_that_died_before_it_named_its_file_is_removed() {
    let directory = TestDir::new();
    std::fs::write(directory.file("worker-00.tmp"), "").unwrap();

    assert!(in_hand::files(directory.path(), "here").is_empty());

    assert!(directory.entries().is_empty());
}
