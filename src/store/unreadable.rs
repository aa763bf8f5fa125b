//! Events that cannot be read: passed over by a lease of their own, and looked at again later.
//!
//! A claim reads many events in one statement, and fails as a whole where one of them cannot be
//! read: its bytes have no character in UTF-8, the text of its payload has no end, its row is
//! damaged. Such an event is found by reading one after the other, and put under a lease that
//! belongs to no worker: all claims of all hosts pass over it, and no sweep charges it.

use std::time::Duration;

use crate::domain::retry::RetryPolicy;
use crate::store::cursor::Position;
use crate::store::error::StoreError;
use crate::store::lease::Lease;
use crate::store::session::Session;
use crate::store::text::Text;

const DOING_READ: &str = "read the event";

/// Begins the name under which such a lease stands in place of a worker; the number of looks
/// follows.
const HOLDER: &str = "unreadable/";

/// Looks at such an event before it is dead, however many attempts a handler has.
const LOOKS_MAX: u32 = 50;

/// An event that cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The id of the event.
    pub event_id: i64,
    /// Why it cannot be read.
    pub error: StoreError,
}

/// The result of another look at such an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecondLook {
    /// It can be claimed again.
    Free(i64),
    /// It waits for the next look.
    Waits(Unreadable),
    /// It was the last look: the event is dead, with the cause as its last error.
    Dead(Unreadable),
}

/// How often the events of this holder of a lease were looked at in vain; `None` for a worker.
pub fn looks_in_vain(holder: &str) -> Option<u32> {
    holder.strip_prefix(HOLDER)?.parse().ok()
}

/// How long to wait after each look in vain, as if it were an attempt; after the last the event is
/// dead.
pub fn look_waits(retry: &RetryPolicy) -> Vec<Duration> {
    (1..=retry.max_attempts.clamp(1, LOOKS_MAX))
        .map(|look| retry.delay(look, 0.0))
        .collect()
}

impl Lease {
    /// Says whether the lease names events that could not be read, and belongs to no worker.
    pub fn is_of_unreadable(&self) -> bool {
        looks_in_vain(&self.worker).is_some()
    }
}

impl Session {
    /// Reads up to `stretch` due events behind `after` that no lease names, and passes over those
    /// that cannot be read, for `wait`.
    pub fn pass_over(
        &mut self,
        after: &Position,
        stretch: i32,
        wait: Duration,
    ) -> Result<Vec<Unreadable>, StoreError> {
        self.query(
            "look for events that cannot be read",
            include_str!("../../sql/pass_over.sql"),
            &[&after.next_run_at, &after.id, &stretch, &wait.as_secs_f64()],
            |row| {
                let code: &str = row.try_get(1)?;
                Ok(unreadable(row.try_get(0)?, code, row.try_get(2)?))
            },
        )
    }

    /// Looks again at the events of one lease of those that were passed over, if one is over;
    /// `waits` after each look, and after the last an event is dead.
    pub fn look_again(&mut self, waits: &[Duration]) -> Result<Vec<SecondLook>, StoreError> {
        let waits: Vec<f64> = waits.iter().map(Duration::as_secs_f64).collect();
        self.query(
            "look again at events that could not be read",
            include_str!("../../sql/look_again.sql"),
            &[&waits],
            |row| {
                let event_id = row.try_get(0)?;
                let outcome: &str = row.try_get(1)?;
                let code: Option<&str> = row.try_get(3)?;
                let Some(code) = code else {
                    return Ok(SecondLook::Free(event_id));
                };
                let one = unreadable(event_id, code, row.try_get(4)?);
                Ok(if outcome == "dead" {
                    SecondLook::Dead(one)
                } else {
                    SecondLook::Waits(one)
                })
            },
        )
    }
}

fn unreadable(event_id: i64, code: &str, cause: Text) -> Unreadable {
    Unreadable {
        event_id,
        error: StoreError::of_row(DOING_READ, code, cause.into()),
    }
}
