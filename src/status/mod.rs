//! How the daemon and its work stand: the state that the supervisor publishes, readiness, counters
//! and the last minutes. `supervisor` writes it, `http` renders it.

pub mod history;
pub mod metrics;
pub mod readiness;
pub mod state;
