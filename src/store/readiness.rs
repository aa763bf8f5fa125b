//! Could events be delivered now? Asked before the start and for /ready.

use super::connect::Session;
use super::error::StoreError;

impl Session {
    /// Does to no row what claiming and settling do to many; fails as they would.
    pub fn rehearse(&mut self) -> Result<(), StoreError> {
        self.query(
            "rehearse a claim",
            include_str!("../../sql/rehearse.sql"),
            &[],
            |_| Ok(()),
        )
        .map(|_| ())
    }
}
