//! The names of the settings in the three places where they may stand: `--batch-size`,
//! `DISPATCHBOX_BATCH_SIZE`, `batch_size`.

/// Every setting that flag, environment and file know by the same name, except the routes.
pub(in crate::cli) const SETTINGS: &[&str] = &[
    "dsn",
    "dsn-file",
    "config",
    "processes",
    "max-parallel",
    "batch-size",
    "max-batch-bytes",
    "poll-interval",
    "handler-timeout",
    "max-attempts",
    "retry-backoff-seconds",
    "retry-multiplier",
    "retry-max-seconds",
    "retry-jitter",
    "lease-seconds",
    "drain-timeout",
    "pool-size",
    "connect-timeout",
    "query-timeout",
    "http-host",
    "http-port",
    "disable-http",
    "api-token-file",
    "http-open-api",
    "http-allowed-hosts",
    "log-level",
];

/// Prefix of our environment variables.
pub(in crate::cli) const ENV_PREFIX: &str = "DISPATCHBOX_";

/// The key of a setting in the file.
pub(in crate::cli) fn key_of(name: &str) -> String {
    name.replace('-', "_")
}

/// The environment variable of a setting.
pub(in crate::cli) fn variable_of(name: &str) -> String {
    format!("{ENV_PREFIX}{}", key_of(name).to_ascii_uppercase())
}
