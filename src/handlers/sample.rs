//! The three sample routes, used when there is no route anywhere.
//!
//! The predecessor shipped them, and its sample data has these event types: the bare program must
//! work on it. They only log, and there are only three of them, so that a forgotten route never
//! turns real events into log lines.

use crate::domain::config::{Config, HandlerSpec, RouteSpec};
use crate::handlers::kind::Kind as _;
use crate::handlers::log::Log;

/// The event types that are logged and done when there is no route anywhere.
pub const EVENT_TYPES: [&str; 3] = [
    "order.created",
    "order.created.analytics",
    "order.created.crm",
];

/// Makes the sample routes, with the limits of `config`.
pub(super) fn routes(config: &Config) -> Vec<RouteSpec> {
    EVENT_TYPES
        .iter()
        .map(|event_type| RouteSpec {
            name: None,
            patterns: vec![(*event_type).to_owned()],
            handler: HandlerSpec::named(Log::NAME),
            timeout: config.handler_timeout,
            max_parallel: None,
            retry: config.retry,
        })
        .collect()
}
