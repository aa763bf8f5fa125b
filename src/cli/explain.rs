//! `dispatchbox explain`: why an event has not been delivered yet, in one sentence, and what that is known from.
//!
//! It asks the database alone, so it works while no daemon does. What the database cannot know is told as what it is: routes are those that this
//! command is given, and that a route is full is a guess from the leases.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::one_shot::{self, Failure, one_shot_args};
use crate::cli::run::RunArgs;
use crate::cli::settings::{self, Env};
use crate::cli::terminal;
use crate::cli::{print, values};
use crate::config::Config;
use crate::error::{EXIT_FAILED, UsageError};
use crate::handler::{Handlers, Routes, no_route_reason};
use crate::logging;
use crate::store::{Archived, EventLease, Inspection, Session, StoreError};

one_shot_args! {
    /// Options of `explain`.
    pub struct ExplainArgs {
        #[argh(positional, arg_name = "id")]
        /// id of the event
        pub id: String,
        #[argh(option, arg_name = "pattern=handler")]
        /// a route as the daemon has it, so that it can be said which one takes the event; those of --config are read, too
        pub route: Vec<String>,
        #[argh(switch)]
        /// print one JSON object
        pub json: bool,
    }
}

/// Runs the command; `handlers` are those that the program itself brings.
pub fn run(args: &ExplainArgs, env: &Env, handlers: &Handlers) -> ExitCode {
    let read = || {
        let id =
            values::event_id(&args.id).map_err(|why| UsageError::new(format!("the id {why}")))?;
        let (settings, _) = settings::read_all(&args.as_run(), env, handlers)?;
        Ok((id, settings.config))
    };
    one_shot::run("explain", args.given(), env, read, |session, wanted| {
        let (id, config) = wanted;
        let story = Story::read(session, id, &config, handlers)?;
        let verdict = story.verdict();
        print(&if args.json {
            terminal::safe_json(&story.json(&verdict).to_string()) + "\n"
        } else {
            story.text(&verdict)
        });
        let is_found = story.event.is_some() || story.archived.is_some();
        Ok(ExitCode::from(if is_found { 0 } else { EXIT_FAILED }))
    })
}

impl ExplainArgs {
    /// The options that `run` shares.
    fn as_run(&self) -> RunArgs {
        RunArgs {
            dsn: self.dsn.clone(),
            dsn_file: self.dsn_file.clone(),
            config: self.config.clone(),
            route: self.route.clone(),
            ..RunArgs::default()
        }
    }
}

/// All that is known about an event.
struct Story {
    id: i64,
    event: Option<Inspection>,
    archived: Option<Archived>,
    route: Taken,
    /// Workers with a lease that is not over.
    n_leasing: u64,
    /// Workers whose connections can be seen.
    n_connected: u64,
    /// Claimed events whose type the event's route takes.
    n_route_claimed: u64,
}

/// Which route takes an event.
enum Taken {
    /// Nobody has said what the routes are.
    Unknown,
    /// None.
    No,
    By(RouteFacts),
}

struct RouteFacts {
    pattern: String,
    max_attempts: u32,
    /// Most events of the route in flight in one worker.
    max_parallel: Option<u16>,
}

/// The answer.
struct Verdict {
    /// For scripts.
    code: &'static str,
    text: String,
}

impl Story {
    fn read(
        session: &mut Session,
        id: i64,
        config: &Config,
        handlers: &Handlers,
    ) -> Result<Story, Failure> {
        let mut story = Story {
            id,
            event: session.inspect(id)?,
            archived: None,
            route: Taken::Unknown,
            n_leasing: 0,
            n_connected: 0,
            n_route_claimed: 0,
        };
        let Some(event) = &story.event else {
            story.archived = session.archived(id)?;
            return Ok(story);
        };
        if !config.routes.is_empty() || handlers.has_routes() {
            let routes = Routes::new(config, handlers)
                .map_err(|err| Failure::Usage(UsageError::new(err.to_string())))?;
            story.route = taken(&routes, &event.event_type);
            story.n_route_claimed = claimed(session, &routes, &event.event_type)?;
        }
        let holders = session.lease_holders()?;
        story.n_leasing = holders.iter().filter(|holder| !holder.is_expired).count() as u64;
        story.n_connected = session.connected_workers()?;
        Ok(story)
    }

    fn verdict(&self) -> Verdict {
        let Some(event) = &self.event else {
            return self.absent();
        };
        let at = |time: &Option<String>| {
            time.as_deref()
                .map_or_else(|| "an unknown time".to_owned(), terminal::short_time)
        };
        let error = event.last_error.as_deref().unwrap_or("no error was kept");
        match event.status.as_str() {
            "done" => verdict("done", format!("it was done at {}", at(&event.finished_at))),
            "dead" => verdict(
                "dead",
                format!(
                    "it is dead since {} after {} attempt{}: {error}; `dispatchbox dead-events retry {}` makes it due again",
                    at(&event.finished_at),
                    event.attempts,
                    if event.attempts == 1 { "" } else { "s" },
                    self.id
                ),
            ),
            "pending" | "retry" => match &event.lease {
                Some(lease) => leased(event, lease),
                None if event.is_time_over => self.due(event),
                None => not_due(event),
            },
            status => verdict(
                "unknown_status",
                format!(
                    "its status is `{status}`, which no worker claims: only `pending` and `retry` are ever due"
                ),
            ),
        }
    }

    fn absent(&self) -> Verdict {
        match &self.archived {
            Some(archived) => verdict(
                "archived",
                format!(
                    "it is in the archive since {}, as {} after {} attempt{}",
                    terminal::short_time(&archived.archived_at),
                    archived.status,
                    archived.attempts,
                    if archived.attempts == 1 { "" } else { "s" }
                ),
            ),
            None => verdict(
                "not_found",
                "there is no such event, neither in outbox_event nor in the archive: it was never committed, or was deleted"
                    .to_owned(),
            ),
        }
    }

    /// It could be claimed at this moment: why is it not?
    fn due(&self, event: &Inspection) -> Verdict {
        let since = event
            .next_run_at_micros
            .and_then(|due| until(due, event.now_micros))
            .map_or_else(
                || "it is due".to_owned(),
                |age| format!("it is due since {}", terminal::in_words(age)),
            );
        if self.n_leasing == 0 && self.n_connected == 0 {
            return verdict(
                "no_worker",
                format!(
                    "{since}, and no worker is seen: none holds a lease, and this role sees no connection of one"
                ),
            );
        }
        match &self.route {
            Taken::No => verdict(
                "no_route",
                format!(
                    "{since}, and no route takes event_type `{0}`: its next attempt will fail with `{1}`",
                    event.event_type,
                    no_route_reason(&event.event_type)
                ),
            ),
            Taken::By(route) if self.is_full(route) => verdict(
                "route_full",
                format!(
                    "{since}, and its route `{}` seems to be full: {} of its events are claimed, and each of {} workers takes {}",
                    route.pattern,
                    self.n_route_claimed,
                    self.n_leasing,
                    route.max_parallel.unwrap_or(0)
                ),
            ),
            Taken::By(_) | Taken::Unknown => verdict(
                "due",
                format!("{since}, and waits for its turn or for room in a worker"),
            ),
        }
    }

    /// A guess: claimed events are counted, while a route is full by those in flight.
    fn is_full(&self, route: &RouteFacts) -> bool {
        route
            .max_parallel
            .is_some_and(|most| self.n_route_claimed >= u64::from(most) * self.n_leasing.max(1))
    }

    fn text(&self, verdict: &Verdict) -> String {
        let mut lines = vec![("verdict", verdict.text.clone())];
        if let Some(event) = &self.event {
            let attempts = match &self.route {
                Taken::By(route) => format!("{} of {}", event.attempts, route.max_attempts),
                Taken::No | Taken::Unknown => event.attempts.to_string(),
            };
            let route = match &self.route {
                Taken::Unknown => {
                    "not known here: give --config or --route as the daemon has them".to_owned()
                }
                Taken::No => format!("none takes event_type `{}`", event.event_type),
                Taken::By(route) => route.pattern.clone(),
            };
            let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            lines.extend([
                ("event type", event.event_type.clone()),
                (
                    "aggregate",
                    format!("{}/{}", event.aggregate_type, event.aggregate_id),
                ),
                ("status", event.status.clone()),
                ("attempts", attempts),
                ("written", or_dash(&event.created_at)),
                ("due at", or_dash(&event.next_run_at)),
                ("last error", or_dash(&event.last_error)),
                ("failed last", or_dash(&event.last_error_at)),
                ("route", route),
                (
                    "workers",
                    format!(
                        "{} with live leases, {} whose connections this role sees",
                        self.n_leasing, self.n_connected
                    ),
                ),
            ]);
        } else if let Some(error) = self
            .archived
            .as_ref()
            .and_then(|one| one.last_error.clone())
        {
            lines.push(("last error", error));
        }
        format!("event {}\n{}", self.id, terminal::fields(&lines))
    }

    fn json(&self, verdict: &Verdict) -> Value {
        let event = self.event.as_ref().map(|event| {
            json!({
                "aggregate_type": event.aggregate_type,
                "aggregate_id": event.aggregate_id,
                "event_type": event.event_type,
                "status": event.status,
                "attempts": event.attempts,
                "next_run_at": event.next_run_at,
                "created_at": event.created_at,
                "last_error": event.last_error,
                "last_error_at": event.last_error_at,
                "finished_at": event.finished_at,
                "lease": event.lease.as_ref().map(|lease| json!({
                    "worker": lease.worker,
                    "expires_at": lease.expires_at,
                })),
            })
        });
        let archived = self.archived.as_ref().map(|archived| {
            json!({
                "status": archived.status,
                "attempts": archived.attempts,
                "archived_at": archived.archived_at,
                "last_error": archived.last_error,
            })
        });
        let route = match &self.route {
            Taken::Unknown => json!({"known": false, "pattern": null}),
            Taken::No => json!({"known": true, "pattern": null}),
            Taken::By(route) => json!({
                "known": true,
                "pattern": route.pattern,
                "max_attempts": route.max_attempts,
                "max_parallel": route.max_parallel,
            }),
        };
        json!({
            "id": self.id,
            "code": verdict.code,
            "verdict": verdict.text,
            "event": event,
            "archived": archived,
            "route": route,
            "workers": {"leasing": self.n_leasing, "connected": self.n_connected},
        })
    }
}

fn verdict(code: &'static str, text: String) -> Verdict {
    let text = logging::escape(&text).into_owned();
    Verdict { code, text }
}

fn leased(event: &Inspection, lease: &EventLease) -> Verdict {
    let worker = &lease.worker;
    let end = terminal::short_time(&lease.expires_at);
    let left = lease
        .expires_at_micros
        .and_then(|end| until(event.now_micros, end));
    match left {
        Some(left) if !left.is_zero() => verdict(
            "leased",
            format!(
                "worker {worker} has claimed it and holds it until {end} (for {} unless it renews)",
                terminal::in_words(left)
            ),
        ),
        Some(_) | None => verdict(
            "lease_expired",
            format!(
                "worker {worker} has claimed it, its lease is over since {end} and not swept yet: a running worker of any host will, once it has seen \
                 that twice"
            ),
        ),
    }
}

fn not_due(event: &Inspection) -> Verdict {
    let Some(due) = event.next_run_at_micros else {
        let time = event.next_run_at.as_deref().unwrap_or("null");
        return verdict(
            "never_due",
            format!("it is never due: its next_run_at is {time}"),
        );
    };
    let left = until(event.now_micros, due).unwrap_or_default();
    let end = event.next_run_at.as_deref().unwrap_or_default();
    let attempt = event.attempts.max(0) + 1;
    let why = match (event.status.as_str(), &event.last_error) {
        ("retry", Some(error)) => format!(", for attempt {attempt}; the last one failed: {error}"),
        _ => String::new(),
    };
    verdict(
        "not_due",
        format!(
            "it is not due until {} (in {}){why}",
            terminal::short_time(end),
            terminal::in_words(left)
        ),
    )
}

/// From one time to a later one; `None` when it is not later.
fn until(from_micros: i64, to_micros: i64) -> Option<Duration> {
    let micros = to_micros.checked_sub(from_micros)?;
    u64::try_from(micros).ok().map(Duration::from_micros)
}

fn taken(routes: &Routes, event_type: &str) -> Taken {
    routes.find(event_type).map_or(Taken::No, |at| {
        let route = routes.get(at);
        Taken::By(RouteFacts {
            pattern: route.pattern.clone(),
            max_attempts: route.retry.max_attempts,
            max_parallel: route.max_parallel.map(std::num::NonZeroU16::get),
        })
    })
}

/// Counts the claimed events that go the way of this type.
fn claimed(session: &mut Session, routes: &Routes, event_type: &str) -> Result<u64, StoreError> {
    let route = routes.find(event_type);
    let types = session.in_flight_types()?;
    Ok(types
        .iter()
        .filter(|(event_type, _)| routes.find(event_type) == route)
        .map(|(_, count)| count)
        .sum())
}
