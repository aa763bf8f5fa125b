//! Everything that the supervisor publishes, for `http` to show.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::status::history::History;
use crate::status::looks::Looks;
use crate::status::metrics::Fleet;
use crate::status::state::{Health, lock};

/// Everything that the supervisor publishes.
#[derive(Clone)]
pub struct Published {
    /// The state of the daemon.
    pub health: Health,
    /// The looks at the database, whose findings are part of that state.
    pub looks: Looks,
    fleet: Arc<Mutex<Fleet>>,
    /// `None` before the first.
    statistics: Arc<Mutex<Option<TableStatistics>>>,
    history: Arc<Mutex<History>>,
}

impl Published {
    /// The state of a daemon with this many workers, none of which runs yet.
    pub fn new(processes: u16) -> Published {
        let health = Health::new(processes);
        Published {
            looks: Looks::new(health.clone()),
            health,
            fleet: Arc::new(Mutex::new(Fleet::new(processes))),
            statistics: Arc::default(),
            history: Arc::new(Mutex::new(History::new(Instant::now()))),
        }
    }

    /// The sum of all workers' metrics.
    pub fn fleet(&self) -> MutexGuard<'_, Fleet> {
        lock(&self.fleet)
    }

    /// What was done in the last minutes.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// Publishes new statistics of the table.
    pub fn publish_statistics(&self, statistics: TableStatistics) {
        *lock(&self.statistics) = Some(statistics);
    }

    /// The last statistics of the table, or `None` when it is too old to describe the table now:
    /// while the database is away, the counts are unknown.
    pub fn fresh_statistics(&self) -> Option<TableStatistics> {
        lock(&self.statistics)
            .clone()
            .filter(|statistics| statistics.taken_at.elapsed() < TableStatistics::FRESH)
    }
}

/// The numbers of waiting and dead events in the table, which the supervisor collects from time to
/// time at a bounded cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStatistics {
    /// Due events that are not claimed, counted no further than the cap.
    pub backlog: u64,
    /// Events that cannot be read, and are passed over.
    pub unreadable: u64,
    /// There may be more due events than were counted.
    pub is_backlog_capped: bool,
    /// How long the oldest of them has been due; zero when there is none.
    pub oldest_due_age: Duration,
    /// Events that wait for their time, counted no further than the cap; `None` when counting them
    /// took too long.
    pub not_due: Option<u64>,
    /// There may be more of them than were counted.
    pub is_not_due_capped: bool,
    /// Time until the first of them is due; `None` when there is none, or it is never due.
    pub first_due_in: Option<Duration>,
    /// Dead events by type, as the rows spell it, the most frequent first, counted no further than
    /// the cap; `None` when counting them took too long.
    pub dead: Option<Vec<(String, u64)>>,
    /// There may be more dead events than were counted.
    pub is_dead_capped: bool,
    /// When the events were counted.
    pub taken_at: Instant,
}

impl TableStatistics {
    /// A survey that is older than this no longer describes the table: it is longer than the
    /// longest wait between two surveys.
    pub const FRESH: Duration = Duration::from_mins(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_statistics_say_nothing_about_now() {
        let published = Published::new(1);
        let publish = |age: Duration| {
            let statistics = TableStatistics {
                backlog: 7,
                unreadable: 0,
                is_backlog_capped: false,
                oldest_due_age: Duration::ZERO,
                not_due: None,
                is_not_due_capped: false,
                first_due_in: None,
                dead: None,
                is_dead_capped: false,
                taken_at: Instant::now()
                    .checked_sub(age)
                    .expect("a machine runs for longer before it runs tests"),
            };
            published.publish_statistics(statistics);
        };
        assert_eq!(published.fresh_statistics(), None);

        publish(Duration::from_secs(1));
        let fresh = published
            .fresh_statistics()
            .map(|statistics| statistics.backlog);
        assert_eq!(fresh, Some(7));

        publish(TableStatistics::FRESH);
        assert_eq!(published.fresh_statistics(), None);
    }
}
