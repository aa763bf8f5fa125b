//! `dispatchbox publish`: writes one event and prints its id.
//!
//! For trying things out and for scripts. An application inserts its events itself, in the transaction of its business data: that is the point
//! of an outbox.

use std::io::{self, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::de::IgnoredAny;

use crate::cli::one_shot::{self, Failure, one_shot_args};
use crate::cli::output::print;
use crate::cli::settings::Env;
use crate::cli::values;
use crate::error::UsageError;
use crate::store::{NewEvent, StoreError};

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

/// Runs the command.
pub fn run(args: &PublishArgs, env: &Env) -> ExitCode {
    let read = || event(args);
    one_shot::run("publish", args.given(), env, read, |session, event| {
        let id = session
            .publish(&event)
            .map_err(|err| refusal(err, &event))?;
        // Whoever does not learn the id would write the event again.
        print(&if args.json {
            format!("{{\"id\":{id}}}\n")
        } else {
            format!("{id}\n")
        })
        .map_err(|err| err.but(&format!("the event is written, its id is {id}")))?;
        Ok(ExitCode::SUCCESS)
    })
}

fn event(args: &PublishArgs) -> Result<NewEvent, UsageError> {
    let filled = |name: &str, text: &str| {
        values::filled(text).map_err(|why| UsageError::new(format!("{name} {why}")))
    };
    let after = args.after.as_deref().map_or(Ok(Duration::ZERO), |text| {
        values::age(text).map_err(|why| UsageError::new(format!("--after {why}")))
    })?;
    let event_type = filled("--event-type", &args.event_type)?;
    let aggregate_type = filled("--aggregate-type", &args.aggregate_type)?;
    let aggregate_id = filled("--aggregate-id", &args.aggregate_id)?;
    if let Some(headers) = &args.headers {
        check_json("--headers", headers)?;
        // JSON it is, so its first character tells what kind.
        if !headers.trim_start().starts_with('{') {
            return Err(UsageError::new(
                "--headers must be a JSON object, such as `{\"trace\": \"x\"}`",
            ));
        }
    }
    let payload = match args.payload.as_deref() {
        None => "{}".to_owned(),
        Some("-") => standard_input()?,
        Some(text) => text.to_owned(),
    };
    check_json("--payload", &payload)?;
    Ok(NewEvent {
        aggregate_type,
        aggregate_id,
        event_type,
        payload,
        headers: args.headers.clone(),
        after,
    })
}

fn standard_input() -> Result<String, UsageError> {
    let failed = |why: &dyn std::fmt::Display| {
        UsageError::new(format!(
            "could not read --payload from standard input: {why}"
        ))
    };
    let mut text = String::new();
    let n_bytes = io::stdin()
        .take(PAYLOAD_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|err| failed(&err))?;
    if n_bytes as u64 > PAYLOAD_BYTES_MAX {
        return Err(failed(&"it is larger than 1 GiB"));
    }
    Ok(text)
}

/// The text goes to the server as it is; here is only seen whether it is JSON, because the server would not say where it is not.
fn check_json(name: &str, text: &str) -> Result<(), UsageError> {
    serde_json::from_str::<IgnoredAny>(text)
        .map(drop)
        .map_err(|err| UsageError::new(format!("{name} is not JSON: {err}")))
}

/// What is JSON and yet no `jsonb`: `\u0000`, half of a surrogate pair, a number beyond all measure.
fn refusal(err: StoreError, event: &NewEvent) -> Failure {
    if !err.is_bad_json() {
        return err.into();
    }
    let names = if event.headers.is_some() {
        "--payload or --headers"
    } else {
        "--payload"
    };
    Failure::Usage(UsageError::new(format!(
        "PostgreSQL does not take {names}: {}",
        err.cause()
    )))
}
