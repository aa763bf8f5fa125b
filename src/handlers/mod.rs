//! Handlers: the code that delivers one event, and what its result means.
//!
//! A handler of your own needs [`Handler`], [`HandlerError`], [`Handlers`] and [`Event`]; these
//! four stay as they are. The kinds that ship with the program ([`log`], [`exec`], [`http`]) keep
//! the same contract ([`sample`] has the routes that stand in when none is configured):
//!
//! | the handler says | what comes of the event |
//! |---|---|
//! | `Ok(())` | done |
//! | [`HandlerError::Retry`] | due again after the route's backoff, or after the time that the receiver asked for; dead when it was the last attempt |
//! | [`HandlerError::Permanent`] | dead at once |
//! | a panic | as `Retry` |
//!
//! An event can reach a handler more than once, after a crash for example: handlers must bear
//! repetition. [`Event::id`] is the same in each attempt.
//!
//! ```
//! use dispatchbox::event::Event;
//! use dispatchbox::handler::{Handler, HandlerError, Handlers};
//!
//! struct Mailer {
//!     sender: String,
//! }
//!
//! impl Handler for Mailer {
//!     fn handle(&self, event: &Event) -> Result<(), HandlerError> {
//!         if event.payload == "null" {
//!             return Err(HandlerError::Permanent("there is nobody to write to".to_owned()));
//!         }
//!         send(&self.sender, &event.payload).map_err(HandlerError::retry)
//!     }
//! }
//! # fn send(_: &str, _: &str) -> Result<(), String> { Ok(()) }
//!
//! let handlers = Handlers::default()
//!     // A route that stands before those of the file and of the command line …
//!     .on("mail.*", Mailer { sender: "shop@example.com".to_owned() })
//!     // … and a handler for their `handler = "audit"`; a closure does.
//!     .register("audit", |event: &Event| {
//!         log::info!("{} {}", event.id, event.event_type);
//!         Ok(())
//!     });
//! # drop(handlers);
//! ```

mod custom;
pub mod exec;
#[cfg(test)]
mod fuzz;
pub mod http;
pub(crate) mod keys;
pub(crate) mod kind;
pub mod log;
mod outcome;
mod process;
mod route;
pub mod sample;
mod segments;
pub mod transport;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::event::Event;

use kind::KindEntry;

pub use custom::Handlers;
pub use outcome::{no_route_reason, outcome_of};
pub(crate) use route::settings_of;
pub use route::{Route, RouteError, Routes, check_pattern, covers};
pub use segments::Segments;

/// The kinds of handlers that ship with the program, in the order in which messages and help name
/// them. To add one: its file, declared above, and a line here.
pub(crate) const KINDS: &[KindEntry] = &[
    KindEntry::of::<log::Log>(),
    KindEntry::of::<exec::ExecSettings>(),
    KindEntry::of::<http::HttpSettings>(),
];

/// Delivers one event. Called from several threads at once.
pub trait Handler: Send + Sync {
    /// Delivers `event`; a panic counts as a failed attempt.
    fn handle(&self, event: &Event) -> Result<(), HandlerError>;
}

/// A closure is a handler; its parameter needs its type, `|event: &Event|`.
impl<F> Handler for F
where
    F: Fn(&Event) -> Result<(), HandlerError> + Send + Sync,
{
    fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        self(event)
    }
}

/// A shared handler is a handler, so that its owner can keep looking at it.
impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        (**self).handle(event)
    }
}

/// Why a delivery failed, and what should come of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// Worth another attempt.
    #[error("{reason}")]
    Retry {
        /// Kept in `last_error`.
        reason: String,
        /// What the receiver asked for; `None` means the route's backoff.
        after: Option<Duration>,
    },
    /// No attempt can succeed: the event is dead at once.
    #[error("{0}")]
    Permanent(String),
}

impl HandlerError {
    /// A failed attempt that follows the route's backoff.
    pub fn retry(reason: impl Into<String>) -> HandlerError {
        HandlerError::Retry {
            reason: reason.into(),
            after: None,
        }
    }
}

/// What one run of a handler may need from the runner that starts it.
pub struct Run<'a> {
    /// Bound of the run. The handlers that ship with the program keep it; one of a library user
    /// cannot be interrupted.
    pub timeout: Duration,
    /// Called by `exec` with the process group of its child as soon as that exists, so that the
    /// runner can record what has to be ended should this worker die, and with 0 just before the
    /// group's number becomes free for other processes.
    pub on_group: &'a dyn Fn(u32),
    /// The id of the worker that runs the handler; a program is marked with it.
    pub worker: &'a str,
}

/// Writes a duration as a person would: `30 s`, `1500 ms`.
fn in_words(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_their_unit() {
        assert_eq!(in_words(Duration::from_secs(30)), "30 s");
        assert_eq!(in_words(Duration::from_millis(1500)), "1500 ms");
        assert_eq!(in_words(Duration::from_micros(1)), "0 s");
    }
}
