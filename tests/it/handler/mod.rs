//! Handlers, without a database: an event goes in, a word comes out.

mod certificates;
mod exec;
mod format;
mod http;
mod private_addresses;
mod receivers;
mod request;
mod routes;
mod server;
mod signature;
mod tls;
mod transport;
mod url_file;

use std::ffi::OsString;
use std::fs;
use std::num::NonZeroU16;
use std::time::Duration;

use dispatchbox::cli::args::front::{self, Parsed};
use dispatchbox::cli::commands::Command;
use dispatchbox::cli::settings::{self, Env};
use dispatchbox::domain::config::{Config, HandlerSpec, LogLevel, RouteSpec, Unrouted};
use dispatchbox::domain::event::Event;
use dispatchbox::domain::retry::RetryPolicy;
use dispatchbox::handlers::{HandlerError, Handlers, Routes, Run};

use crate::support::TestDir;

/// Longer than any run that is meant to end by itself.
const LONG: Duration = Duration::from_mins(1);

const RETRY: RetryPolicy = RetryPolicy {
    max_attempts: 5,
    backoff: Duration::from_secs(30),
    multiplier: 2.0,
    max: Duration::from_hours(1),
    jitter: 0.1,
};

fn config(routes: Vec<RouteSpec>) -> Config {
    let one = NonZeroU16::MIN;
    Config {
        processes: one,
        batch_size: None,
        poll_interval: Duration::from_secs(1),
        max_parallel: NonZeroU16::new(4).unwrap(),
        retry: RETRY,
        connect_timeout: Duration::from_secs(10),
        query_timeout: Duration::from_secs(30),
        lease: Duration::from_mins(1),
        drain_timeout: Duration::from_secs(35),
        handler_timeout: LONG,
        pool_size: one,
        max_batch_bytes: 1 << 26,
        routes,
        http: None,
        log_level: LogLevel::Info,
        unrouted: Unrouted::Fail,
        database: "shop".to_owned(),
    }
}

fn spec(pattern: &str, handler: HandlerSpec) -> RouteSpec {
    RouteSpec {
        name: None,
        patterns: vec![pattern.to_owned()],
        handler,
        timeout: LONG,
        max_parallel: None,
        retry: RETRY,
    }
}

fn event(event_type: &str) -> Event {
    Event {
        id: 812,
        aggregate_type: "order".to_owned(),
        aggregate_id: "42".to_owned(),
        event_type: event_type.to_owned(),
        payload: r#"{"total": 1e400}"#.to_owned(),
        attempt: 3,
        created_at_micros: Some(0),
        headers: None,
    }
}

/// The routes of a configuration file that holds this text, as `run` reads them; a refusal as the
/// user sees it.
fn routes_of(text: &str, env: &[(&str, &str)]) -> Result<Routes, String> {
    let directory = TestDir::new();
    let path = directory.file("c.toml");
    fs::write(&path, text).unwrap();
    let args = ["--dsn=host=h dbname=shop", "--config", &path].map(OsString::from);
    let Parsed::Command(command) = front::parse(args).unwrap() else {
        panic!("this is no command")
    };
    let Command::Run(args) = *command else {
        panic!("this is not `run`")
    };
    let named = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let env: Env = env.iter().map(named).collect();
    let settings = settings::resolve(&args, &env, &Handlers::default())
        .map_err(|error| error.to_string().replace(&path, "FILE"))?;
    Ok(Routes::new(&settings.config, &Handlers::default()).unwrap())
}

/// The secret in the variable `WEBHOOK`: that of the reference implementations' own tests.
const WEBHOOK: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One route for everything.
struct Only {
    routes: Routes,
    timeout: Duration,
}

impl Only {
    fn new(handler: HandlerSpec) -> Only {
        Only::within(LONG, handler)
    }

    fn within(timeout: Duration, handler: HandlerSpec) -> Only {
        let spec = RouteSpec {
            timeout,
            ..spec("*", handler)
        };
        let routes = Routes::new(&config(vec![spec]), &Handlers::default()).unwrap();
        Only { routes, timeout }
    }

    /// An http route to `url` for everything, with these further lines of its table.
    fn of_lines(url: &str, lines: &str) -> Only {
        let table =
            format!("[[route]]\nevent_type = '*'\nhandler = 'http'\nurl = '{url}'\n{lines}\n");
        Only {
            routes: routes_of(
                &table,
                &[("SECRET", "from-the-3nvironment"), ("WEBHOOK", WEBHOOK)],
            )
            .unwrap(),
            timeout: LONG,
        }
    }

    fn run(&self, event: &Event) -> Result<(), HandlerError> {
        self.run_telling(event, &|_| ())
    }

    fn run_telling(&self, event: &Event, on_group: &dyn Fn(u32)) -> Result<(), HandlerError> {
        let index = self.routes.find(&event.event_type).unwrap();
        let run = Run {
            timeout: self.timeout,
            on_group,
            worker: "test",
        };
        self.routes.get(index).run(event, &run)
    }
}

/// Asserts a failed attempt that follows the backoff, and returns its reason.
#[track_caller]
fn retry_reason(result: Result<(), HandlerError>) -> String {
    match result {
        Err(HandlerError::Retry {
            reason,
            after: None,
        }) => reason,
        other => panic!("expected a retry, got {other:?}"),
    }
}
