//! The event, as a handler gets it, and what its handling came to. No I/O and no clock.

use std::fmt::Write as _;
use std::time::Duration;

use crate::domain::text;

/// One row of `outbox_event`, as a handler gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Primary key; constant over all attempts, so receivers can recognize a repetition by it.
    pub id: i64,
    /// Kind of the business object that the event is about, `order` for example.
    pub aggregate_type: String,
    /// Which object of that kind.
    pub aggregate_id: String,
    /// What happened, `order.created` for example; routes are chosen by it.
    pub event_type: String,
    /// The JSON text exactly as PostgreSQL prints it: numbers such as `1e400` or 30 digits are
    /// never parsed.
    pub payload: String,
    /// Number of this attempt, counted from 1.
    pub attempt: u32,
    /// When the producer wrote the row, in microseconds since 1970-01-01 UTC; `None` for
    /// `infinity`.
    pub created_at_micros: Option<i64>,
    /// The optional `headers` column as JSON text.
    pub headers: Option<String>,
}

impl Event {
    /// Renders the JSON object that handlers deliver; the payload stands in it byte for byte.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(self.payload.len() + 256);
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            r#"{{"id":{},"aggregate_type":{},"aggregate_id":{},"event_type":{},"payload":{},"attempt":{},"created_at":{},"headers":{}}}"#,
            self.id,
            json_text(&self.aggregate_type),
            json_text(&self.aggregate_id),
            json_text(&self.event_type),
            self.payload,
            self.attempt,
            self.created_at_micros
                .and_then(timestamp)
                .map_or_else(|| "null".to_owned(), |time| json_text(&time)),
            self.headers.as_deref().unwrap_or("null"),
        );
        json
    }
}

/// Lays JSON out as one line. A raw line break in JSON stands between two tokens and never in a
/// string, so each becomes a space: a column of type `json` keeps its text as the producer wrote
/// it.
pub(crate) fn one_line(json: String) -> String {
    if json.contains(['\n', '\r']) {
        json.replace(['\n', '\r'], " ")
    } else {
        json
    }
}

/// Renders a text as a JSON string.
pub(crate) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Formats microseconds since 1970 as `2025-01-02T03:04:05.123456+00:00`; `None` outside the years
/// 1 to 9999.
pub fn timestamp(micros: i64) -> Option<String> {
    let time = jiff::Timestamp::from_microsecond(micros).ok()?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
    (1..=9999).contains(&zoned.year()).then(|| {
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00",
            zoned.year(),
            zoned.month(),
            zoned.day(),
            zoned.hour(),
            zoned.minute(),
            zoned.second(),
            zoned.subsec_nanosecond() / 1000
        )
    })
}

/// Reads a time of RFC 3339 (`2025-01-02T03:04:05Z`, with any offset, but with one) as microseconds
/// since 1970.
pub fn micros_of(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_microsecond())
}

/// The result of handling one claimed event.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The handler has delivered the event.
    Done,
    /// The attempt failed; the event is due again after `delay`.
    Retry {
        /// From now, by the database's clock.
        delay: Duration,
        /// Goes to `last_error`.
        reason: String,
    },
    /// Permanently refused, or out of attempts.
    Dead {
        /// Goes to `last_error`.
        reason: String,
    },
    /// Not started: given back without an attempt.
    Released,
}

impl Outcome {
    /// The outcome of an event that is tried no more.
    pub fn dead(reason: &str) -> Outcome {
        Outcome::Dead {
            reason: storable(reason),
        }
    }

    /// The outcome of a failed attempt that another one follows after `delay`.
    pub fn retry(delay: Duration, reason: &str) -> Outcome {
        Outcome::Retry {
            delay,
            reason: storable(reason),
        }
    }

    /// The word for the outcome in SQL (`outbox_settle_1`), in logs and as a metric label.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Retry { .. } => "retry",
            Outcome::Dead { .. } => "dead",
            Outcome::Released => "released",
        }
    }

    /// The text for `last_error`, if there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Outcome::Retry { reason, .. } | Outcome::Dead { reason } => Some(reason),
            Outcome::Done | Outcome::Released => None,
        }
    }
}

/// The reason as PostgreSQL can keep it: no NUL, and not longer than [`REASON_BYTES_MAX`].
fn storable(reason: &str) -> String {
    text::first_bytes(&reason.replace('\0', "\u{fffd}"), REASON_BYTES_MAX).to_owned()
}

/// Longest reason that is kept, in bytes: enough for the answer of a receiver, small enough that a
/// million dead letters stay small.
pub const REASON_BYTES_MAX: usize = 4096;

/// Most characters of a reason in the log: a thousand dead events may be logged in a minute, and
/// the row keeps the whole reason.
const REASON_SHOWN_MAX: usize = 300;

/// The log message for an event that has become dead.
pub fn dead_letter_message(event_id: i64, attempts: u32, reason: &str) -> String {
    let plural = if attempts == 1 { "attempt" } else { "attempts" };
    let shown = text::first_chars(reason, REASON_SHOWN_MAX);
    let more = text::ellipsis(reason, shown);
    format!("event {event_id} is dead after {attempts} {plural}: {shown}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_the_beginning_of_a_long_reason() {
        assert_eq!(
            dead_letter_message(7, 1, "no route to host"),
            "event 7 is dead after 1 attempt: no route to host"
        );
        let long = "ü".repeat(REASON_SHOWN_MAX + 1);
        let told = dead_letter_message(7, 5, &long);
        assert!(
            told.starts_with("event 7 is dead after 5 attempts: ü"),
            "{told}"
        );
        assert!(told.ends_with("ü…"), "{told}");
        assert_eq!(told.matches('ü').count(), REASON_SHOWN_MAX);
    }

    #[test]
    fn the_payload_stands_in_the_json_byte_for_byte() {
        let event = Event {
            id: 7,
            aggregate_type: "or\"der".into(),
            aggregate_id: "1".into(),
            event_type: "order.created".into(),
            payload: r#"{"n": 1e400, "d": 123456789012345678901234567890}"#.into(),
            attempt: 2,
            created_at_micros: Some(1_735_787_045_123_456),
            headers: None,
        };

        assert_eq!(
            event.to_json(),
            r#"{"id":7,"aggregate_type":"or\"der","aggregate_id":"1","event_type":"order.created","payload":{"n": 1e400, "d": 123456789012345678901234567890},"attempt":2,"created_at":"2025-01-02T03:04:05.123456+00:00","headers":null}"#
        );
    }

    #[test]
    fn json_on_many_lines_becomes_one_line_and_keeps_its_numbers_and_strings() {
        let json = "{\r\n\t\"a\\nb\": 1.00,\n\"c\":\r[1e400 ,\n 2]\n}";
        assert_eq!(
            one_line(json.to_owned()),
            "{  \t\"a\\nb\": 1.00, \"c\": [1e400 ,  2] }"
        );
        assert_eq!(one_line(r#"{"a": "\n"}"#.to_owned()), r#"{"a": "\n"}"#);
    }

    #[test]
    fn a_timestamp_outside_the_calendar_is_none() {
        assert_eq!(timestamp(i64::MAX), None);
        assert_eq!(timestamp(i64::MIN), None);
        assert_eq!(
            timestamp(0).as_deref(),
            Some("1970-01-01T00:00:00.000000+00:00")
        );
    }
    #[test]
    fn a_time_is_read_with_its_offset() {
        assert_eq!(micros_of("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(micros_of("1970-01-01T02:00:00.5+02:00"), Some(500_000));
        for text in ["", "1970-01-01", "1970-01-01T00:00:00", "now", "infinity"] {
            assert_eq!(micros_of(text), None, "{text}");
        }
    }
}
