//! All that can happen to the supervisor, as one closed list.

use crate::domain::protocol::Report;

/// All that can happen to the supervisor.
pub enum FleetEvent {
    /// This process has received a signal.
    Signal(i32),
    /// The result of the preflight: the database is usable, or a person has to set something right.
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
