//! One dead letter: as it stands in the table, and as the API and exports show it.

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use postgres::Row;

use crate::domain::event::{json_text, timestamp};
use crate::store::text::Text;
use crate::store::time::{DbTime, unix_micros};

/// A dead letter as it stands in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadEvent {
    /// Primary key.
    pub id: i64,
    /// Kind of the business object that the event is about.
    pub aggregate_type: String,
    /// Which object of that kind.
    pub aggregate_id: String,
    /// What happened.
    pub event_type: String,
    /// The JSON text exactly as PostgreSQL prints it.
    pub payload: String,
    /// The column: `dead`.
    pub status: String,
    /// Attempts that it had.
    pub attempts: i64,
    /// Times are `2025-01-02T03:04:05.123456+00:00`, `infinity` or `-infinity`; `None` is a null,
    /// for this one and `created_at` only in tables of another origin.
    pub next_run_at: Option<String>,
    /// When the producer wrote it.
    pub created_at: Option<String>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// And when.
    pub last_error_at: Option<String>,
    /// When it became dead.
    pub finished_at: Option<String>,
    /// The optional headers as JSON text.
    pub headers: Option<String>,
}

impl DeadEvent {
    /// What may be large of it, as text.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.headers.as_ref().map_or(0, String::len)
    }

    /// Renders the JSON object of the API and of exports; payload and headers stand in it byte for
    /// byte.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(self.payload.len() + 512);
        let maybe =
            |text: &Option<String>| text.as_deref().map_or_else(|| "null".to_owned(), json_text);
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            r#"{{"id":{},"aggregate_type":{},"aggregate_id":{},"event_type":{},"payload":{},"status":{},"attempts":{},"next_run_at":{},"created_at":{},"last_error":{},"last_error_at":{},"finished_at":{},"headers":{}}}"#,
            self.id,
            json_text(&self.aggregate_type),
            json_text(&self.aggregate_id),
            json_text(&self.event_type),
            self.payload,
            json_text(&self.status),
            self.attempts,
            maybe(&self.next_run_at),
            maybe(&self.created_at),
            maybe(&self.last_error),
            maybe(&self.last_error_at),
            maybe(&self.finished_at),
            self.headers.as_deref().unwrap_or("null"),
        );
        json
    }
}

/// Reads a row of the statements that show dead letters.
pub(super) fn dead_event(row: &Row) -> Result<DeadEvent, postgres::Error> {
    Ok(DeadEvent {
        id: row.try_get(0)?,
        aggregate_type: row.try_get::<_, Text>(1)?.into(),
        aggregate_id: row.try_get::<_, Text>(2)?.into(),
        event_type: row.try_get::<_, Text>(3)?.into(),
        payload: row.try_get::<_, Text>(4)?.into(),
        status: row.try_get::<_, Text>(5)?.into(),
        attempts: row.try_get::<_, i32>(6)?.into(),
        next_run_at: row.try_get::<_, Option<DbTime>>(7)?.map(time_text),
        created_at: row.try_get::<_, Option<DbTime>>(8)?.map(time_text),
        last_error: row.try_get::<_, Option<Text>>(9)?.map(String::from),
        last_error_at: row.try_get::<_, Option<DbTime>>(10)?.map(time_text),
        finished_at: row.try_get::<_, Option<DbTime>>(11)?.map(time_text),
        headers: row.try_get::<_, Option<Text>>(12)?.map(String::from),
    })
}

/// Shows a time as the API does. A time outside the years 1 to 9999 counts as infinitely far,
/// because most programs have no date for it.
pub(super) fn time_text(time: DbTime) -> String {
    let is_past = match time {
        DbTime::PosInfinity => false,
        DbTime::NegInfinity => true,
        DbTime::Value(value) => value < UNIX_EPOCH,
    };
    let infinity = if is_past { "-infinity" } else { "infinity" };
    unix_micros(time)
        .and_then(timestamp)
        .unwrap_or_else(|| infinity.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::time::db_time;

    #[test]
    fn payload_and_headers_stand_in_the_json_byte_for_byte() {
        let event = DeadEvent {
            id: 7,
            aggregate_type: "or\"der".to_owned(),
            aggregate_id: "1".to_owned(),
            event_type: "order.created".to_owned(),
            payload: r#"{"n": 1e400}"#.to_owned(),
            status: "dead".to_owned(),
            attempts: 5,
            next_run_at: Some("infinity".to_owned()),
            created_at: None,
            last_error: Some("a\u{1b}b".to_owned()),
            last_error_at: None,
            finished_at: None,
            headers: Some(r#"{"a": 1.00}"#.to_owned()),
        };

        assert_eq!(
            event.to_json(),
            r#"{"id":7,"aggregate_type":"or\"der","aggregate_id":"1","event_type":"order.created","payload":{"n": 1e400},"status":"dead","attempts":5,"next_run_at":"infinity","created_at":null,"last_error":"a\u001bb","last_error_at":null,"finished_at":null,"headers":{"a": 1.00}}"#
        );
    }

    #[test]
    fn a_time_that_no_calendar_has_is_infinite() {
        assert_eq!(time_text(db_time(0)), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(time_text(db_time(-1)), "1969-12-31T23:59:59.999999+00:00");
        assert_eq!(time_text(db_time(i64::MAX)), "infinity");
        assert_eq!(time_text(db_time(i64::MIN)), "-infinity");
        assert_eq!(time_text(db_time(300_000_000_000_000_000)), "infinity");
    }
}
