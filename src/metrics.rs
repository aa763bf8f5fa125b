//! All metrics: names, help texts, what a worker counts, and how the supervisor adds workers up.
//!
//! A worker counts in its own registry and sends the values with each report. The supervisor sums what the living ones say and
//! what the ended ones said last, so a counter never runs backwards when a worker is replaced; at most the last second of a killed
//! worker's counting is missing. Labels come from bounded sets only: event types are the patterns of the routes, all else is
//! `other`.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as HistogramValue, LabelPair, Metric, MetricFamily,
    MetricType,
};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::report::{Series, Snapshot, Value};

/// The label of events that no route takes.
pub const OTHER: &str = "other";

/// The media type of the text that [`Fleet::render`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds; a handler takes from a fraction of a millisecond (a log line) to its timeout.
const HANDLER_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Seconds from insert to done: from the latency of an idle system to hours of backlog.
const LATENCY_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0, 21_600.0, 86_400.0,
];

/// Events per claim.
const CLAIM_EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 900.0];

/// Attempts when an event died.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0];

/// Name, kind and help of every metric that workers send.
const WORKER_METRICS: &[(&str, Kind, &str)] = &[
    (
        "dispatchbox_events_claimed_total",
        Kind::Counter,
        "Events claimed.",
    ),
    (
        "dispatchbox_events_settled_total",
        Kind::Counter,
        "Outcomes written, by outcome and route.",
    ),
    (
        "dispatchbox_events_in_flight",
        Kind::Gauge,
        "Events claimed and not settled.",
    ),
    (
        "dispatchbox_handler_duration_seconds",
        Kind::Histogram,
        "Run time of handlers, by route and outcome.",
    ),
    (
        "dispatchbox_delivery_latency_seconds",
        Kind::Histogram,
        "Time from the insert of an event to its being done.",
    ),
    (
        "dispatchbox_claim_batch_size",
        Kind::Histogram,
        "Events per claim that found any.",
    ),
    (
        "dispatchbox_dead_events_total",
        Kind::Counter,
        "Events that became dead, by route.",
    ),
    (
        "dispatchbox_event_attempts_before_dead",
        Kind::Histogram,
        "Attempts that events had used when they became dead.",
    ),
    (
        "dispatchbox_leases_lost_total",
        Kind::Counter,
        "Outcomes that were not written because the event's lease was gone.",
    ),
    (
        "dispatchbox_events_missing_total",
        Kind::Counter,
        "Outcomes that were not written because the event's row was gone or already finished by somebody else.",
    ),
    (
        "dispatchbox_lease_sweeps_total",
        Kind::Counter,
        "Expired leases that were ended.",
    ),
    (
        "dispatchbox_handlers_stuck",
        Kind::Gauge,
        "Handlers that run longer than their timeout.",
    ),
    (
        "dispatchbox_db_errors_total",
        Kind::Counter,
        "Failed database calls, by reason.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What one worker counts. Cheap to clone: the values are shared.
#[derive(Clone)]
pub struct WorkerMetrics {
    registry: Registry,
    /// Events claimed.
    pub claimed: IntCounter,
    /// Events claimed and not settled.
    pub in_flight: IntGauge,
    /// Events per claim.
    pub claim_batch_size: prometheus::Histogram,
    /// Insert to done.
    pub delivery_latency: prometheus::Histogram,
    /// Attempts of events that became dead.
    pub attempts_before_dead: prometheus::Histogram,
    /// Outcomes whose lease was gone.
    pub leases_lost: IntCounter,
    /// Outcomes whose row was gone or finished.
    pub events_missing: IntCounter,
    /// Expired leases ended.
    pub lease_sweeps: IntCounter,
    /// Handlers over their timeout.
    pub handlers_stuck: IntGauge,
    db_errors: IntCounterVec,
    routes: Vec<RouteMetrics>,
}

/// The metrics of one route, looked up once so that counting an event costs no look-up by name.
#[derive(Clone)]
pub struct RouteMetrics {
    done: OutcomeMetrics,
    retry: OutcomeMetrics,
    dead: OutcomeMetrics,
    released: IntCounter,
    became_dead: IntCounter,
}

#[derive(Clone)]
struct OutcomeMetrics {
    settled: IntCounter,
    seconds: prometheus::Histogram,
}

impl WorkerMetrics {
    /// Registers everything, for routes with these patterns in this order.
    pub fn new<'a>(
        patterns: impl Iterator<Item = &'a str>,
    ) -> Result<WorkerMetrics, prometheus::Error> {
        let registry = Registry::new();
        let settled = counter_vec(
            &registry,
            "dispatchbox_events_settled_total",
            &["outcome", "event_type"],
        )?;
        let became_dead = counter_vec(&registry, "dispatchbox_dead_events_total", &["event_type"])?;
        let seconds = register(
            &registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "dispatchbox_handler_duration_seconds",
                    help("dispatchbox_handler_duration_seconds"),
                )
                .buckets(HANDLER_SECONDS.to_vec()),
                &["event_type", "outcome"],
            )?,
        )?;
        let of_route = |pattern: &str| {
            let of_outcome = |outcome: &str| OutcomeMetrics {
                settled: settled.with_label_values(&[outcome, pattern]),
                seconds: seconds.with_label_values(&[pattern, outcome]),
            };
            RouteMetrics {
                done: of_outcome("done"),
                retry: of_outcome("retry"),
                dead: of_outcome("dead"),
                released: settled.with_label_values(&["released", pattern]),
                became_dead: became_dead.with_label_values(&[pattern]),
            }
        };
        let routes = patterns.chain([OTHER]).map(of_route).collect();
        let db_errors = counter_vec(&registry, "dispatchbox_db_errors_total", &["reason"])?;
        // A rate over a series that appears with its first error would miss that error.
        let _ = db_errors.with_label_values(&["connection"]);
        Ok(WorkerMetrics {
            claimed: counter(&registry, "dispatchbox_events_claimed_total")?,
            in_flight: gauge(&registry, "dispatchbox_events_in_flight")?,
            claim_batch_size: histogram(&registry, "dispatchbox_claim_batch_size", CLAIM_EVENTS)?,
            delivery_latency: histogram(
                &registry,
                "dispatchbox_delivery_latency_seconds",
                LATENCY_SECONDS,
            )?,
            attempts_before_dead: histogram(
                &registry,
                "dispatchbox_event_attempts_before_dead",
                ATTEMPTS,
            )?,
            leases_lost: counter(&registry, "dispatchbox_leases_lost_total")?,
            events_missing: counter(&registry, "dispatchbox_events_missing_total")?,
            lease_sweeps: counter(&registry, "dispatchbox_lease_sweeps_total")?,
            handlers_stuck: gauge(&registry, "dispatchbox_handlers_stuck")?,
            db_errors,
            routes,
            registry,
        })
    }

    /// The metrics of a route by its index; of `other` for `None`.
    pub fn route(&self, index: Option<usize>) -> &RouteMetrics {
        let other = self.routes.len() - 1;
        &self.routes[index.unwrap_or(other).min(other)]
    }

    /// Counts a failed database call.
    pub fn db_error(&self, reason: &str) {
        self.db_errors.with_label_values(&[reason]).inc();
    }

    /// The values now, for a report.
    pub fn snapshot(&self) -> Snapshot {
        let series = self.registry.gather().iter().flat_map(series_of).collect();
        Snapshot { series }
    }
}

impl RouteMetrics {
    /// Notes how long a handler ran, by what it came to (`done`, `retry` or `dead`).
    pub fn ran(&self, outcome: &str, seconds: f64) {
        self.of(outcome).seconds.observe(seconds);
    }

    /// Counts an outcome after its commit.
    pub fn settled(&self, outcome: &str) {
        match outcome {
            "released" => self.released.inc(),
            "dead" => {
                self.became_dead.inc();
                self.dead.settled.inc();
            }
            other => self.of(other).settled.inc(),
        }
    }

    fn of(&self, outcome: &str) -> &OutcomeMetrics {
        match outcome {
            "done" => &self.done,
            "dead" => &self.dead,
            _ => &self.retry,
        }
    }
}

fn help(name: &str) -> &'static str {
    WORKER_METRICS
        .iter()
        .find(|(known, _, _)| *known == name)
        .map_or("", |(_, _, help)| help)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::new(name, help(name))?)
}

fn counter_vec(
    registry: &Registry,
    name: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(
        registry,
        IntCounterVec::new(Opts::new(name, help(name)), labels)?,
    )
}

fn gauge(registry: &Registry, name: &str) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::new(name, help(name))?)
}

fn histogram(
    registry: &Registry,
    name: &str,
    buckets: &[f64],
) -> Result<prometheus::Histogram, prometheus::Error> {
    register(
        registry,
        prometheus::Histogram::with_opts(
            HistogramOpts::new(name, help(name)).buckets(buckets.to_vec()),
        )?,
    )
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

type SeriesKey = (String, Vec<(String, String)>);

/// The sum over all workers that live or have lived, and what the supervisor itself knows.
pub struct Fleet {
    ended: BTreeMap<SeriesKey, Value>,
    living: BTreeMap<u16, Worker>,
    restarts: u64,
    sweeps: u64,
    process: Registry,
}

#[derive(Default)]
struct Worker {
    is_up: bool,
    db_connected: bool,
    snapshot: Snapshot,
}

impl Fleet {
    /// So many slots, and no worker in any of them yet.
    pub fn new(n_slots: u16) -> Fleet {
        let process = Registry::new();
        let collector = prometheus::process_collector::ProcessCollector::for_self();
        // Only a second registration of the same names could fail, and this registry is new.
        let _ = process.register(Box::new(collector));
        Fleet {
            ended: BTreeMap::new(),
            living: (0..n_slots).map(|slot| (slot, Worker::default())).collect(),
            restarts: 0,
            sweeps: 0,
            process,
        }
    }

    /// A worker was started in this slot; it is up once it has reported.
    pub fn started(&mut self, slot: u16, is_restart: bool) {
        self.living.insert(slot, Worker::default());
        self.restarts += u64::from(is_restart);
    }

    /// A worker has reported.
    pub fn reported(&mut self, slot: u16, db_connected: bool, snapshot: Snapshot) {
        self.living.insert(
            slot,
            Worker {
                is_up: true,
                db_connected,
                snapshot,
            },
        );
    }

    /// A worker has ended: its counters stay, its gauges go.
    pub fn ended(&mut self, slot: u16) {
        if let Some(worker) = self.living.insert(slot, Worker::default()) {
            add(&mut self.ended, &worker.snapshot, |value| {
                !matches!(value, Value::Gauge(_))
            });
        }
    }

    /// A dead worker's lease was ended by the supervisor.
    pub fn swept(&mut self, leases: u64) {
        self.sweeps += leases;
    }

    /// Workers that live and have reported.
    pub fn workers_up(&self) -> usize {
        self.living.values().filter(|worker| worker.is_up).count()
    }

    /// Renders everything as Prometheus text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut sum = self.ended.clone();
        for worker in self.living.values() {
            add(&mut sum, &worker.snapshot, |_| true);
        }
        if self.sweeps > 0 {
            let key = ("dispatchbox_lease_sweeps_total".to_owned(), Vec::new());
            add_value(&mut sum, key, &Value::Counter(to_f64(self.sweeps)));
        }
        let mut families: Vec<MetricFamily> = WORKER_METRICS
            .iter()
            .map(|&(name, kind, help)| family(name, kind, help, metrics_named(&sum, name)))
            .filter(|family| !family.get_metric().is_empty())
            .collect();
        families.extend(self.own_families());
        families.extend(self.process.gather());
        TextEncoder::new().encode_to_string(&families)
    }

    fn own_families(&self) -> Vec<MetricFamily> {
        let workers_up = self.living.iter().map(|(slot, worker)| {
            let label = vec![("worker".to_owned(), format!("{slot:02}"))];
            metric(&label, &Value::Gauge(f64::from(u8::from(worker.is_up))))
        });
        let up: Vec<&Worker> = self.living.values().filter(|worker| worker.is_up).collect();
        let is_connected = !up.is_empty() && up.iter().all(|worker| worker.db_connected);
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        vec![
            family(
                "dispatchbox_worker_up",
                Kind::Gauge,
                "1 while the worker in this slot lives and reports.",
                workers_up.collect(),
            ),
            family(
                "dispatchbox_worker_restarts_total",
                Kind::Counter,
                "Workers started in place of one that ended.",
                vec![metric(&[], &Value::Counter(to_f64(self.restarts)))],
            ),
            family(
                "dispatchbox_db_connected",
                Kind::Gauge,
                "1 while the last database calls of all workers succeeded.",
                vec![metric(
                    &[],
                    &Value::Gauge(f64::from(u8::from(is_connected))),
                )],
            ),
            family(
                "dispatchbox_build_info",
                Kind::Gauge,
                "Always 1; its label says which version runs.",
                vec![metric(&version, &Value::Gauge(1.0))],
            ),
        ]
    }
}

fn add(sum: &mut BTreeMap<SeriesKey, Value>, snapshot: &Snapshot, wanted: impl Fn(&Value) -> bool) {
    for series in snapshot
        .series
        .iter()
        .filter(|series| wanted(&series.value))
    {
        add_value(
            sum,
            (series.name.clone(), series.labels.clone()),
            &series.value,
        );
    }
}

fn add_value(sum: &mut BTreeMap<SeriesKey, Value>, key: SeriesKey, value: &Value) {
    let Some(so_far) = sum.get_mut(&key) else {
        sum.insert(key, value.clone());
        return;
    };
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
            // All workers are the same program, so their buckets have the same bounds in the same order.
            for (bucket, more) in buckets.iter_mut().zip(more_buckets) {
                bucket.1 += more.1;
            }
            *count += more_count;
            *sum += more_sum;
        }
        // One name has one kind; a worker that says otherwise is not added up.
        (Value::Counter(_) | Value::Gauge(_) | Value::Histogram { .. }, _) => {}
    }
}

fn metrics_named(sum: &BTreeMap<SeriesKey, Value>, name: &str) -> Vec<Metric> {
    sum.range((name.to_owned(), Vec::new())..)
        .take_while(|((found, _), _)| found == name)
        .map(|((_, labels), value)| metric(labels, value))
        .collect()
}

fn family(name: &str, kind: Kind, help: &str, metrics: Vec<Metric>) -> MetricFamily {
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

fn metric(labels: &[(String, String)], value: &Value) -> Metric {
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
            let mut histogram = HistogramValue::default();
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

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus values are doubles; a count above 2^53 is out of reach"
)]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker_with(claimed: u64) -> Snapshot {
        let metrics = WorkerMetrics::new(["order.*"].into_iter()).expect("the names are valid");
        metrics.claimed.inc_by(claimed);
        metrics.in_flight.set(3);
        metrics.route(Some(0)).settled("done");
        metrics.route(None).ran("retry", 0.2);
        metrics.snapshot()
    }

    #[test]
    fn counters_of_ended_workers_stay_and_gauges_go() {
        let mut fleet = Fleet::new(2);
        fleet.started(0, false);
        fleet.started(1, false);
        fleet.reported(0, true, worker_with(10));
        fleet.reported(1, true, worker_with(5));
        let before = fleet.render().expect("it renders");
        assert!(
            before.contains("dispatchbox_events_claimed_total 15\n"),
            "{before}"
        );
        assert!(
            before.contains("dispatchbox_events_in_flight 6\n"),
            "{before}"
        );

        fleet.ended(0);
        fleet.started(0, true);

        let after = fleet.render().expect("it renders");
        assert!(
            after.contains("dispatchbox_events_claimed_total 15\n"),
            "{after}"
        );
        assert!(
            after.contains("dispatchbox_events_in_flight 3\n"),
            "{after}"
        );
        assert!(
            after.contains("dispatchbox_worker_up{worker=\"00\"} 0\n"),
            "{after}"
        );
        assert!(
            after.contains("dispatchbox_worker_restarts_total 1\n"),
            "{after}"
        );
        let count = "dispatchbox_handler_duration_seconds_count{event_type=\"other\",outcome=\"retry\"} 2\n";
        assert!(after.contains(count), "{after}");
    }

    #[test]
    fn there_are_metrics_before_there_is_a_worker() {
        let text = Fleet::new(2).render().expect("it renders");

        assert!(
            text.contains("dispatchbox_worker_up{worker=\"01\"} 0\n"),
            "{text}"
        );
    }

    #[test]
    fn every_family_stands_once_and_has_a_help_text() {
        let mut fleet = Fleet::new(1);
        fleet.reported(0, true, worker_with(1));

        let text = fleet.render().expect("it renders");

        for (name, _, help) in WORKER_METRICS {
            assert_eq!(
                text.matches(&format!("# HELP {name} {help}\n")).count(),
                1,
                "{name} in {text}"
            );
        }
    }
}
