//! Processes as /proc shows them.

use std::fs;

use rustix::process::Pid;

/// Says whether the process runs; a zombie does not.
pub(super) fn is_alive(pid: Pid) -> bool {
    stat_of(pid.as_raw_nonzero().get()).is_some_and(|(state, _)| state != 'Z')
}

/// Lists the children of a process.
pub(super) fn children_of(parent: Pid) -> Vec<Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| stat_of(pid).is_some_and(|(_, ppid)| ppid == parent.as_raw_nonzero().get()))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Reads state and parent of a process; the name before them may hold blanks and parentheses.
fn stat_of(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
