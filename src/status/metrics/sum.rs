//! The sum of time series over several workers.

use std::collections::BTreeMap;

use prometheus::proto::Metric;

use crate::domain::protocol::{Snapshot, Value, has_labels};
use crate::status::metrics::families::metric;

/// The name and the labels of a time series.
type SeriesKey = (String, Vec<(String, String)>);

/// The sum of the values of each time series.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum(BTreeMap<SeriesKey, Value>);

impl Sum {
    /// Adds the wanted values of a worker.
    pub(super) fn add(&mut self, snapshot: &Snapshot, is_wanted: impl Fn(&Value) -> bool) {
        for series in &snapshot.series {
            if is_wanted(&series.value) {
                let key = (series.name.clone(), series.labels.clone());
                let so_far = self.0.entry(key);
                so_far
                    .and_modify(|so_far| add_value(so_far, &series.value))
                    .or_insert_with(|| series.value.clone());
            }
        }
    }

    /// The sum of a counter over the time series that have all these labels.
    pub(super) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let series = self.0.iter();
        series
            .filter(|((known, has), _)| known == name && has_labels(has, labels))
            .map(|(_, value)| value.whole())
            .sum()
    }

    /// The time series of the metric with this name.
    pub(super) fn metrics(&self, name: &str) -> Vec<Metric> {
        self.0
            .range((name.to_owned(), Vec::new())..)
            .take_while(|((found, _), _)| found == name)
            .map(|((_, labels), value)| metric(labels, value))
            .collect()
    }
}

fn add_value(so_far: &mut Value, value: &Value) {
    match (so_far, value) {
        (Value::Counter(so_far), Value::Counter(more))
        | (Value::Gauge(so_far), Value::Gauge(more)) => *so_far += more,
        (
            Value::Histogram {
                buckets,
                count,
                sum,
            },
            Value::Histogram {
                buckets: more_buckets,
                count: more_count,
                sum: more_sum,
            },
        ) => {
            // All workers are the same program, so their buckets have the same bounds in the same
            // order.
            for (bucket, more) in buckets.iter_mut().zip(more_buckets) {
                bucket.1 += more.1;
            }
            *count += more_count;
            *sum += more_sum;
        }
        // One name has one kind; a value of another kind is not added.
        (Value::Counter(_) | Value::Gauge(_) | Value::Histogram { .. }, _) => {}
    }
}
