//! Handlers: what delivers one event, and what its word means.

use crate::event::Event;

/// Delivers one event. Called from several threads at once.
pub trait Handler: Send + Sync {
    /// Delivers `event`; a panic counts as a failed attempt.
    fn handle(&self, event: &Event) -> Result<(), HandlerError>;
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
        after: Option<std::time::Duration>,
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
