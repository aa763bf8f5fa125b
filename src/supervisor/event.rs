//! All that can happen to the supervisor, as one closed list.

use crate::report::Report;

/// All that can happen to the supervisor.
pub enum FleetEvent {
    /// Somebody sent this process a signal.
    Signal(i32),
    /// The database is usable, or never will be.
    Preflight(Result<(), String>),
    /// The worker in this slot, with this pid, has reported.
    Report(u16, u32, Report),
    /// The worker in this slot, with this pid, has ended.
    Ended(u16, u32),
    /// Time to look after what is due.
    Tick,
    /// The drain has taken too long.
    DrainTimedOut,
}
