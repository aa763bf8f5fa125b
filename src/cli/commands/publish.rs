//! `dispatchbox publish`: writes one event and prints its id.
//!
//! The command is for trials and scripts. An application inserts its events itself, in the
//! transaction of its business data: that is the point of an outbox.

use std::io;
use std::process::ExitCode;

use serde::de::IgnoredAny;

use crate::cli::commands::one_shot::{self, Failure, one_shot_args};
use crate::cli::settings::file::bounded;
use crate::cli::settings::{self, Env, values};
use crate::cli::terminal::message::warn;
use crate::cli::terminal::output::print;
use crate::domain::config::Unrouted;
use crate::domain::nearest::did_you_mean;
use crate::domain::usage::UsageError;
use crate::handlers::{Handlers, covers};
use crate::store::{NewEvent, Session, StoreError};

/// Most bytes that are read from standard input: PostgreSQL stores no larger value.
const PAYLOAD_BYTES_MAX: u64 = 1 << 30;

one_shot_args! {
    /// Options of `publish`.
    pub struct PublishArgs {
        #[argh(option, arg_name = "type")]
        /// what happened, `order.created` for example: routes are chosen by it
        pub event_type: String,
        #[argh(option, arg_name = "type")]
        /// kind of the business object that the event is about, `order` for example
        pub aggregate_type: String,
        #[argh(option, arg_name = "id")]
        /// which object of that kind
        pub aggregate_id: String,
        #[argh(option, arg_name = "json")]
        /// payload; `-` reads standard input [default: an empty object]
        pub payload: Option<String>,
        #[argh(option, arg_name = "json")]
        /// headers, handed to the handler beside the payload
        pub headers: Option<String>,
        #[argh(option, arg_name = "delay")]
        /// not due before this time is over: `30s`, `5m`, `2h`, `1d`, `1w` [default: 0s]
        pub after: Option<String>,
        #[argh(switch)]
        /// print a JSON object instead of the id alone
        pub json: bool,
    }
}

/// Runs the command; `handlers` are those that the program itself brings.
pub fn run(args: &PublishArgs, env: &Env, handlers: &Handlers) -> ExitCode {
    let read = || event(args);
    let unrouted = unrouted(args, env, handlers);
    one_shot::run("publish", args.given(), env, read, |session, event| {
        let id = match session.publish(&event) {
            Err(error) if error.is_bad_json() || error.is_untranslatable() => {
                return Err(refusal(session, error, &event)?);
            }
            id => id?,
        };
        // A script that does not learn the id would write the event again.
        print(&if args.json {
            format!("{{\"id\":{id}}}\n")
        } else {
            format!("{id}\n")
        })
        .map_err(|error| error.but(&format!("the event is written, its id is {id}")))?;
        warn(unrouted.as_slice());
        Ok(ExitCode::SUCCESS)
    })
}

/// Warns that no route takes the event type, where routes are known: from the configuration file,
/// or from the program itself. It is a warning because a daemon may have other routes on its
/// command line. Where no route is known there is no warning.
fn unrouted(args: &PublishArgs, env: &Env, handlers: &Handlers) -> Option<String> {
    // Errors in the settings of `run` are reported by `run`.
    let file = args.config.clone();
    let (config, effective) = settings::read_patterns(file, &[], env, handlers).ok()?;
    let in_file = config.routes.iter().flat_map(|route| &route.patterns);
    let in_file = in_file.map(String::as_str);
    let patterns: Vec<&str> = handlers.patterns().chain(in_file).collect();
    let is_taken = |pattern: &&str| covers(pattern, &args.event_type);
    if patterns.is_empty() || patterns.iter().any(is_taken) {
        return None;
    }
    let file = effective.iter().find(|setting| setting.name == "config");
    let whose = file.map_or_else(String::new, |file| format!(" in `{}`", file.value));
    let types = patterns
        .iter()
        .copied()
        .filter(|pattern| !pattern.ends_with('*'));
    let comes_of_it = match config.unrouted {
        Unrouted::Fail => "fails each of its attempts",
        Unrouted::Leave => "leaves it alone",
    };
    Some(format!(
        "no route{whose} takes the event type {}{}; a daemon with these routes alone {comes_of_it}",
        values::quoted(&args.event_type),
        did_you_mean(&args.event_type, types)
    ))
}

fn event(args: &PublishArgs) -> Result<NewEvent, UsageError> {
    let filled = |name, text| values::named(name, text, values::filled);
    let after = values::option("--after", args.after.as_deref(), values::age)?;
    let event_type = filled("--event-type", &args.event_type)?;
    let aggregate_type = filled("--aggregate-type", &args.aggregate_type)?;
    let aggregate_id = filled("--aggregate-id", &args.aggregate_id)?;
    if let Some(headers) = &args.headers {
        check_json("--headers", headers)?;
        // The text is valid JSON, so its first character tells its type.
        if !headers.trim_start().starts_with('{') {
            return Err(UsageError::new(
                "--headers must be a JSON object, such as `{\"trace\": \"x\"}`",
            ));
        }
    }
    let payload = match args.payload.as_deref() {
        None => "{}".to_owned(),
        Some("-") => bounded(io::stdin(), PAYLOAD_BYTES_MAX).map_err(|why| {
            UsageError::new(format!(
                "could not read --payload from standard input: {why}"
            ))
        })?,
        Some(text) => text.to_owned(),
    };
    check_json("--payload", &payload)?;
    Ok(NewEvent {
        aggregate_type,
        aggregate_id,
        event_type,
        payload,
        headers: args.headers.clone(),
        after: after.unwrap_or_default(),
    })
}

/// Checks that the text is JSON, because the server would not say where it is not. The text goes to
/// the server unchanged.
fn check_json(name: &str, text: &str) -> Result<(), UsageError> {
    serde_json::from_str::<IgnoredAny>(text)
        .map(drop)
        .map_err(|error| UsageError::new(format!("{name} is not JSON: {error}")))
}

/// Names the option that the server refused: a character that the database's encoding lacks, or
/// JSON that is no `jsonb`, such as `\u0000`, half of a surrogate pair, or a number beyond the
/// limits.
fn refusal(
    session: &mut Session,
    error: StoreError,
    event: &NewEvent,
) -> Result<Failure, StoreError> {
    let headers = event.headers.as_deref().unwrap_or("{}");
    for (option, text, is_json) in [
        ("--event-type", event.event_type.as_str(), false),
        ("--aggregate-type", &event.aggregate_type, false),
        ("--aggregate-id", &event.aggregate_id, false),
        ("--payload", &event.payload, true),
        ("--headers", headers, true),
    ] {
        if !session.takes(text, is_json)? {
            let text = format!("PostgreSQL does not take {option}: {}", error.cause());
            return Ok(Failure::Usage(UsageError::new(text)));
        }
    }
    // The server refused none of the options: a trigger or a constraint of the table did.
    Ok(error.into())
}
