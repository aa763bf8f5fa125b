//! CPU time of the daemon, as /proc counts it.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// CPU seconds that a supervisor, its workers and those that it has buried have used so far.
pub(super) fn seconds_of(supervisor: u32) -> f64 {
    let own = ticks(supervisor).map_or(0, |ticks| ticks.own + ticks.buried);
    let workers: u64 = children(supervisor)
        .into_iter()
        .filter_map(ticks)
        .map(|ticks| ticks.own)
        .sum();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run takes seconds, thousands of ticks at most"
    )]
    let seconds = (own + workers) as f64 / clock_ticks_per_second() as f64;
    seconds
}

struct Ticks {
    own: u64,
    buried: u64,
}

/// Reads the fields utime, stime, cutime and cstime; the name before them may hold blanks and parentheses.
fn ticks(pid: u32) -> Option<Ticks> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Ticks {
        own: field(11)? + field(12)?,
        buried: field(13)? + field(14)?,
    })
}

/// A child belongs to the thread that has forked it, so all threads are asked.
fn children(parent: u32) -> Vec<u32> {
    fs::read_dir(format!("/proc/{parent}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}
