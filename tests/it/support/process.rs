//! Processes as /proc shows them. A zombie counts as gone: orphans' zombies can stay for seconds
//! under some init.

use std::fs;
use std::path::PathBuf;

use dispatchbox::system::process::Stat;

/// Says whether a process runs.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Says whether a process is stopped (SIGSTOP).
pub fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// Lists the running children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let mut pids: Vec<u32> = all()
        .into_iter()
        .filter(|&pid| stat(pid).is_some_and(|(state, ppid)| state != 'Z' && ppid == parent))
        .collect();
    pids.sort_unstable();
    pids
}

/// Lists the running processes whose environment holds the text: what a program has started,
/// however it has hidden since.
pub fn with_environment(text: &str) -> Vec<u32> {
    all()
        .into_iter()
        .filter(|&pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        })
        .filter(|&pid| is_alive(pid))
        .collect()
}

/// Lists the running processes that have the text in an argument.
pub fn with_argument(text: &str) -> Vec<u32> {
    all()
        .into_iter()
        .filter(|&pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        })
        .filter(|&pid| is_alive(pid))
        .collect()
}

/// Lists the running processes of a group.
pub fn in_group(group: u32) -> Vec<u32> {
    all()
        .into_iter()
        .filter(|&pid| Stat::of(pid).is_some_and(|stat| stat.group == group && stat.state != 'Z'))
        .collect()
}

/// The program a process runs.
pub fn program(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn all() -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Reads state and parent; the name before them may hold blanks and parentheses.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
