//! The registry of a process: makes the metrics that a list describes, and reads their values.

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::domain::protocol::{Series, Snapshot, Value};
use crate::status::metrics::Kind;

/// The name, kind and help text of a metric.
pub(super) type Described = (&'static str, Kind, &'static str);

/// A registry whose metrics have the help texts of a list. Cheap to clone: the values are shared.
#[derive(Clone)]
pub(super) struct Catalog {
    registry: Registry,
    described: &'static [Described],
}

impl Catalog {
    /// Makes a registry without any metric yet.
    pub(super) fn new(described: &'static [Described]) -> Catalog {
        Catalog {
            registry: Registry::new(),
            described,
        }
    }

    pub(super) fn counter(&self, name: &str) -> Result<IntCounter, Error> {
        self.register(IntCounter::with_opts(self.opts(name))?)
    }

    pub(super) fn counter_vec(&self, name: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.register(IntCounterVec::new(self.opts(name), labels)?)
    }

    pub(super) fn gauge(&self, name: &str) -> Result<IntGauge, Error> {
        self.register(IntGauge::with_opts(self.opts(name))?)
    }

    pub(super) fn gauge_vec(&self, name: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.register(IntGaugeVec::new(self.opts(name), labels)?)
    }

    pub(super) fn histogram(&self, name: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.register(Histogram::with_opts(self.histogram_opts(name, buckets))?)
    }

    pub(super) fn histogram_vec(
        &self,
        name: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, Error> {
        self.register(HistogramVec::new(
            self.histogram_opts(name, buckets),
            labels,
        )?)
    }

    /// The values now, for a report.
    pub(super) fn snapshot(&self) -> Snapshot {
        let series = self.registry.gather().iter().flat_map(series_of).collect();
        Snapshot { series }
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, Error> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn opts(&self, name: &str) -> Opts {
        Opts::new(name, self.help(name))
    }

    fn histogram_opts(&self, name: &str, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts::new(name, self.help(name)).buckets(buckets.to_vec())
    }

    fn help(&self, name: &str) -> &'static str {
        let found = self.described.iter().find(|(known, _, _)| *known == name);
        found
            .expect("a metric that is registered stands in its list")
            .2
    }
}

fn series_of(family: &MetricFamily) -> Vec<Series> {
    let kind = family.get_field_type();
    let value_of = |metric: &Metric| match kind {
        MetricType::COUNTER => Some(Value::Counter(metric.get_counter().get_value())),
        MetricType::GAUGE => Some(Value::Gauge(metric.get_gauge().get_value())),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            Some(Value::Histogram {
                buckets: histogram
                    .get_bucket()
                    .iter()
                    .filter(|bucket| bucket.upper_bound().is_finite())
                    .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                    .collect(),
                count: histogram.get_sample_count(),
                sum: histogram.get_sample_sum(),
            })
        }
        MetricType::SUMMARY | MetricType::UNTYPED => None,
    };
    family
        .get_metric()
        .iter()
        .filter_map(|metric| {
            Some(Series {
                name: family.name().to_owned(),
                labels: metric
                    .get_label()
                    .iter()
                    .map(|label| (label.name().to_owned(), label.value().to_owned()))
                    .collect(),
                value: value_of(metric)?,
            })
        })
        .collect()
}
