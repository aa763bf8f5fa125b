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

    /// Says whether the stage keeps its session from call to call.
    pub(super) fn keeps_session(self) -> bool {
        match self {
            Stage::Fetcher | Stage::Keeper => true,
            Stage::Settler | Stage::Sweeper => false,
        }
    }
}
