//! How the daemon and its work stand: the state that the supervisor publishes, readiness, counters
//! and the last minutes. `supervisor` and the looks write it, `http`
//! renders it.

mod findings;
pub mod history;
pub mod looks;
pub mod metrics;
pub mod published;
pub mod readiness;
pub mod state;
