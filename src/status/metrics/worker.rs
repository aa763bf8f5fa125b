//! What one worker counts: the names, kinds and help texts of its metrics, and the places that
//! count.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::domain::event::Outcome;
use crate::domain::protocol::Snapshot;
use crate::status::metrics::registry::{Catalog, Described};
use crate::status::metrics::{Kind, OTHER};

/// Seconds; a handler takes from a fraction of a millisecond (a log line) to its timeout.
const HANDLER_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Seconds from insert to done: from the latency of an idle system to hours of backlog.
const LATENCY_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0, 21_600.0, 86_400.0,
];

/// Seconds; a database call takes from a fraction of a millisecond to the query timeout.
const CALL_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Events per claim.
const CLAIM_EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 900.0];

/// Attempts when an event died.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0];

/// The counter of claimed events.
pub const EVENTS_CLAIMED: &str = "dispatchbox_events_claimed_total";

/// The counter of written outcomes.
pub const EVENTS_SETTLED: &str = "dispatchbox_events_settled_total";

/// The gauge of outcomes that the database refuses.
pub const EVENTS_SET_ASIDE: &str = "dispatchbox_events_set_aside";

/// The gauge of handlers that run for longer than they may.
pub const HANDLERS_STUCK: &str = "dispatchbox_handlers_stuck";

/// Name, kind and help of every metric that workers send.
pub(super) const WORKER_METRICS: &[Described] = &[
    (EVENTS_CLAIMED, Kind::Counter, "Events claimed."),
    (
        EVENTS_SETTLED,
        Kind::Counter,
        "Outcomes written, by outcome and route, those of a sweep included.",
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
        "Outcomes that were not written because the event's row was gone or already finished elsewhere.",
    ),
    (
        EVENTS_SET_ASIDE,
        Kind::Gauge,
        "Events whose outcome the database does not take now, by reason: it is kept and tried again.",
    ),
    (
        "dispatchbox_lease_sweeps_total",
        Kind::Counter,
        "Leases that were ended on behalf of a worker that is gone.",
    ),
    (
        HANDLERS_STUCK,
        Kind::Gauge,
        "Handlers that run longer than their timeout.",
    ),
    (
        "dispatchbox_db_call_duration_seconds",
        Kind::Histogram,
        "Time that claims, settles and renewals took, failed ones included.",
    ),
    (
        "dispatchbox_db_errors_total",
        Kind::Counter,
        "Failed database calls, by reason.",
    ),
    (
        "dispatchbox_log_lines_dropped_total",
        Kind::Counter,
        "Lines of the log that were dropped because nothing read them in time.",
    ),
];

/// The counters of one worker, or of the supervisor's sweeper on behalf of dead ones. Cheap to
/// clone: the values are shared.
#[derive(Clone)]
pub struct WorkerMetrics {
    catalog: Catalog,
    /// Events claimed.
    pub claimed: IntCounter,
    /// Events claimed and not settled.
    pub in_flight: IntGauge,
    /// Events per claim.
    pub claim_batch_size: Histogram,
    /// Seconds from the insert of an event until it is done.
    pub delivery_latency: Histogram,
    /// Attempts of events that became dead.
    pub attempts_before_dead: Histogram,
    /// Outcomes whose lease did not exist any more.
    pub leases_lost: IntCounter,
    /// Outcomes whose row did not exist any more or was finished.
    pub events_missing: IntCounter,
    /// Leases of other workers that were ended.
    pub lease_sweeps: IntCounter,
    /// Handlers that run longer than their timeout.
    pub handlers_stuck: IntGauge,
    /// How long claims take.
    pub claim_seconds: Histogram,
    /// How long writing a batch of outcomes takes.
    pub settle_seconds: Histogram,
    /// How long renewing the leases in hand takes.
    pub renew_seconds: Histogram,
    db_errors: IntCounterVec,
    set_aside: IntGaugeVec,
    log_lines_dropped: IntCounter,
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
    seconds: Histogram,
}

impl WorkerMetrics {
    /// Registers everything, for routes with these patterns in this order.
    pub fn new<'a>(
        patterns: impl Iterator<Item = &'a str>,
    ) -> Result<WorkerMetrics, prometheus::Error> {
        let catalog = Catalog::new(WORKER_METRICS);
        let settled = catalog.counter_vec(EVENTS_SETTLED, &["outcome", "event_type"])?;
        let became_dead = catalog.counter_vec("dispatchbox_dead_events_total", &["event_type"])?;
        let seconds = catalog.histogram_vec(
            "dispatchbox_handler_duration_seconds",
            HANDLER_SECONDS,
            &["event_type", "outcome"],
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
        let calls = catalog.histogram_vec(
            "dispatchbox_db_call_duration_seconds",
            CALL_SECONDS,
            &["call"],
        )?;
        let db_errors = catalog.counter_vec("dispatchbox_db_errors_total", &["reason"])?;
        // A rate over a series that appears with its first error would miss that error, so the
        // series exists from the start.
        let _ = db_errors.with_label_values(&["connection"]);
        let set_aside = catalog.gauge_vec(EVENTS_SET_ASIDE, &["reason"])?;
        let _ = set_aside.with_label_values(&["refused"]);
        Ok(WorkerMetrics {
            claimed: catalog.counter(EVENTS_CLAIMED)?,
            in_flight: catalog.gauge("dispatchbox_events_in_flight")?,
            claim_batch_size: catalog.histogram("dispatchbox_claim_batch_size", CLAIM_EVENTS)?,
            delivery_latency: catalog
                .histogram("dispatchbox_delivery_latency_seconds", LATENCY_SECONDS)?,
            attempts_before_dead: catalog
                .histogram("dispatchbox_event_attempts_before_dead", ATTEMPTS)?,
            leases_lost: catalog.counter("dispatchbox_leases_lost_total")?,
            events_missing: catalog.counter("dispatchbox_events_missing_total")?,
            lease_sweeps: catalog.counter("dispatchbox_lease_sweeps_total")?,
            handlers_stuck: catalog.gauge(HANDLERS_STUCK)?,
            claim_seconds: calls.with_label_values(&["claim"]),
            settle_seconds: calls.with_label_values(&["settle"]),
            renew_seconds: calls.with_label_values(&["renew"]),
            db_errors,
            set_aside,
            log_lines_dropped: catalog.counter("dispatchbox_log_lines_dropped_total")?,
            routes,
            catalog,
        })
    }

    /// The metrics of a route by its index; of `other` for `None`.
    pub fn route(&self, index: Option<usize>) -> &RouteMetrics {
        let other = self.routes.len() - 1;
        &self.routes[index.unwrap_or(other).min(other)]
    }

    /// Counts an outcome after its commit; `attempt` is the attempt that came to it.
    pub fn settled(&self, route: Option<usize>, outcome: &Outcome, attempt: u32) {
        self.route(route).settled(outcome.name());
        if matches!(outcome, Outcome::Dead { .. }) {
            self.attempts_before_dead.observe(f64::from(attempt));
        }
    }

    /// Counts a failed database call.
    pub fn db_error(&self, reason: &str) {
        self.db_errors.with_label_values(&[reason]).inc();
    }

    /// Sets how many events are set aside for this reason now.
    pub fn set_aside(&self, reason: &str, events: usize) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.set_aside.with_label_values(&[reason]).set(events);
    }

    /// Sets how many lines of this process's log have been dropped since its start.
    pub fn log_lines_dropped(&self, n_lines: u64) {
        let counter = &self.log_lines_dropped;
        counter.inc_by(n_lines.saturating_sub(counter.get()));
    }

    /// The values now, for a report.
    pub fn snapshot(&self) -> Snapshot {
        self.catalog.snapshot()
    }
}

impl RouteMetrics {
    /// Notes how long a handler ran, by its outcome (`done`, `retry` or `dead`).
    pub fn ran(&self, outcome: &str, seconds: f64) {
        self.of(outcome).seconds.observe(seconds);
    }

    fn settled(&self, outcome: &str) {
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
