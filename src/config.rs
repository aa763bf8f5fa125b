//! Validated settings: what the rest of the program may rely on without checking again.
//!
//! Built once by `cli` from flags, environment and file; travels to the workers as JSON on their stdin. Where the database is
//! stands beside it in `store::dsn::Dsn`, because it holds the password.

use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff::RetryPolicy;

/// Most events that one claim takes: with more ids a lease row would no longer fit inline in one page.
pub const CLAIM_EVENTS_MAX: u16 = 900;

/// Claims grow to this size when `--batch-size` is not given: ten events a claim cost five times as much each as 500.
pub const CLAIM_EVENTS_GROWN: u16 = 500;

/// First claim's size: an idle system fetches little at once, a busy one grows within a few claims.
pub const CLAIM_EVENTS_FIRST: u16 = 10;

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
    /// How long a claim holds its events; renewed every third of it.
    pub lease: Duration,
    /// How long a drain may take before what is left is killed.
    pub drain_timeout: Duration,
    /// How long a handler may take, where its route does not say.
    pub handler_timeout: Duration,
    /// Connections per worker, the keeper's own not counted.
    pub pool_size: NonZeroU16,
    /// Payload bytes that one claim may bring.
    pub max_batch_bytes: u64,
    /// The routes in their order; empty means the sample routes.
    pub routes: Vec<RouteSpec>,
    /// The HTTP listener, unless it is disabled.
    pub http: Option<HttpConfig>,
    /// Threshold of the log.
    pub log_level: LogLevel,
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
    /// Address or name to bind.
    pub host: String,
    /// Port to bind; 0 takes any free one.
    pub port: u16,
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
    /// Someone should look. CRITICAL means this, too.
    Error,
}

/// One route as it was configured: which event types, which handler, which limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Exact event type, `prefix.*` or `*`.
    pub pattern: String,
    /// What delivers the events.
    pub handler: HandlerSpec,
    /// Bound of one run.
    pub timeout: Duration,
    /// Most events of this route in flight per worker; `None`: as many as there are runners.
    pub max_parallel: Option<NonZeroU16>,
    /// Retry policy of this route.
    pub retry: RetryPolicy,
}

/// What delivers the events of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerSpec {
    /// One INFO line per event.
    Log,
    /// A program that gets the event on its standard input.
    Exec {
        /// Program and arguments; never a shell line. At least one element.
        command: Vec<String>,
    },
    /// A POST to a URL.
    Http {
        /// Where to: http or https.
        url: String,
        /// Statuses that make an event dead at once.
        dead_statuses: Vec<u16>,
    },
    /// A handler that the program's author registered by name (`Handlers::register`).
    Library {
        /// The registered name.
        name: String,
    },
}
