//! Publishing: one event by hand. Producers insert theirs in their own transactions; this is for
//! people and scripts.

use std::time::Duration;

use crate::store::error::StoreError;
use crate::store::session::Session;

/// An event that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Kind of the business object that the event is about.
    pub aggregate_type: String,
    /// Which object of that kind.
    pub aggregate_id: String,
    /// What happened.
    pub event_type: String,
    /// JSON text.
    pub payload: String,
    /// JSON text.
    pub headers: Option<String>,
    /// From the database's now until it is due.
    pub after: Duration,
}

impl Session {
    /// Writes an event and returns its id.
    pub fn publish(&mut self, event: &NewEvent) -> Result<i64, StoreError> {
        let ids = self.query(
            "publish the event",
            include_str!("../../sql/publish.sql"),
            &[
                &event.aggregate_type,
                &event.aggregate_id,
                &event.event_type,
                &event.payload,
                &event.headers,
                &event.after.as_secs_f64(),
            ],
            |row| row.try_get::<_, i64>(0),
        )?;
        // An insert of one row returns one row, unless a rule or a trigger of the database's owner
        // swallows it.
        ids.first()
            .copied()
            .ok_or_else(|| StoreError::swallowed("publish the event"))
    }

    /// Says whether the server takes a text, or a JSON text; asked after a refusal, to find what is
    /// to blame.
    pub fn takes(&mut self, text: &str, is_json: bool) -> Result<bool, StoreError> {
        let sql = if is_json {
            "select $1::text::jsonb is null"
        } else {
            "select $1::text is null"
        };
        match self.query("look at a text", sql, &[&text], |_| Ok(())) {
            Err(error) if error.is_about_a_value() => Ok(false),
            answer => answer.map(|_| true),
        }
    }
}
