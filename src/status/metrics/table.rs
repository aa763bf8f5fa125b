//! Gauges of the last survey of the table.
//!
//! They are left out once the survey is too old: a number from before an outage would look like the
//! present, and an alert on a missing gauge is one line of Prometheus (`absent`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;

use crate::domain::protocol::Value;
use crate::status::metrics::Kind;
use crate::status::metrics::families::{family, metric, to_f64};

/// Counts of a survey of the table.
#[derive(Debug, Clone)]
pub struct TableGauges {
    /// Due events that are not claimed.
    pub backlog: u64,
    /// Events that cannot be read, and are passed over.
    pub unreadable: u64,
    /// There may be more due events.
    pub is_backlog_capped: bool,
    /// How long the oldest of them has been due.
    pub oldest_due_age: Duration,
    /// Dead events by the pattern of their route; `None` when they could not be counted.
    pub dead: Option<BTreeMap<String, u64>>,
    /// There may be more of them.
    pub is_dead_capped: bool,
    /// From this time on the counts no longer describe the table.
    pub valid_until: Instant,
}

impl TableGauges {
    /// The families of these gauges; none once they are too old.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        if Instant::now() >= self.valid_until {
            return Vec::new();
        }
        let gauge = |name, help, value| {
            let series = vec![metric(&[], &Value::Gauge(value))];
            family(name, Kind::Gauge, help, series)
        };
        let flag = |is_set| f64::from(u8::from(is_set));
        let dead = self.dead.iter().flatten().map(|(pattern, &n_events)| {
            let label = [("event_type".to_owned(), pattern.clone())];
            metric(&label, &Value::Gauge(to_f64(n_events)))
        });
        vec![
            gauge(
                "dispatchbox_backlog_events",
                "Due events in the table that nobody has claimed, counted up to 100000; missing when not counted for a minute.",
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

    fn shown(valid: Duration, dead: Option<BTreeMap<String, u64>>) -> String {
        let mut fleet = Fleet::new(1);
        fleet.set_table(TableGauges {
            backlog: 7,
            unreadable: 0,
            is_backlog_capped: false,
            oldest_due_age: Duration::from_millis(1500),
            dead,
            is_dead_capped: true,
            valid_until: Instant::now() + valid,
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

        let now = shown(Duration::from_mins(1), dead.clone());
        let later = shown(Duration::ZERO, dead);

        assert!(lines.iter().all(|line| now.contains(line)), "{now}");
        assert!(!later.contains("backlog"), "{later}");
        assert!(!later.contains("oldest"), "{later}");
        assert!(!later.contains("dead_events{"), "{later}");
    }

    #[test]
    fn dead_events_that_could_not_be_counted_are_no_zero() {
        let text = shown(Duration::from_mins(1), None);

        assert!(!text.contains("dispatchbox_dead_events "), "{text}");
        assert!(!text.contains("dispatchbox_dead_events{"), "{text}");
        assert!(
            text.contains("dispatchbox_dead_events_capped 1\n"),
            "{text}"
        );
        assert!(text.contains("dispatchbox_backlog_events 7\n"), "{text}");
    }
}
