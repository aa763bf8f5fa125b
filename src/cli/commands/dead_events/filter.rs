//! The filters on dead letters that several commands share.

use crate::cli::commands::one_shot::Failure;
use crate::cli::settings::values::{self, Moment};
use crate::domain::usage::UsageError;
use crate::store::{DeadFilter, Session};

/// Declares the options of a command on a set of dead letters: its own, and behind them the filters
/// and where the database is.
macro_rules! dead_set_args {
    ($(#[$about:meta])* pub struct $name:ident { $($own:tt)* }) => {
        crate::cli::commands::one_shot::one_shot_args! {
            $(#[$about])*
            pub struct $name {
                $($own)*
                #[argh(option, arg_name = "type")]
                /// only those of exactly this aggregate type
                pub aggregate_type: Option<String>,
                #[argh(option, arg_name = "type")]
                /// only those of this event type; `order.*` and `*` as in routes
                pub event_type: Option<String>,
                #[argh(option, arg_name = "text")]
                /// only those whose last error contains this text
                pub error: Option<String>,
                #[argh(option, arg_name = "time")]
                /// only those written at this time or later: `2025-01-02T03:04:05Z`, or an age such
                /// as `2h` or `30d`
                pub since: Option<String>,
                #[argh(option, arg_name = "time")]
                /// only those written before this time
                pub until: Option<String>,
            }
        }

        impl $name {
            fn chosen(&self) -> Result<crate::cli::commands::dead_events::filter::Chosen, crate::domain::usage::UsageError> {
                crate::cli::commands::dead_events::filter::Chosen::read(
                    [&self.aggregate_type, &self.event_type, &self.error],
                    [&self.since, &self.until],
                )
            }
        }
    };
}
pub(super) use dead_set_args;

/// Which event types `--event-type` means.
enum EventTypes {
    Exactly(String),
    BeginningWith(String),
}

impl EventTypes {
    /// Reads a pattern as a route has it. A text without a star is taken literally: a table may
    /// hold types that no route can name.
    fn read(text: String) -> Result<EventTypes, UsageError> {
        let Some(prefix) = text.strip_suffix('*') else {
            return if text.contains('*') {
                Err(misplaced_star(&text))
            } else {
                Ok(EventTypes::Exactly(text))
            };
        };
        let is_stem = prefix
            .strip_suffix('.')
            .is_some_and(|stem| !stem.is_empty());
        if prefix.contains('*') || !(prefix.is_empty() || is_stem) {
            return Err(misplaced_star(&text));
        }
        Ok(EventTypes::BeginningWith(prefix.to_owned()))
    }
}

fn misplaced_star(text: &str) -> UsageError {
    UsageError::new(format!(
        "--event-type must be an event type, `*`, or a pattern that ends in a dot and a star, such as `order.*`, not {}",
        values::quoted(text)
    ))
}

/// The filters as they were typed, and found valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    filter: DeadFilter,
    since: Option<Moment>,
    pub(super) until: Option<Moment>,
}

impl Chosen {
    /// Reads the texts `[aggregate type, event type, error]` and the times `[since, until]`.
    pub(super) fn read(
        texts: [&Option<String>; 3],
        times: [&Option<String>; 2],
    ) -> Result<Chosen, UsageError> {
        let text =
            |name, value: &Option<String>| values::option(name, value.as_deref(), values::filled);
        let time =
            |name, value: &Option<String>| values::option(name, value.as_deref(), values::moment);
        let wanted = text("--event-type", texts[1])?.map(EventTypes::read);
        let (event_type, event_type_prefix) = match wanted.transpose()? {
            None => (None, None),
            Some(EventTypes::Exactly(event_type)) => (Some(event_type), None),
            Some(EventTypes::BeginningWith(prefix)) => (None, Some(prefix)),
        };
        let chosen = Chosen {
            filter: DeadFilter {
                aggregate_type: text("--aggregate-type", texts[0])?,
                event_type,
                event_type_prefix,
                error: text("--error", texts[2])?,
                since_micros: None,
                until_micros: None,
            },
            since: time("--since", times[0])?,
            until: time("--until", times[1])?,
        };
        // Two ages, or two times, can be compared without a clock.
        match (&chosen.since, &chosen.until) {
            (Some(Moment::At(_)), Some(Moment::At(_)))
            | (Some(Moment::Ago(_)), Some(Moment::Ago(_))) => chosen.check_order(0)?,
            _ => {}
        }
        Ok(chosen)
    }

    /// Refuses a span that ends before it begins: its empty result would be taken for good news.
    fn check_order(&self, now_micros: i64) -> Result<(), UsageError> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since.micros(now_micros) > until.micros(now_micros) => {
                Err(UsageError::new("--since is later than --until"))
            }
            _ => Ok(()),
        }
    }

    /// Says whether no filter was given, so that all dead letters are meant.
    pub(super) fn is_all(&self) -> bool {
        self.filter == DeadFilter::default() && self.since.is_none() && self.until.is_none()
    }

    /// Turns ages into times, once, by the database's clock: the set must not change while it is
    /// worked on.
    pub(super) fn resolve(self, session: &mut Session) -> Result<DeadFilter, Failure> {
        let is_relative = |moment: &Option<Moment>| matches!(moment, Some(Moment::Ago(_)));
        let now = if is_relative(&self.since) || is_relative(&self.until) {
            session.now()?
        } else {
            0
        };
        self.check_order(now)?;
        Ok(DeadFilter {
            since_micros: self.since.map(|moment| moment.micros(now)),
            until_micros: self.until.map(|moment| moment.micros(now)),
            ..self.filter
        })
    }
}
