//! The progress of one request and its answer on a connection.

use std::io;

use crate::handlers::transport::head::Head;

/// The progress of one request.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Part of the request's body has been sent.
    pub(super) has_sent: bool,
    /// An answer has come, be it an interim one.
    pub(super) has_answer: bool,
    /// The final answer's head, until it is passed on.
    pub(super) head: Option<Head>,
    /// The input has ended.
    pub(super) is_ended: bool,
    /// Why the request could not be sent to its end.
    pub(super) failure: Option<io::Error>,
}

impl Exchange {
    /// Says whether sending on would serve nothing. After a success, an end is that of the answer
    /// alone, for all that can be known.
    pub(super) fn is_decided(&self) -> bool {
        let is_over = self
            .head
            .as_ref()
            .map_or(self.is_ended, |head| head.status >= 300);
        is_over || self.failure.is_some()
    }
}
