//! Validated settings: values that the rest of the program may rely on without checking again.
//!
//! `cli` builds them once from flags, environment and file, by its table of settings, which has the
//! defaults and limits; limits that other modules need, too, stand here. The settings travel to the
//! workers as JSON on their stdin. The DSN is in `store::dsn::Dsn`, because it holds the password.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::retry::RetryPolicy;

/// Most events that one claim takes: with more ids a lease row would no longer fit inline in one
/// page.
pub const CLAIM_EVENTS_MAX: u16 = 900;

/// Claims grow to this size when `--batch-size` is not given: ten events a claim cost five times as
/// much each as 500.
pub const CLAIM_EVENTS_GROWN: u16 = 500;

/// First claim's size: an idle system fetches little at once, a busy one grows within a few claims.
pub const CLAIM_EVENTS_FIRST: u16 = 10;

/// Runner threads per worker: more than a thousand threads cost more than further processes.
pub const MAX_PARALLEL: RangeInclusive<u16> = 1..=1000;

/// Attempts of an event: the column is an `int`.
pub const MAX_ATTEMPTS: RangeInclusive<u32> = 1..=2_147_483_647;

/// Seconds between attempts: a year, so that no timestamp overflows.
pub const RETRY_SECONDS: RangeInclusive<f64> = 0.0..=31_536_000.0;

/// Growth of the delay from one attempt to the next: below 1 the delays would shrink.
pub const RETRY_MULTIPLIER: RangeInclusive<f64> = 1.0..=1000.0;

/// Part of a delay that chance may take off.
pub const RETRY_JITTER: RangeInclusive<f64> = 0.0..=1.0;

/// Seconds that a handler may take, at most a day; leases are renewed meanwhile.
pub const HANDLER_SECONDS: RangeInclusive<f64> = 0.001..=86_400.0;

/// Patterns of one route.
pub const PATTERNS_MAX: usize = 100;

/// Routes in all: each event type is compared with one after the other.
pub const ROUTES_MAX: usize = 1000;

/// All settings of `dispatchbox run` except where the database is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number of worker processes.
    pub processes: NonZeroU16,
    /// Most events a claim takes, when given; at most [`CLAIM_EVENTS_MAX`].
    pub batch_size: Option<NonZeroU16>,
    /// Longest wait between two looks at an idle table.
    pub poll_interval: Duration,
    /// Runner threads per worker.
    pub max_parallel: NonZeroU16,
    /// Retry policy of routes that have none of their own.
    pub retry: RetryPolicy,
    /// Bounds each connection attempt.
    pub connect_timeout: Duration,
    /// Bounds each statement.
    pub query_timeout: Duration,
    /// How long a claim holds its events; renewed every quarter of it.
    pub lease: Duration,
    /// How long a drain may take before what is left is killed.
    pub drain_timeout: Duration,
    /// How long a handler may take, where its route does not say.
    pub handler_timeout: Duration,
    /// Connections per worker, the keeper's own not counted.
    pub pool_size: NonZeroU16,
    /// Bytes of payloads and headers that one claim may bring, and that the queue holds.
    pub max_batch_bytes: u64,
    /// What becomes of events that no route takes.
    pub unrouted: Unrouted,
    /// The routes in their order; empty means the sample routes.
    pub routes: Vec<RouteSpec>,
    /// The HTTP listener, unless it is disabled.
    pub http: Option<HttpConfig>,
    /// Threshold of the log.
    pub log_level: LogLevel,
    /// The name of the database, by which receivers tell senders apart. It is no setting: the DSN
    /// says it.
    pub database: String,
}

impl Config {
    /// The most events one claim takes.
    pub fn claim_events_max(&self) -> u16 {
        self.batch_size.map_or(CLAIM_EVENTS_GROWN, NonZeroU16::get)
    }
}

/// Where the HTTP endpoints listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpConfig {
    /// Address or name to bind; all addresses, of IPv4 and IPv6, where none is given.
    pub host: Option<String>,
    /// Port to bind; 0 takes any free one.
    pub port: u16,
}

/// What becomes of events that no route takes, in the words of `--unrouted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrouted {
    /// They fail their attempts, and are dead in the end.
    Fail,
    /// They are not claimed: another daemon has a route for them.
    Leave,
}

impl fmt::Display for Unrouted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unrouted::Fail => "fail",
            Unrouted::Leave => "leave",
        })
    }
}

/// Threshold of the log, in the words of `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// Per batch and per event.
    Debug,
    /// Changes of state.
    Info,
    /// Worse than normal.
    Warning,
    /// A person should look. CRITICAL means this, too.
    Error,
}

impl LogLevel {
    /// Reads a level in any case; `None` for any other word.
    pub fn parse(word: &str) -> Option<LogLevel> {
        match word.to_ascii_uppercase().as_str() {
            "DEBUG" => Some(LogLevel::Debug),
            "INFO" => Some(LogLevel::Info),
            "WARNING" | "WARN" => Some(LogLevel::Warning),
            "ERROR" | "CRITICAL" => Some(LogLevel::Error),
            _ => None,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warning => "WARNING",
            LogLevel::Error => "ERROR",
        })
    }
}

/// One route as it was configured: which event types, which handler, which limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// What it is called, where that is not its first pattern.
    pub name: Option<String>,
    /// Exact event types, `prefix.*` or `*`: at least one.
    pub patterns: Vec<String>,
    /// What delivers the events.
    pub handler: HandlerSpec,
    /// Bound of one run.
    pub timeout: Duration,
    /// Most events of this route that one worker has claimed and not yet run to the end; `None`: as
    /// many as there are runners.
    pub max_parallel: Option<NonZeroU16>,
    /// Retry policy of this route.
    pub retry: RetryPolicy,
}

impl RouteSpec {
    /// What the route is called in metrics, log and messages.
    pub fn name(&self) -> &str {
        let first = || self.patterns.first().map_or("", String::as_str);
        self.name.as_deref().unwrap_or_else(first)
    }
}

/// What delivers the events of a route. Which kinds there are is known to `handlers` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerSpec {
    /// The name of a kind of handler, or the name under which a handler is registered.
    pub kind: String,
    /// What the kind has read of its route, in a form that only the kind knows.
    pub settings: Value,
}

impl HandlerSpec {
    /// A handler that has no settings.
    pub fn named(kind: impl Into<String>) -> HandlerSpec {
        HandlerSpec {
            kind: kind.into(),
            settings: Value::Null,
        }
    }
}
