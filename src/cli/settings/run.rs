//! `dispatchbox run`: its options. The supervisor does its work.

use argh::{ArgsInfo, FromArgs};

/// Options of `run` and of `config check`, as they were typed: `settings` reads them together with
/// environment and file, so that one place says what is allowed, wherever a value comes from.
#[derive(Debug, Default, Clone, PartialEq, Eq, FromArgs, ArgsInfo)]
pub struct RunArgs {
    #[argh(option, arg_name = "dsn")]
    /// where the database is: `host=… dbname=…` or postgresql://…
    pub dsn: Option<String>,
    #[argh(option, arg_name = "file")]
    /// file that holds the dsn, so that no process list shows it
    pub dsn_file: Option<String>,
    #[argh(option, arg_name = "file")]
    /// configuration file (TOML): routes, and any option below
    pub config: Option<String>,
    #[argh(option, arg_name = "pattern=handler")]
    /// what delivers which events, the first match wins: '*=log', 'order.*=https://host/hook',
    /// 'mail.*=exec:/usr/bin/send-mail --fast'; give it again for more
    pub route: Vec<String>,
    #[argh(option, arg_name = "n")]
    /// worker processes [default: 1]
    pub processes: Option<String>,
    #[argh(option, arg_name = "n")]
    /// runner threads in each worker process [default: 10]
    pub max_parallel: Option<String>,
    #[argh(option, arg_name = "n")]
    /// most events that one claim takes [default: 10, growing to 500 under load]
    pub batch_size: Option<String>,
    #[argh(option, arg_name = "size")]
    /// most bytes of payloads and headers that one claim brings [default: 64MiB]
    pub max_batch_bytes: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// longest wait between two looks at an idle table [default: 1]
    pub poll_interval: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// bound of one run of a handler [default: 30]
    pub handler_timeout: Option<String>,
    #[argh(option, arg_name = "n")]
    /// attempts before an event is dead [default: 5]
    pub max_attempts: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// delay after the first failed attempt [default: 30]
    pub retry_backoff_seconds: Option<String>,
    #[argh(option, arg_name = "factor")]
    /// growth of the delay with each further attempt [default: 2]
    pub retry_multiplier: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// longest delay, also for what a receiver asks by Retry-After [default: 3600]
    pub retry_max_seconds: Option<String>,
    #[argh(option, arg_name = "part")]
    /// part of each delay that chance may take off, 0 to 1 [default: 0.1]
    pub retry_jitter: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// how long a claim holds its events without renewal [default: 60]
    pub lease_seconds: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// longest drain; what runs longer is killed, and its events are charged an attempt within 2 s
    /// more [default: 35]
    pub drain_timeout: Option<String>,
    #[argh(option, arg_name = "n")]
    /// database connections of each worker process, the keeper's one not counted [default: 3]
    pub pool_size: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// bound of one attempt to connect to the database [default: 10, or half of a short lease]
    pub connect_timeout: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// bound of one statement [default: 30, or half of a short lease]
    pub query_timeout: Option<String>,
    #[argh(option, arg_name = "address")]
    /// where the HTTP endpoints listen [default: 0.0.0.0 and ::]
    pub http_host: Option<String>,
    #[argh(option, arg_name = "port")]
    /// and at which port; 0 takes any free one and logs it [default: 8080]
    pub http_port: Option<String>,
    #[argh(switch)]
    /// open no HTTP port
    pub disable_http: bool,
    #[argh(option, arg_name = "file")]
    /// file that holds the token (16 bytes or more) that clients of /api must send; without it /api
    /// answers only clients on this host
    pub api_token_file: Option<String>,
    #[argh(switch)]
    /// let everybody who reaches the port use /api, other sites' web pages included
    pub http_open_api: bool,
    #[argh(option, arg_name = "names")]
    /// further names, separated by commas, by which clients on this host may call /api without a
    /// token [default: none]
    pub http_allowed_hosts: Option<String>,
    #[argh(option, arg_name = "level")]
    /// DEBUG, INFO, WARNING, ERROR or CRITICAL [default: INFO]
    pub log_level: Option<String>,
}

impl RunArgs {
    /// Lists the settings that were typed, by their names; routes are not among them.
    pub(in crate::cli) fn given(&self) -> Vec<(&'static str, String)> {
        let switch = |is_on: bool| is_on.then(|| "true".to_owned());
        [
            ("dsn", &self.dsn),
            ("dsn-file", &self.dsn_file),
            ("config", &self.config),
            ("processes", &self.processes),
            ("max-parallel", &self.max_parallel),
            ("batch-size", &self.batch_size),
            ("max-batch-bytes", &self.max_batch_bytes),
            ("poll-interval", &self.poll_interval),
            ("handler-timeout", &self.handler_timeout),
            ("max-attempts", &self.max_attempts),
            ("retry-backoff-seconds", &self.retry_backoff_seconds),
            ("retry-multiplier", &self.retry_multiplier),
            ("retry-max-seconds", &self.retry_max_seconds),
            ("retry-jitter", &self.retry_jitter),
            ("lease-seconds", &self.lease_seconds),
            ("drain-timeout", &self.drain_timeout),
            ("pool-size", &self.pool_size),
            ("connect-timeout", &self.connect_timeout),
            ("query-timeout", &self.query_timeout),
            ("http-host", &self.http_host),
            ("http-port", &self.http_port),
            ("disable-http", &switch(self.disable_http)),
            ("api-token-file", &self.api_token_file),
            ("http-open-api", &switch(self.http_open_api)),
            ("http-allowed-hosts", &self.http_allowed_hosts),
            ("log-level", &self.log_level),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect()
    }
}
