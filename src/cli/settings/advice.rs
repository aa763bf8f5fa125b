//! What the settings mean together: combinations that are allowed, but may not be meant.

use crate::cli::settings::layers::Layers;
use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::values::seconds_text;
use crate::domain::config::Config;
use crate::handlers::Handlers;
use crate::store::Timeouts;
use crate::store::dsn::Dsn;

/// Warns of settings that are allowed but look wrong.
pub(super) fn warnings(layers: &Layers, config: &Config, dsn: &Dsn) -> Vec<String> {
    short_drain(config)
        .into_iter()
        .chain(slow_connects(config, dsn))
        .chain(cut_delays(layers, config))
        .collect()
}

/// Hints that a handler may run for longer than a lease, since its worker renews the lease
/// meanwhile.
pub(super) fn hint_of_long_handlers(config: &Config, handlers: &Handlers) -> Option<String> {
    let of_routes = config.routes.iter();
    let of_routes = of_routes.map(|route| (Some(route.name()), route.timeout));
    let has_others = config.routes.is_empty() || handlers.has_routes();
    let of_others = has_others.then_some((None, config.handler_timeout));
    let (pattern, longest) = of_routes
        .chain(of_others)
        .max_by_key(|(_, timeout)| *timeout)?;
    if longest <= config.lease {
        return None;
    }
    let whose = pattern.map_or_else(String::new, |pattern| format!(" of the route `{pattern}`"));
    Some(format!(
        "a handler{whose} may take {} s but a lease lasts {} s: its worker renews the lease meanwhile; only where it cannot for that long, since \
         the database or the worker is stopped for example, another worker takes the event, and it may be delivered twice",
        seconds_text(longest),
        seconds_text(config.lease)
    ))
}

/// Warns of a drain that is shorter than a handler may take. It is allowed: a quick restart may be
/// worth attempts that are cut short.
fn short_drain(config: &Config) -> Option<String> {
    let timeouts = config.routes.iter().map(|route| route.timeout);
    let longest = timeouts.max().unwrap_or(config.handler_timeout);
    (config.drain_timeout < longest).then(|| {
        format!(
            "a drain may take {} s but a handler {} s: a restart may kill handlers that are still running",
            seconds_text(config.drain_timeout),
            seconds_text(longest),
        )
    })
}

/// Warns of a lease that is shorter than an attempt to connect. It is allowed: quick recovery may
/// be worth leases that are lost in an outage.
fn slow_connects(config: &Config, dsn: &Dsn) -> Option<String> {
    let timeouts = Timeouts {
        connect: config.connect_timeout,
        query: config.query_timeout,
    };
    let longest = timeouts.connect_all(dsn);
    (longest >= config.lease).then(|| {
        format!(
            "an attempt to connect may take {} s but a lease only {} s: a worker that has to connect again may lose its leases",
            seconds_text(longest),
            seconds_text(config.lease),
        )
    })
}

/// Warns of first delays that are longer than the longest delay. The longest delay counts, but its
/// value may have been forgotten.
fn cut_delays(layers: &Layers, config: &Config) -> Vec<String> {
    let backoff = &SETTINGS.retry_backoff_seconds;
    let general = layers.given(backoff);
    let general = general.map(|given| (layers.named(backoff, given.source), config.retry));
    let routes = config
        .routes
        .iter()
        .filter(|route| route.retry != config.retry)
        .map(|route| (format!("route `{}`", route.name()), route.retry));
    general
        .into_iter()
        .chain(routes)
        .filter(|(_, retry)| retry.backoff > retry.max)
        .map(|(name, retry)| {
            format!(
                "{name}: the first delay of {} s is cut to the longest, {} s",
                seconds_text(retry.backoff),
                seconds_text(retry.max),
            )
        })
        .collect()
}
