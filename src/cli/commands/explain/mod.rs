//! `dispatchbox explain`: says in one sentence why an event has not been delivered yet, and shows
//! the facts that this follows from.
//!
//! The command asks the database alone, so it works while no daemon does. What the database cannot
//! know is marked: the routes are those that this command is given, and that a route is full is a
//! guess from the leases.

mod diagnosis;
mod view;

use std::process::ExitCode;

use crate::cli::commands::one_shot::{self, Failure, one_shot_args};
use crate::cli::settings::{self, Env, values};
use crate::cli::terminal;
use crate::cli::terminal::output::print;
use crate::domain::config::{Config, Unrouted};
use crate::domain::usage::{EXIT_FAILED, UsageError};
use crate::handlers::{Handlers, Routes};
use crate::store::{Archived, Inspection, Session, StoreError};

one_shot_args! {
    /// Options of `explain`.
    pub struct ExplainArgs {
        #[argh(positional, arg_name = "id")]
        /// id of the event
        pub id: String,
        #[argh(option, arg_name = "pattern=handler")]
        /// a route as the daemon has it, so that it can be said which one takes the event; those of
        /// --config are read, too
        pub route: Vec<String>,
        #[argh(switch)]
        /// print one JSON object
        pub json: bool,
    }
}

/// Runs the command; `handlers` are those that the program itself brings.
pub fn run(args: &ExplainArgs, env: &Env, handlers: &Handlers) -> ExitCode {
    let read = || {
        let id = values::named("the id", &args.id, values::event_id)?;
        let file = args.config.clone();
        let (config, _) = settings::read_patterns(file, &args.route, env, handlers)?;
        Ok((id, config))
    };
    one_shot::look("explain", args.given(), env, read, |session, wanted| {
        let (id, config) = wanted;
        let story = Story::read(session, id, &config, handlers)?;
        let diagnosis = story.diagnosis();
        print(&if args.json {
            terminal::safe_json(&story.json(&diagnosis).to_string()) + "\n"
        } else {
            story.text(&diagnosis)
        })?;
        let is_found = story.event.is_some() || story.archived.is_some();
        Ok(ExitCode::from(if is_found { 0 } else { EXIT_FAILED }))
    })
}

/// All that is known about an event.
struct Story {
    id: i64,
    event: Option<Inspection>,
    archived: Option<Archived>,
    /// What row-level security hides from this role; checked where the event is not seen.
    hidden: Option<String>,
    route: Taken,
    /// The error with which the database refuses the outcome of the claimed event.
    obstacle: Option<StoreError>,
    /// Workers with a lease that has not expired.
    n_leasing: u64,
    /// Workers whose connections this role sees.
    n_connected: u64,
    /// Claimed events whose type the event's route takes.
    n_route_claimed: u64,
}

/// Which route takes an event.
enum Taken {
    /// The routes are not given.
    Unknown,
    /// No route takes the event; it is left for a daemon that has one.
    Left,
    /// No route takes the event: its attempts fail.
    No,
    By(RouteFacts),
}

struct RouteFacts {
    name: String,
    patterns: String,
    max_attempts: u32,
    /// Most events of the route in flight in one worker.
    max_parallel: Option<u16>,
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
            hidden: None,
            route: Taken::Unknown,
            obstacle: None,
            n_leasing: 0,
            n_connected: 0,
            n_route_claimed: 0,
        };
        let holders = session.lease_holders()?;
        story.n_leasing = holders.iter().filter(|holder| !holder.is_expired).count() as u64;
        story.n_connected = session.connected_workers()?;
        let Some(event) = &story.event else {
            story.archived = session.archived(id)?;
            story.hidden = session.hidden_from_readers()?;
            return Ok(story);
        };
        if let Some(lease) = &event.lease {
            // Where this role may not write, it is not known whether the database takes an outcome.
            story.obstacle = session.rehearse_settling(id, lease).unwrap_or_default();
        }
        if !config.routes.is_empty() || handlers.has_routes() {
            let routes = Routes::new(config, handlers)
                .map_err(|error| Failure::Usage(UsageError::new(error.to_string())))?;
            story.route = taken(&routes, &event.event_type, config.unrouted);
            story.n_route_claimed = claimed(session, &routes, &event.event_type)?;
        }
        Ok(story)
    }
}

fn taken(routes: &Routes, event_type: &str, unrouted: Unrouted) -> Taken {
    let by_none = match unrouted {
        Unrouted::Fail => Taken::No,
        Unrouted::Leave => Taken::Left,
    };
    routes.find(event_type).map_or(by_none, |at| {
        let route = routes.get(at);
        Taken::By(RouteFacts {
            name: route.name.clone(),
            patterns: route.patterns.join(", "),
            max_attempts: route.retry.max_attempts,
            max_parallel: route.max_parallel.map(std::num::NonZeroU16::get),
        })
    })
}

/// Counts the claimed events whose types have the same route as this type.
fn claimed(session: &mut Session, routes: &Routes, event_type: &str) -> Result<u64, StoreError> {
    let route = routes.find(event_type);
    let types = session.in_flight_types()?;
    Ok(types
        .iter()
        .filter(|(event_type, _)| routes.find(event_type) == route)
        .map(|(_, count)| count)
        .sum())
}
