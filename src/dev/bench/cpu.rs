//! CPU time of the daemon, as /proc counts it.

use rustix::param::clock_ticks_per_second;

use crate::system::process::{Stat, children};

/// CPU seconds that a supervisor, its workers, and the ended processes that it has reaped have used
/// so far.
pub(super) fn seconds_of(supervisor: u32) -> f64 {
    let own = Stat::of(supervisor).map_or(0, |stat| stat.own_ticks + stat.reaped_ticks);
    let workers: u64 = children(supervisor)
        .into_iter()
        .filter_map(Stat::of)
        .map(|stat| stat.own_ticks)
        .sum();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run takes seconds, thousands of ticks at most"
    )]
    let seconds = (own + workers) as f64 / clock_ticks_per_second() as f64;
    seconds
}
