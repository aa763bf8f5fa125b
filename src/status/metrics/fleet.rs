//! The sum over all workers, and its text for Prometheus.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};
use prometheus::{Registry, TextEncoder};

use crate::domain::protocol::{Snapshot, Value};
use crate::status::metrics::Kind;
use crate::status::metrics::families::{family, metric, to_f64};
use crate::status::metrics::sum::Sum;
use crate::status::metrics::table::TableStatistics;
use crate::status::metrics::worker::{WORKER_METRICS, WorkerMetrics};

/// The sum over all workers that live or have lived, and the values of the supervisor itself.
pub struct Fleet {
    ended: Sum,
    living: BTreeMap<u16, Worker>,
    restarts: u64,
    /// Counters of this process.
    own: Option<WorkerMetrics>,
    cpu_seconds_of_ended: BTreeMap<u16, f64>,
    table: Option<TableStatistics>,
    /// Whether the daemon's own request to /health was answered lately; `None` without an HTTP
    /// port.
    is_http_up: Option<bool>,
    process: Registry,
}

#[derive(Default)]
struct Worker {
    is_up: bool,
    /// Whether the worker has a connection to the database; `None` while it is not known.
    db_connected: Option<bool>,
    usage: Option<Usage>,
    snapshot: Snapshot,
}

/// The CPU time and memory of a worker's process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// CPU time since its start, without that of handlers' programs.
    pub cpu_seconds: f64,
    /// Memory that it holds in RAM.
    pub resident_bytes: u64,
}

impl Fleet {
    /// Makes the sum for this many slots, with no worker in any of them yet.
    pub fn new(n_slots: u16) -> Fleet {
        let process = Registry::new();
        let collector = prometheus::process_collector::ProcessCollector::for_self();
        // Only a second registration of the same names could fail, and this registry is new.
        let _ = process.register(Box::new(collector));
        Fleet {
            ended: Sum::default(),
            living: (0..n_slots).map(|slot| (slot, Worker::default())).collect(),
            restarts: 0,
            own: None,
            cpu_seconds_of_ended: BTreeMap::new(),
            table: None,
            is_http_up: None,
            process,
        }
    }

    /// Notes that a worker was started in this slot; it is up once it has reported.
    pub fn started(&mut self, slot: u16, is_restart: bool) {
        self.living.insert(slot, Worker::default());
        self.restarts += u64::from(is_restart);
    }

    /// Adds these counters to the sum: those of the supervisor's work on behalf of dead workers.
    pub fn count_also(&mut self, own: WorkerMetrics) {
        self.own = Some(own);
    }

    /// Takes in a report of the worker in this slot.
    pub fn reported(
        &mut self,
        slot: u16,
        db_connected: Option<bool>,
        usage: Option<Usage>,
        snapshot: Snapshot,
    ) {
        let worker = self.living.entry(slot).or_default();
        *worker = Worker {
            is_up: true,
            db_connected,
            // A process that is just ending shows no usage any more; its last usage is kept.
            usage: usage.or(worker.usage),
            snapshot,
        };
    }

    /// Notes that the worker in this slot has ended: its counters are kept, its gauges are dropped.
    pub fn ended(&mut self, slot: u16) {
        if let Some(worker) = self.living.insert(slot, Worker::default()) {
            let is_kept = |value: &Value| !matches!(value, Value::Gauge(_));
            self.ended.add(&worker.snapshot, is_kept);
            *self.cpu_seconds_of_ended.entry(slot).or_default() +=
                worker.usage.map_or(0.0, |usage| usage.cpu_seconds);
        }
    }

    /// Takes over the statistics of the table.
    pub fn set_table(&mut self, table: TableStatistics) {
        self.table = Some(table);
    }

    /// The last statistics of the table, however old; `None` before the first.
    pub fn table(&self) -> Option<&TableStatistics> {
        self.table.as_ref()
    }

    /// Notes whether the daemon's own request to /health was answered lately.
    pub fn http_is_up(&mut self, is_up: bool) {
        self.is_http_up = Some(is_up);
    }

    /// The sum of a counter over all workers and over the time series that have all these labels.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let living = self
            .living
            .values()
            .map(|worker| worker.snapshot.sum(name, labels));
        let own = self.own.iter().map(|own| own.snapshot().sum(name, labels));
        self.ended.count(name, labels) + living.chain(own).sum::<u64>()
    }

    /// Renders everything as Prometheus text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut sum = self.ended.clone();
        for worker in self.living.values() {
            sum.add(&worker.snapshot, |_| true);
        }
        if let Some(own) = &self.own {
            sum.add(&own.snapshot(), |_| true);
        }
        let mut families: Vec<MetricFamily> = WORKER_METRICS
            .iter()
            .map(|&(name, kind, help)| family(name, kind, help, sum.metrics(name)))
            .collect();
        families.extend(self.worker_families());
        families.extend(self.own_families());
        families.extend(self.table.iter().flat_map(TableStatistics::families));
        families.extend(self.is_http_up.map(http_up));
        families.retain(|family| !family.get_metric().is_empty());
        families.extend(self.process.gather());
        TextEncoder::new().encode_to_string(&families)
    }

    /// The families of each worker, labeled with its slot, which survives restarts; a process id
    /// would be a new series each time.
    fn worker_families(&self) -> Vec<MetricFamily> {
        let each = |value: &dyn Fn(u16, &Worker) -> Option<Value>| {
            self.living
                .iter()
                .filter_map(|(&slot, worker)| {
                    let label = [("worker".to_owned(), format!("{slot:02}"))];
                    Some(metric(&label, &value(slot, worker)?))
                })
                .collect::<Vec<Metric>>()
        };
        let up = each(&|_, worker| Some(Value::Gauge(f64::from(u8::from(worker.is_up)))));
        let cpu = each(&|slot, worker| {
            let ended = self.cpu_seconds_of_ended.get(&slot).copied();
            let living = worker.usage.map(|usage| usage.cpu_seconds);
            let seconds = ended.unwrap_or_default() + living.unwrap_or_default();
            Some(Value::Counter(seconds))
        });
        let resident = each(&|_, worker| {
            let bytes = worker.usage?.resident_bytes;
            Some(Value::Gauge(to_f64(bytes)))
        });
        vec![
            family(
                "dispatchbox_worker_up",
                Kind::Gauge,
                "1 while the worker in this slot lives and reports.",
                up,
            ),
            family(
                "dispatchbox_worker_cpu_seconds_total",
                Kind::Counter,
                "CPU time of the worker processes in this slot, without the programs that handlers ran.",
                cpu,
            ),
            family(
                "dispatchbox_worker_resident_memory_bytes",
                Kind::Gauge,
                "Memory that the worker in this slot holds in RAM; missing while there is none.",
                resident,
            ),
        ]
    }

    fn own_families(&self) -> Vec<MetricFamily> {
        let connected = || {
            self.living
                .values()
                .filter_map(|worker| worker.db_connected)
        };
        let is_connected = connected().next().is_some() && connected().all(|is| is);
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        vec![
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Outcome;

    fn worker_with(claimed: u64) -> Snapshot {
        let metrics = WorkerMetrics::new(["order.*"].into_iter()).expect("the names are valid");
        metrics.claimed.inc_by(claimed);
        metrics.in_flight.set(3);
        metrics.settled(Some(0), &Outcome::Done, 1);
        metrics.route(None).ran("retry", 0.2);
        metrics.snapshot()
    }

    #[test]
    fn counters_of_ended_workers_stay_and_gauges_go() {
        let mut fleet = Fleet::new(2);
        fleet.started(0, false);
        fleet.started(1, false);
        fleet.reported(0, Some(true), None, worker_with(10));
        fleet.reported(1, Some(true), None, worker_with(5));
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
    fn the_cpu_time_of_a_slot_outlives_its_worker_and_the_memory_does_not() {
        let usage = |cpu_seconds| {
            Some(Usage {
                cpu_seconds,
                resident_bytes: 4096,
            })
        };
        let cpu = |fleet: &Fleet, seconds: &str| {
            let text = fleet.render().expect("it renders");
            let line = format!("dispatchbox_worker_cpu_seconds_total{{worker=\"00\"}} {seconds}\n");
            assert!(text.contains(&line), "{text}");
            text.contains("dispatchbox_worker_resident_memory_bytes{worker=\"00\"} 4096\n")
        };
        let mut fleet = Fleet::new(1);
        assert!(!cpu(&fleet, "0"));

        fleet.started(0, false);
        fleet.reported(0, None, usage(1.5), Snapshot::default());
        fleet.reported(0, None, None, Snapshot::default());
        assert!(cpu(&fleet, "1.5"));
        fleet.ended(0);
        assert!(!cpu(&fleet, "1.5"));
        fleet.started(0, true);
        assert!(!cpu(&fleet, "1.5"));
        fleet.reported(0, None, usage(0.25), Snapshot::default());

        assert!(cpu(&fleet, "1.75"));
    }

    #[test]
    fn what_the_supervisor_counts_is_added_to_what_workers_count() {
        let own = WorkerMetrics::new(["order.*"].into_iter()).expect("the names are valid");
        let mut fleet = Fleet::new(1);
        fleet.count_also(own.clone());
        fleet.reported(0, None, None, worker_with(1));

        own.settled(Some(0), &Outcome::Done, 1);

        let done = [("outcome", "done"), ("event_type", "order.*")];
        assert_eq!(fleet.count("dispatchbox_events_settled_total", &done), 2);
        let text = fleet.render().expect("it renders");
        let line = "dispatchbox_events_settled_total{event_type=\"order.*\",outcome=\"done\"} 2\n";
        assert!(text.contains(line), "{text}");
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
        fleet.reported(0, Some(true), None, worker_with(1));

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
