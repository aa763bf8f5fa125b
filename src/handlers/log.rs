//! The `log` handler: one INFO line per event, for trying out and for watching a stream of events.
//!
//! The payload is never in it: logs travel further, and live longer, than the data that an
//! application means to protect. What is harmful in the other fields is escaped where lines are
//! written.

use ::log::info;
use serde::{Deserialize, Serialize};

use crate::domain::event::Event;
use crate::handlers::keys::{Key, Keys};
use crate::handlers::kind::{Build, Deliver, Kind, Secrets, Settings};
use crate::handlers::{HandlerError, Run};

/// The handler itself: it has no settings.
#[derive(Serialize, Deserialize)]
pub(super) struct Log;

impl Kind for Log {
    const NAME: &'static str = "log";
    const SUMMARY: &'static str = "one line in the log for each event, never its payload";
    const FORMS: &'static [&'static str] = &["log"];
    const KEYS: &'static [Key] = &[];

    fn from_flag(text: &str) -> Option<Result<Log, String>> {
        (text == Log::NAME).then_some(Ok(Log))
    }

    fn from_table(_: Keys<'_>, _: Secrets<'_>) -> Result<Log, String> {
        Ok(Log)
    }
}

impl Settings for Log {
    fn build(&self, _: Build<'_>) -> Result<Box<dyn Deliver>, String> {
        Ok(Box::new(Log))
    }

    fn shown(&self) -> String {
        Log::NAME.to_owned()
    }
}

impl Deliver for Log {
    /// Logs `event`; this cannot fail.
    fn deliver(&self, event: &Event, _: &Run<'_>) -> Result<(), HandlerError> {
        info!("{}", line(event));
        Ok(())
    }
}

fn line(event: &Event) -> String {
    format!(
        "event {} {} of {}/{}, attempt {}",
        event.id, event.event_type, event.aggregate_type, event.aggregate_id, event.attempt
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_event_and_never_its_payload() {
        let event = Event {
            id: 812,
            aggregate_type: "order".into(),
            aggregate_id: "42".into(),
            event_type: "order.created".into(),
            payload: r#"{"iban":"DE00"}"#.into(),
            attempt: 2,
            created_at_micros: None,
            headers: Some(r#"{"secret":1}"#.into()),
        };

        assert_eq!(
            line(&event),
            "event 812 order.created of order/42, attempt 2"
        );
    }
}
