//! Everything that the supervisor publishes, for `http` to show.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::status::history::History;
use crate::status::looks::Looks;
use crate::status::metrics::{Fleet, TableStatistics};
use crate::status::state::{Health, lock};

/// Everything that the supervisor publishes.
#[derive(Clone)]
pub struct Published {
    /// The state of the daemon.
    pub health: Health,
    /// The looks at the database, whose findings are part of that state.
    pub looks: Looks,
    fleet: Arc<Mutex<Fleet>>,
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

    /// The last statistics of the table, or `None` if they are too old to describe the table now:
    /// while the database is away, the counts are unknown.
    pub fn fresh_statistics(&self) -> Option<TableStatistics> {
        let fleet = self.fleet();
        fleet.table().filter(|table| table.is_fresh()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn old_statistics_say_nothing_about_now() {
        let published = Published::new(1);
        let publish = |age: Duration| {
            let taken_at = Instant::now().checked_sub(age);
            let taken_at = taken_at.expect("a machine runs for longer before it runs tests");
            let statistics = TableStatistics {
                backlog: 7,
                ..TableStatistics::of_empty_table(taken_at)
            };
            published.fleet().set_table(statistics);
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
