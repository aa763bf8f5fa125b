//! The diagnosis: the first of all reasons that holds.

use std::time::Duration;

use crate::cli::commands::explain::{RouteFacts, Story, Taken};
use crate::cli::terminal;
use crate::domain::figure::counted;
use crate::handlers::no_route_reason;
use crate::store::{EventLease, Inspection, StoreError, looks_in_vain};
use crate::system::logging;

/// Most characters of an error in the sentence; the whole error stands below it.
const ERROR_CHARS_MAX: usize = 200;

/// Why an event has not been delivered yet.
pub(super) struct Diagnosis {
    /// A code for scripts.
    pub(super) code: &'static str,
    pub(super) text: String,
}

/// What `--unrouted leave` means for an event that no route takes.
fn left_alone(since: &str, event_type: &str) -> String {
    format!(
        "{since}, and no route takes event_type `{event_type}`: a daemon with these routes leaves it alone, until one has a route for it"
    )
}

impl Story {
    /// Says why the event has not been delivered yet.
    pub(super) fn diagnosis(&self) -> Diagnosis {
        let Some(event) = &self.event else {
            return self.absent();
        };
        let at = |time: &Option<String>| {
            time.as_deref()
                .map_or_else(|| "an unknown time".to_owned(), terminal::short_time)
        };
        let error = event.last_error.as_deref().map_or_else(
            || "no error was kept".to_owned(),
            |error| terminal::cut(error, ERROR_CHARS_MAX),
        );
        match event.status.as_str() {
            "done" => diagnosis("done", format!("it was done at {}", at(&event.finished_at))),
            "dead" => diagnosis(
                "dead",
                format!(
                    "it has been dead since {} after {}: {error}; `dispatchbox dead-events retry {}` makes it due again",
                    at(&event.finished_at),
                    counted(event.attempts, "attempt"),
                    self.id
                ),
            ),
            "pending" | "retry" => match &event.lease {
                Some(lease) => leased(event, lease, self.obstacle.as_ref()),
                None if event.is_time_over => self.due(event),
                None => self.not_due(event),
            },
            status => diagnosis(
                "unknown_status",
                format!(
                    "its status is `{status}`, which no worker claims: only `pending` and `retry` are ever due"
                ),
            ),
        }
    }

    fn absent(&self) -> Diagnosis {
        match &self.archived {
            Some(archived) => diagnosis(
                "archived",
                format!(
                    "it is in the archive since {}, as {} after {}",
                    terminal::short_time(&archived.archived_at),
                    archived.status,
                    counted(archived.attempts, "attempt")
                ),
            ),
            None => diagnosis(
                "not_found",
                match &self.hidden {
                    None => "there is no such event, neither in outbox_event nor in the archive: it was never committed, or was deleted".to_owned(),
                    Some(hidden) => format!("this role sees no such event, and it does not see all: {hidden}"),
                },
            ),
        }
    }

    /// Says why an event that could be claimed at this moment is not.
    fn due(&self, event: &Inspection) -> Diagnosis {
        let since = event
            .next_run_at_micros
            .and_then(|due| until(due, event.now_micros))
            .map_or_else(
                || "it is due".to_owned(),
                |age| format!("it has been due for {}", terminal::in_words(age)),
            );
        match &self.route {
            Taken::No => diagnosis(
                "no_route",
                format!(
                    "{since}, and no route takes event_type `{0}`: its next attempt will fail with `{1}`, until a route is added",
                    event.event_type,
                    no_route_reason(&event.event_type)
                ),
            ),
            Taken::Left => diagnosis("no_route", left_alone(&since, &event.event_type)),
            Taken::By(_) | Taken::Unknown if self.n_leasing == 0 && self.n_connected == 0 => {
                diagnosis(
                    "no_worker",
                    format!(
                        "{since}, and no worker is seen: none holds a lease, and this role sees no connection of one"
                    ),
                )
            }
            Taken::By(route) if self.is_full(route) => diagnosis(
                "route_full",
                format!(
                    "{since}, and its route `{}` seems to be full: {} of its events {} claimed, and a worker takes {} ({} with leases)",
                    route.name,
                    self.n_route_claimed,
                    if self.n_route_claimed == 1 {
                        "is"
                    } else {
                        "are"
                    },
                    route.max_parallel.unwrap_or(0),
                    counted(self.n_leasing, "worker")
                ),
            ),
            Taken::By(_) | Taken::Unknown => diagnosis(
                "due",
                format!("{since}, and waits for its turn or for room in a worker"),
            ),
        }
    }

    fn not_due(&self, event: &Inspection) -> Diagnosis {
        let Some(due) = event.next_run_at_micros else {
            let time = event.next_run_at.as_deref().unwrap_or("null");
            return diagnosis(
                "never_due",
                format!("it is never due: its next_run_at is {time}"),
            );
        };
        let left = terminal::in_words(until(event.now_micros, due).unwrap_or_default());
        let end = terminal::short_time(event.next_run_at.as_deref().unwrap_or_default());
        let attempt = event.attempts.max(0).saturating_add(1);
        if matches!(self.route, Taken::No) {
            let again = if event.status == "retry" {
                " again"
            } else {
                ""
            };
            return diagnosis(
                "no_route",
                format!(
                    "no route takes {}: it will fail{again} at {end} (in {left}, attempt {attempt}) until a route is added",
                    event.event_type
                ),
            );
        }
        if matches!(self.route, Taken::Left) {
            let since = format!("it is due at {end} (in {left})");
            return diagnosis("no_route", left_alone(&since, &event.event_type));
        }
        let why = match (event.status.as_str(), &event.last_error) {
            ("retry", Some(error)) => format!(
                ", for attempt {attempt}; the last one failed: {}",
                terminal::cut(error, ERROR_CHARS_MAX)
            ),
            _ => String::new(),
        };
        diagnosis(
            "not_due",
            format!("it is not due until {end} (in {left}){why}"),
        )
    }

    /// Guesses whether a route is full: claimed events are counted, while only those in flight fill
    /// a route.
    fn is_full(&self, route: &RouteFacts) -> bool {
        route
            .max_parallel
            .is_some_and(|most| self.n_route_claimed >= u64::from(most) * self.n_leasing.max(1))
    }
}

fn diagnosis(code: &'static str, text: String) -> Diagnosis {
    let text = logging::escape(&text).into_owned();
    Diagnosis { code, text }
}

fn leased(event: &Inspection, lease: &EventLease, obstacle: Option<&StoreError>) -> Diagnosis {
    let worker = &lease.worker;
    let end = terminal::short_time(&lease.expires_at);
    let left = lease
        .expires_at_micros
        .and_then(|end| until(event.now_micros, end));
    if let Some(looks) = looks_in_vain(worker) {
        let times = if looks == 1 { "time" } else { "times" };
        return diagnosis(
            "unreadable",
            format!(
                "it was read in vain, {looks} {times}, and claims pass over it until {end}: the log of a daemon says why; it is then read again, and \
                 after as many looks as there are attempts it is dead"
            ),
        );
    }
    if let Some(obstacle) = obstacle {
        return diagnosis(
            "refused",
            format!(
                "worker {worker} has claimed it, and the database does not take its outcome now: {}; the worker keeps it and tries again",
                terminal::cut(obstacle.cause(), ERROR_CHARS_MAX)
            ),
        );
    }
    match left {
        Some(left) if !left.is_zero() => diagnosis(
            "leased",
            format!(
                "worker {worker} has claimed it and holds it until {end} (for {} unless it renews)",
                terminal::in_words(left)
            ),
        ),
        Some(_) | None => diagnosis(
            "lease_expired",
            format!(
                "worker {worker} has claimed it, its lease is over since {end} and not swept yet: a running worker of any host will, once it has seen \
                 that twice"
            ),
        ),
    }
}

/// The time from one moment to a later one; `None` when it is not later.
fn until(from_micros: i64, to_micros: i64) -> Option<Duration> {
    let micros = to_micros.checked_sub(from_micros)?;
    u64::try_from(micros).ok().map(Duration::from_micros)
}
