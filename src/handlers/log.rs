//! The `log` handler: one INFO line per event, for trying out and for watching a stream of events.
//!
//! The payload is never in it: logs travel further, and live longer, than the data that an
//! application means to protect. What is harmful in the other fields is escaped where lines are
//! written.

use ::log::info;

use crate::domain::event::Event;

/// Logs `event`; this cannot fail.
pub(super) fn run(event: &Event) {
    info!("{}", line(event));
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
