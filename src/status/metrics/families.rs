//! Metric families that are built by hand: the values that the supervisor shows are in no registry,
//! because they are sums over other processes or were read from the database.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::domain::protocol::Value;
use crate::status::metrics::Kind;

/// One metric with all its time series.
pub(super) fn family(name: &str, kind: Kind, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(match kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

/// One time series.
pub(super) fn metric(labels: &[(String, String)], value: &Value) -> Metric {
    let pairs = labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        })
        .collect();
    let mut metric = Metric::from_label(pairs);
    match value {
        Value::Counter(value) => {
            let mut counter = Counter::default();
            counter.set_value(*value);
            metric.set_counter(counter);
        }
        Value::Gauge(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(*value);
            metric.set_gauge(gauge);
        }
        Value::Histogram {
            buckets,
            count,
            sum,
        } => {
            let mut histogram = Histogram::default();
            histogram.set_bucket(
                buckets
                    .iter()
                    .map(|&(bound, below)| bucket(bound, below))
                    .collect(),
            );
            histogram.set_sample_count(*count);
            histogram.set_sample_sum(*sum);
            metric.set_histogram(histogram);
        }
    }
    metric
}

fn bucket(upper_bound: f64, cumulative_count: u64) -> Bucket {
    let mut bucket = Bucket::default();
    bucket.set_upper_bound(upper_bound);
    bucket.set_cumulative_count(cumulative_count);
    bucket
}

/// A count as Prometheus has it.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus values are doubles; a count above 2^53 is out of reach"
)]
pub(super) fn to_f64(count: u64) -> f64 {
    count as f64
}
