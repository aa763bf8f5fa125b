//! All metrics: names, help texts, what a worker counts, and how the supervisor adds workers up.
//!
//! A worker counts in its own registry and sends the values with each report. The supervisor sums
//! the last values of the living workers and of the ended ones, so a counter never runs backwards
//! when a worker is replaced. At most the last second of a killed worker's counting is missing.
//! Labels come from bounded sets only: event types are the patterns of the routes, and all other
//! types are `other`.

mod families;
mod fleet;
mod registry;
mod sum;
mod table;
mod worker;

pub use fleet::{Fleet, Usage};
pub use table::TableStatistics;
pub use worker::{
    EVENTS_CLAIMED, EVENTS_SET_ASIDE, EVENTS_SETTLED, HANDLERS_STUCK, RouteMetrics, WorkerMetrics,
};

/// The label of events that no route takes.
pub const OTHER: &str = "other";

/// The media type of the text that [`Fleet::render`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}
