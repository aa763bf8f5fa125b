//! The stages of a worker that call the database.

/// A stage that calls the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// Claims events.
    Fetcher,
    /// Writes outcomes.
    Settler,
    /// Renews leases.
    Keeper,
    /// Sweeps leases.
    Sweeper,
}

impl Stage {
    /// The number of stages.
    pub(super) const COUNT: usize = Stage::Sweeper as usize + 1;
}
