//! Processes that are not our workers: the groups that exec handlers run in, and orphans that were handed to us.

use std::fs;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgid, getsid, kill_process_group, waitid,
};

/// Kills a process group. That it is gone already is as good.
pub fn kill_group(group: u32) {
    if let Some(pid) = pid(group) {
        // The only other error is that it belongs to another user, and then it is not ours to kill.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Marks the programs of a worker, in their environment.
pub const MARK: &str = "DISPATCHBOX_WORKER";

/// Kills the programs that a worker which is gone was running, known by their mark.
///
/// The groups in its in-hand file are not enough: it may have died between a program's start and the note of its group. A program
/// that left its session did so to outlive its handler, and is left alone.
pub fn kill_programs_of(worker: &str) {
    let mark = format!("{MARK}={worker}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let numbers = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for number in numbers.filter(|&number| is_marked(number, mark.as_bytes())) {
        let Some(process) = pid(number) else { continue };
        let is_leader = getpgid(Some(process)).is_ok_and(|group| group == process);
        let is_in_session = getsid(Some(process)).is_ok_and(|session| session != process);
        if is_leader && is_in_session {
            kill_group(number);
        }
    }
}

/// Says whether this stands in the process's environment; that of other users cannot be read.
fn is_marked(process: u32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{process}/environ")).is_ok_and(|environment| {
        environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == mark)
    })
}

/// Makes this process the one that orphans below it are handed to, so that it can see and reap them.
pub fn become_subreaper() {
    // Without it orphans go to init, which reaps them as well.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Reaps the ended children of this process that `is_known` does not claim: orphans of handlers that their worker left behind.
pub fn reap_orphans(is_known: impl Fn(u32) -> bool) {
    for child in children().into_iter().filter(|&child| !is_known(child)) {
        if let Some(pid) = pid(child) {
            let _ = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }
}

/// Says whether this child of ours has ended, without reaping it: until then its number cannot be reused.
pub fn has_ended(child: u32) -> bool {
    let Some(pid) = pid(child) else { return true };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    // An error says that there is no such child: it was reaped already.
    waitid(WaitId::Pid(pid), options).map_or(true, |status| status.is_some())
}

fn children() -> Vec<u32> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .filter_map(Result::ok)
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn pid(number: u32) -> Option<Pid> {
    // Groups 0 and 1 would be our own and everybody's.
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
