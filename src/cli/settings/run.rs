//! The table of settings: the options of `dispatchbox run`, which may also stand in the environment
//! and in the configuration file. An entry says all about its setting once: name, help, argument,
//! default and limits.
//!
//! To add a setting: an entry here, a field of [`Config`](crate::domain::config::Config), and the
//! line that reads it in the module above.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::cli::settings::setting::settings;
use crate::cli::settings::values::{
    count, decimal, host, host_names, log_level, positive, seconds, seconds_text, size, size_text,
    switch, unrouted,
};
use crate::domain::config::{
    CLAIM_EVENTS_FIRST, CLAIM_EVENTS_GROWN, CLAIM_EVENTS_MAX, HANDLER_SECONDS, LogLevel,
    MAX_ATTEMPTS, MAX_PARALLEL, RETRY_JITTER, RETRY_MULTIPLIER, RETRY_SECONDS, Unrouted,
};

settings! {
    /// Options of `run` and of `config check`, as they were typed. `[default: …` in a description
    /// is where the help shows the default.
    pub struct RunArgs {
        #[argh(option, arg_name = "dsn")]
        /// where the database is: `host=… dbname=…` or postgresql://…
        pub dsn: Option<String>,

        #[argh(option, arg_name = "file")]
        /// file that holds the dsn, so that no process list shows it
        pub dsn_file: Option<String>,

        // A file cannot name another file.
        #[argh(option, arg_name = "file")]
        /// configuration file (TOML): routes (`dispatchbox help routes` lists their keys), and any
        /// option below
        pub config: Option<String> => Flag | Environment,

        // In the file, routes are tables, and they follow those of the command line.
        #[argh(option, arg_name = "pattern=handler")]
        /// what delivers which events, the first match wins: '*=log', 'order.*=https://host/hook',
        /// 'mail.*=exec:/usr/bin/send-mail --fast'; give it again for more; `dispatchbox help
        /// routes` lists the handlers
        pub route: Vec<String> => Flag,

        #[argh(option, arg_name = "word")]
        /// what becomes of events that no route takes: `fail`, their attempts fail, or `leave`,
        /// they stay for a daemon that has a route for them [default: …]
        pub unrouted: Option<String> as Unrouted {
            default: Unrouted::Fail,
            read: unrouted,
            show: Unrouted::to_string,
        },

        // Each process has `pool_size` connections and one more, and PostgreSQL has 100 unless told
        // otherwise.
        #[argh(option, arg_name = "n")]
        /// worker processes [default: …]
        pub processes: Option<String> as NonZeroU16 {
            default: non_zero(1),
            read: |text| positive(text, &(1..=256)),
            show: NonZeroU16::to_string,
        },

        #[argh(option, arg_name = "n")]
        /// runner threads in each worker process [default: …]
        pub max_parallel: Option<String> as NonZeroU16 {
            default: non_zero(10),
            read: |text| positive(text, &MAX_PARALLEL),
            show: NonZeroU16::to_string,
        },

        #[argh(option, arg_name = "n")]
        /// most events that one claim takes [default: …]
        pub batch_size: Option<String> as Option<NonZeroU16> {
            default: None,
            read: |text| positive(text, &(1..=CLAIM_EVENTS_MAX)).map(Some),
            show: |size| size.map_or_else(growing, |size| size.to_string()),
        },

        // One event is always claimed, whatever its size; a worker cannot hold more than 4 GiB.
        #[argh(option, arg_name = "size")]
        /// most bytes of payloads and headers that one claim brings [default: …]
        pub max_batch_bytes: Option<String> as u64 {
            default: 64 * 1024 * 1024,
            read: |text| size(text, &(1..=4 * 1024 * 1024 * 1024)),
            show: |bytes| size_text(*bytes),
        },

        // Below a millisecond polling is a busy loop; more than a day is a typing error.
        #[argh(option, arg_name = "seconds")]
        /// longest wait between two looks at an idle table [default: …]
        pub poll_interval: Option<String> as Duration {
            default: Duration::from_secs(1),
            read: |text| seconds(text, &(0.001..=86_400.0)),
            show: |value| seconds_text(*value),
        },

        #[argh(option, arg_name = "seconds")]
        /// bound of one run of a handler [default: …]
        pub handler_timeout: Option<String> as Duration {
            default: Duration::from_secs(30),
            read: |text| seconds(text, &HANDLER_SECONDS),
            show: |value| seconds_text(*value),
        },

        #[argh(option, arg_name = "n")]
        /// attempts before an event is dead [default: …]
        pub max_attempts: Option<String> as u32 {
            default: 5,
            read: |text| count(text, &MAX_ATTEMPTS),
            show: u32::to_string,
        },

        #[argh(option, arg_name = "seconds")]
        /// delay after the first failed attempt [default: …]
        pub retry_backoff_seconds: Option<String> as Duration {
            default: Duration::from_secs(30),
            read: |text| seconds(text, &RETRY_SECONDS),
            show: |value| seconds_text(*value),
        },

        #[argh(option, arg_name = "factor")]
        /// growth of the delay with each further attempt [default: …]
        pub retry_multiplier: Option<String> as f64 {
            default: 2.0,
            read: |text| decimal(text, &RETRY_MULTIPLIER, ""),
            show: f64::to_string,
        },

        #[argh(option, arg_name = "seconds")]
        /// longest delay, also for what a receiver asks by Retry-After [default: …]
        pub retry_max_seconds: Option<String> as Duration {
            default: Duration::from_hours(1),
            read: |text| seconds(text, &RETRY_SECONDS),
            show: |value| seconds_text(*value),
        },

        #[argh(option, arg_name = "part")]
        /// part of each delay that chance may take off, 0 to 1 [default: …]
        pub retry_jitter: Option<String> as f64 {
            default: 0.1,
            read: |text| decimal(text, &RETRY_JITTER, ""),
            show: f64::to_string,
        },

        // A lease is renewed every quarter of its time, so below 2 s one slow round trip would lose
        // it. The default is right for production, where an outage of some seconds must not make
        // every worker lose its leases; short ones make tests and demonstrations quick. Above a
        // day, the events of a lost host would wait too long.
        #[argh(option, arg_name = "seconds")]
        /// how long a claim holds its events without renewal [default: …]
        pub lease_seconds: Option<String> as Duration {
            default: Duration::from_mins(1),
            read: |text| seconds(text, &(2.0..=86_400.0)),
            show: |value| seconds_text(*value),
        },

        // The default is longer than the handler timeout, so that a drain lets every handler
        // finish. 0 kills at once; longer than a day is no restart any more.
        #[argh(option, arg_name = "seconds")]
        /// longest drain; what runs longer is killed, and its events are charged an attempt within
        /// 2 s more [default: …]
        pub drain_timeout: Option<String> as Duration {
            default: Duration::from_secs(35),
            read: |text| seconds(text, &(0.0..=86_400.0)),
            show: |value| seconds_text(*value),
        },

        // Fetcher and settler use one connection each; more only wait for turns.
        #[argh(option, arg_name = "n")]
        /// database connections of each worker process, the keeper's one not counted [default: …]
        pub pool_size: Option<String> as NonZeroU16 {
            default: non_zero(3),
            read: |text| positive(text, &(1..=100)),
            show: NonZeroU16::to_string,
        },

        #[argh(option, arg_name = "seconds")]
        /// bound of one attempt to connect to the database [default: …, or half of a short lease]
        pub connect_timeout: Option<String> as Duration {
            default: Duration::from_secs(10),
            read: database_seconds,
            show: |value| seconds_text(*value),
        },

        #[argh(option, arg_name = "seconds")]
        /// bound of one statement [default: …, or half of a short lease]
        pub query_timeout: Option<String> as Duration {
            default: Duration::from_secs(30),
            read: database_seconds,
            show: |value| seconds_text(*value),
        },

        #[argh(option, arg_name = "address")]
        /// where the HTTP endpoints listen [default: …]
        pub http_host: Option<String> as Option<String> {
            default: None,
            read: |text| host(text).map(Some),
            show: |host| host.as_deref().unwrap_or("0.0.0.0 and ::").to_owned(),
        },

        #[argh(option, arg_name = "port")]
        /// and at which port; 0 takes any free one and logs it [default: …]
        pub http_port: Option<String> as u16 {
            default: 8080,
            read: |text| count(text, &(0..=u16::MAX)),
            show: u16::to_string,
        },

        #[argh(switch)]
        /// open no HTTP port
        pub disable_http: bool as bool {
            default: false,
            read: switch,
            show: bool::to_string,
        },

        #[argh(option, arg_name = "file")]
        /// file that holds the token (16 bytes or more) that clients of /api must send; without it
        /// /api answers only clients on this host
        pub api_token_file: Option<String>,

        #[argh(switch)]
        /// let every client that reaches the port use /api, other sites' web pages included
        pub http_open_api: bool as bool {
            default: false,
            read: switch,
            show: bool::to_string,
        },

        #[argh(option, arg_name = "names")]
        /// further names, separated by commas, by which clients on this host may call /api without
        /// a token [default: …]
        pub http_allowed_hosts: Option<String> as Vec<String> {
            default: Vec::new(),
            read: host_names,
            show: |names| if names.is_empty() { "none".to_owned() } else { names.join(",") },
        },

        #[argh(option, arg_name = "level")]
        /// DEBUG, INFO, WARNING, ERROR or CRITICAL [default: …]
        pub log_level: Option<String> as LogLevel {
            default: LogLevel::Info,
            read: log_level,
            show: LogLevel::to_string,
        },
    }
}

/// Turns a default into the type that says it is above 0, checked when the program is compiled.
const fn non_zero(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("a default above 0")
}

/// The size of claims where none is given.
fn growing() -> String {
    format!("{CLAIM_EVENTS_FIRST}, growing to {CLAIM_EVENTS_GROWN} under load")
}

/// Reads the bound of one connection attempt or one statement: a loaded server needs more than an
/// instant, and after an hour an answer is of no use.
fn database_seconds(text: &str) -> Result<Duration, String> {
    seconds(text, &(0.1..=3600.0))
}
