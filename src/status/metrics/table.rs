//! The statistics of the table, and their gauges.
//!
//! The gauges are left out once the statistics are too old: a number from before an outage would look like the
//! present, and an alert on a missing gauge is one line of Prometheus (`absent`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;

use crate::domain::protocol::Value;
use crate::status::metrics::Kind;
use crate::status::metrics::families::{family, metric, to_f64};

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
    /// The same numbers by the pattern of their route.
    pub dead_by_route: Option<BTreeMap<String, u64>>,
    /// There may be more dead events than were counted.
    pub is_dead_capped: bool,
    /// When the events were counted.
    pub taken_at: Instant,
}

impl TableStatistics {
    /// Statistics that are older than this no longer describe the table: it is longer than the longest
    /// wait between two collections.
    pub const FRESH: Duration = Duration::from_mins(1);

    /// Says whether the statistics still describe the table.
    pub fn is_fresh(&self) -> bool {
        self.taken_at.elapsed() < TableStatistics::FRESH
    }

    /// Statistics of an empty table.
    #[cfg(test)]
    pub fn of_empty_table(taken_at: Instant) -> TableStatistics {
        TableStatistics {
            backlog: 0,
            unreadable: 0,
            is_backlog_capped: false,
            oldest_due_age: Duration::ZERO,
            not_due: None,
            is_not_due_capped: false,
            first_due_in: None,
            dead: None,
            dead_by_route: None,
            is_dead_capped: false,
            taken_at,
        }
    }

    /// The families of the gauges; none once they are too old.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        if !self.is_fresh() {
            return Vec::new();
        }
        let gauge = |name, help, value| {
            let series = vec![metric(&[], &Value::Gauge(value))];
            family(name, Kind::Gauge, help, series)
        };
        let flag = |is_set| f64::from(u8::from(is_set));
        let dead = self
            .dead_by_route
            .iter()
            .flatten()
            .map(|(pattern, &n_events)| {
                let label = [("event_type".to_owned(), pattern.clone())];
                metric(&label, &Value::Gauge(to_f64(n_events)))
            });
        vec![
            gauge(
                "dispatchbox_backlog_events",
                "Due events in the table that are not claimed, counted up to 100000; missing when not counted for a minute.",
                to_f64(self.backlog),
            ),
            gauge(
                "dispatchbox_backlog_capped",
                "1 when counting the backlog ended at its limit: there may be more.",
                flag(self.is_backlog_capped),
            ),
            gauge(
                "dispatchbox_events_unreadable",
                "Events in the table that cannot be read: claims pass over them until the next look.",
                to_f64(self.unreadable),
            ),
            gauge(
                "dispatchbox_oldest_due_age_seconds",
                "How long the oldest event of the backlog has been due; 0 without any.",
                self.oldest_due_age.as_secs_f64(),
            ),
            family(
                "dispatchbox_dead_events",
                Kind::Gauge,
                "Dead events in the table, by route, the newest 100000 at most; missing when not counted for a minute.",
                dead.collect(),
            ),
            gauge(
                "dispatchbox_dead_events_capped",
                "1 when counting the dead events ended at its limit: there may be more.",
                flag(self.is_dead_capped),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::metrics::Fleet;

    fn shown(age: Duration, dead_by_route: Option<BTreeMap<String, u64>>) -> String {
        let taken_at = Instant::now().checked_sub(age);
        let taken_at = taken_at.expect("a machine runs for longer before it runs tests");
        let mut fleet = Fleet::new(1);
        fleet.set_table(TableStatistics {
            backlog: 7,
            oldest_due_age: Duration::from_millis(1500),
            dead_by_route,
            is_dead_capped: true,
            ..TableStatistics::of_empty_table(taken_at)
        });
        fleet.render().expect("it renders")
    }

    #[test]
    fn what_is_too_old_is_not_shown() {
        let lines = [
            "dispatchbox_backlog_events 7\n",
            "dispatchbox_oldest_due_age_seconds 1.5\n",
        ];
        let dead = Some(BTreeMap::from([("order.*".to_owned(), 2)]));

        let now = shown(Duration::ZERO, dead.clone());
        let later = shown(TableStatistics::FRESH, dead);

        assert!(lines.iter().all(|line| now.contains(line)), "{now}");
        assert!(!later.contains("backlog"), "{later}");
        assert!(!later.contains("oldest"), "{later}");
        assert!(!later.contains("dead_events{"), "{later}");
    }

    #[test]
    fn dead_events_that_could_not_be_counted_are_no_zero() {
        let text = shown(Duration::ZERO, None);

        assert!(!text.contains("dispatchbox_dead_events "), "{text}");
        assert!(!text.contains("dispatchbox_dead_events{"), "{text}");
        assert!(
            text.contains("dispatchbox_dead_events_capped 1\n"),
            "{text}"
        );
        assert!(text.contains("dispatchbox_backlog_events 7\n"), "{text}");
    }
}
