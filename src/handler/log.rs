//! The `log` handler: one INFO line per event, for trying out and for watching a stream of events.
//!
//! The payload is never in it: logs travel further, and live longer, than the data that an application means to protect.

use std::fmt;

use ::log::info;

use crate::event::Event;

/// Logs `event`; this cannot fail.
pub(super) fn run(event: &Event) {
    info!("{}", line(event));
}

fn line(event: &Event) -> String {
    format!(
        "event {} {} of {}/{}, attempt {}",
        event.id,
        Escaped(&event.event_type),
        Escaped(&event.aggregate_type),
        Escaped(&event.aggregate_id),
        event.attempt
    )
}

/// Shows text from the database with everything escaped that could forge a line or steer a terminal.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            // U+2028 and U+2029 end a line for some readers; U+202A to U+202E and U+2066 to U+2069 turn its direction.
            let steers = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || steers {
                write!(f, "{}", c.escape_default())
            } else {
                write!(f, "{c}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_event_and_never_its_payload() {
        let event = Event {
            id: 812,
            aggregate_type: "order".into(),
            aggregate_id: "ä\n4\u{9b}2J".into(),
            event_type: "order.\u{1b}[31m\u{2028}\u{202e}".into(),
            payload: r#"{"iban":"DE00"}"#.into(),
            attempt: 2,
            created_at_micros: None,
            headers: Some(r#"{"secret":1}"#.into()),
        };

        assert_eq!(
            line(&event),
            r"event 812 order.\u{1b}[31m\u{2028}\u{202e} of order/ä\n4\u{9b}2J, attempt 2"
        );
    }
}
