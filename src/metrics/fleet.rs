//! The sum over all workers, and its text for Prometheus.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};
use prometheus::{Registry, TextEncoder};

use super::families::{family, metric, to_f64};
use super::table::TableGauges;
use super::{Kind, WORKER_METRICS};
use crate::report::{Snapshot, Value, has_labels};

type SeriesKey = (String, Vec<(String, String)>);

/// The sum over all workers that live or have lived, and what the supervisor itself knows.
pub struct Fleet {
    ended: BTreeMap<SeriesKey, Value>,
    living: BTreeMap<u16, Worker>,
    restarts: u64,
    sweeps: u64,
    table: Option<TableGauges>,
    /// `None` without an HTTP port.
    is_http_up: Option<bool>,
    process: Registry,
}

#[derive(Default)]
struct Worker {
    is_up: bool,
    /// `None` while nobody knows.
    db_connected: Option<bool>,
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
            table: None,
            is_http_up: None,
            process,
        }
    }

    /// A worker was started in this slot; it is up once it has reported.
    pub fn started(&mut self, slot: u16, is_restart: bool) {
        self.living.insert(slot, Worker::default());
        self.restarts += u64::from(is_restart);
    }

    /// A worker has reported.
    pub fn reported(&mut self, slot: u16, db_connected: Option<bool>, snapshot: Snapshot) {
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

    /// The table was surveyed.
    pub fn surveyed(&mut self, table: TableGauges) {
        self.table = Some(table);
    }

    /// Whether the daemon's own request to /health was answered lately.
    pub fn http_is_up(&mut self, is_up: bool) {
        self.is_http_up = Some(is_up);
    }

    /// The sum of a counter over all workers and over the time series that have all these labels.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let ended = self
            .ended
            .iter()
            .filter(|((known, has), _)| known == name && has_labels(has, labels))
            .map(|(_, value)| value.whole());
        let living = self
            .living
            .values()
            .map(|worker| worker.snapshot.sum(name, labels));
        ended.chain(living).sum()
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
        families.extend(self.table.iter().flat_map(TableGauges::families));
        families.extend(self.is_http_up.map(http_up));
        families.extend(self.process.gather());
        TextEncoder::new().encode_to_string(&families)
    }

    fn own_families(&self) -> Vec<MetricFamily> {
        let workers_up = self.living.iter().map(|(slot, worker)| {
            let label = vec![("worker".to_owned(), format!("{slot:02}"))];
            metric(&label, &Value::Gauge(f64::from(u8::from(worker.is_up))))
        });
        let connected = || {
            self.living
                .values()
                .filter_map(|worker| worker.db_connected)
        };
        let is_connected = connected().next().is_some() && connected().all(|is| is);
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
                "1 while all workers are connected to the database, whatever comes of their statements.",
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

fn http_up(is_up: bool) -> MetricFamily {
    family(
        "dispatchbox_http_up",
        Kind::Gauge,
        "1 while the daemon's own requests to /health are answered within a second.",
        vec![metric(&[], &Value::Gauge(f64::from(u8::from(is_up))))],
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::WorkerMetrics;

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
        fleet.reported(0, Some(true), worker_with(10));
        fleet.reported(1, Some(true), worker_with(5));
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
        fleet.reported(0, Some(true), worker_with(1));

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
