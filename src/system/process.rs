//! Processes as /proc shows them; the ends of our children; and the groups and orphans that
//! handlers leave behind.
//!
//! Groups and sessions are read from /proc and not asked of the kernel: a session that began
//! outside this process's namespace (a shell that entered a container) has the number 0, which
//! rustix 1.1.6 takes for impossible and aborts on.

use std::fs;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// Kills a process group. A group that has ended already is no error.
pub fn kill_group(group: u32) {
    if let Some(pid) = pid(group) {
        // The only other error is that the group belongs to another user, and then it is not ours
        // to kill.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// The variable that marks the programs of a worker in their environment.
pub const MARK: &str = "DISPATCHBOX_WORKER";

/// Kills the programs that a worker which is gone was running, known by their mark.
///
/// The groups in its in-hand file are not enough: it may have died between a program's start and
/// the note of its group. A program that left its session did so to outlive its handler, and is
/// left alone.
pub fn kill_programs_of(worker: &str) {
    let mark = format!("{MARK}={worker}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let numbers = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for number in numbers.filter(|&number| is_marked(number, mark.as_bytes())) {
        if Stat::of(number).is_some_and(|stat| stat.group == number && stat.session != number) {
            kill_group(number);
        }
    }
}

/// Says whether the process's environment holds this mark; the environment of other users'
/// processes cannot be read.
fn is_marked(process: u32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{process}/environ")).is_ok_and(|environment| {
        environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == mark)
    })
}

/// Makes this process the parent of orphans below it, so that it can see and reap them.
pub fn become_subreaper() {
    // Without it orphans go to init, which reaps them as well.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Reaps the ended children of this process that `is_known` does not claim: orphans of handlers
/// that their worker left behind.
pub fn reap_orphans(is_known: impl Fn(u32) -> bool) {
    for child in children(std::process::id())
        .into_iter()
        .filter(|&child| !is_known(child))
    {
        if let Some(pid) = pid(child) {
            let _ = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }
}

/// Says whether this child of ours has ended, without reaping it: until then its number cannot be
/// reused.
pub fn has_ended(child: u32) -> bool {
    let Some(pid) = pid(child) else { return true };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    // An error says that there is no such child: it was reaped already.
    waitid(WaitId::Pid(pid), options).map_or(true, |status| status.is_some())
}

/// Lists the children of a process. A child belongs to the thread that has forked it, so all
/// threads are asked.
pub fn children(parent: u32) -> Vec<u32> {
    fs::read_dir(format!("/proc/{parent}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// What /proc says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `Z` is a zombie; see proc(5) for the others.
    pub state: char,
    /// Its process group; 0 when that began outside our namespace.
    pub group: u32,
    /// Its session; 0 when that began outside our namespace.
    pub session: u32,
    /// CPU time it has used, in clock ticks.
    pub own_ticks: u64,
    /// CPU time that the children it has waited for had used, in clock ticks.
    pub reaped_ticks: u64,
    /// When it started, in clock ticks since boot.
    pub started_ticks: u64,
    /// Memory that it holds in RAM, in pages.
    pub resident_pages: u64,
}

impl Stat {
    /// Reads what /proc says of the process; `None` when there is no such process.
    pub fn of(process: u32) -> Option<Stat> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The command's name may hold blanks and parentheses; the fields go on behind the last one.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            own_ticks: number(11)? + number(12)?,
            reaped_ticks: number(13)? + number(14)?,
            started_ticks: number(19)?,
            resident_pages: number(21)?,
        })
    }
}

fn pid(number: u32) -> Option<Pid> {
    // A signal to group 0 would reach our own group, and one to group 1 (`-1`) every process.
    i32::try_from(number)
        .ok()
        .filter(|&number| number > 1)
        .and_then(Pid::from_raw)
}

/// Waits until this child of ours has ended, without reaping it.
pub fn wait_for_end(child: u32) {
    if let Some(pid) = pid(child) {
        // An error says that there is no such child: it was reaped already.
        let _ = waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
    }
}
