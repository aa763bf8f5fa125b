//! One line a minute while events flow: what was done, and what waits.
//!
//! The line shows the number of failed attempts, which are logged one by one only when the event is
//! dead. No line is logged when nothing was done and nothing waits, so a healthy idle daemon logs
//! nothing.

use std::time::{Duration, Instant};

use log::info;

use crate::status::history::Totals;
use crate::status::metrics::TableStatistics;

/// Often enough for a log, and rare enough beside everything else in it.
const EVERY: Duration = Duration::from_mins(1);

/// Logs what was done since the last line.
pub(super) struct Summary {
    logged_at: Instant,
    before: Totals,
}

impl Summary {
    /// Makes a summary that begins now, with nothing done.
    pub(super) fn new(now: Instant) -> Summary {
        Summary {
            logged_at: now,
            before: Totals::default(),
        }
    }

    /// Logs the line when it is due.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        totals: Totals,
        statistics: Option<&TableStatistics>,
    ) {
        if let Some(line) = self.line(now, totals, statistics) {
            info!("{line}");
        }
    }

    fn line(
        &mut self,
        now: Instant,
        totals: Totals,
        statistics: Option<&TableStatistics>,
    ) -> Option<String> {
        let since = now.saturating_duration_since(self.logged_at);
        if since < EVERY {
            return None;
        }
        let before = std::mem::replace(&mut self.before, totals);
        self.logged_at = now;
        let is_idle =
            totals == before && statistics.is_none_or(|statistics| statistics.backlog == 0);
        if is_idle {
            return None;
        }
        let backlog = match statistics {
            None => "backlog unknown".to_owned(),
            Some(statistics) if statistics.backlog == 0 => "backlog 0".to_owned(),
            Some(statistics) => format!(
                "backlog {}{}, oldest due for {:.0} s",
                statistics.backlog,
                if statistics.is_backlog_capped {
                    " or more"
                } else {
                    ""
                },
                statistics.oldest_due_age.as_secs_f64()
            ),
        };
        Some(format!(
            "in the last {:.0} s: claimed {}, done {}, retried {}, dead {}; {backlog}",
            since.as_secs_f64(),
            totals.claimed.saturating_sub(before.claimed),
            totals.done.saturating_sub(before.done),
            totals.retry.saturating_sub(before.retry),
            totals.dead.saturating_sub(before.dead),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(claimed: u64, done: u64) -> Totals {
        Totals {
            claimed,
            done,
            retry: 3,
            dead: 1,
            released: 0,
        }
    }

    fn statistics(backlog: u64, taken_at: Instant) -> TableStatistics {
        TableStatistics {
            backlog,
            is_backlog_capped: backlog >= 100_000,
            oldest_due_age: Duration::from_millis(backlog * 100),
            ..TableStatistics::of_empty_table(taken_at)
        }
    }

    #[test]
    fn each_minute_tells_its_own_events_and_what_waits() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut summary = Summary::new(start);

        let statistics = |backlog| statistics(backlog, start);
        assert_eq!(summary.line(after(59), totals(9, 5), None), None);
        assert_eq!(
            summary.line(after(60), totals(10, 6), Some(&statistics(40))),
            Some("in the last 60 s: claimed 10, done 6, retried 3, dead 1; backlog 40, oldest due for 4 s".to_owned())
        );
        assert_eq!(summary.line(after(119), totals(11, 6), None), None);
        assert_eq!(
            summary.line(after(121), totals(11, 8), Some(&statistics(100_000))),
            Some(
                "in the last 61 s: claimed 1, done 2, retried 0, dead 0; backlog 100000 or more, oldest due for 10000 s"
                    .to_owned()
            )
        );
        assert_eq!(
            summary.line(after(181), totals(12, 8), None),
            Some(
                "in the last 60 s: claimed 1, done 0, retried 0, dead 0; backlog unknown"
                    .to_owned()
            )
        );
    }

    #[test]
    fn an_idle_minute_is_silent_and_a_standing_backlog_is_not() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut summary = Summary::new(start);
        assert!(summary.line(after(60), totals(10, 6), None).is_some());

        assert_eq!(summary.line(after(120), totals(10, 6), None), None);
        assert_eq!(
            summary.line(after(180), totals(10, 6), Some(&statistics(0, start))),
            None
        );
        assert!(
            summary
                .line(after(240), totals(10, 6), Some(&statistics(7, start)))
                .is_some()
        );
    }
}
