//! `dispatchbox dead-events`: looks at dead letters, makes them due again, or discards them; one
//! file per command.
//!
//! The commands work in the database itself, so they need no daemon. A change goes in batches, each
//! a transaction of its own. An interrupt or an outage ends the work between two batches: what is
//! committed stays, and the command says how much that is.

mod batch;
mod csv;
mod discard;
mod export;
mod filter;
mod list;
mod retry;
mod show;
mod stats;
mod wanted;

use std::process::ExitCode;

use crate::cli::settings::Env;

pub use discard::DiscardArgs;
pub use export::ExportArgs;
pub use list::ListArgs;
pub use retry::{RetryArgs, RetryBatchArgs};
pub use show::ShowArgs;
pub use stats::StatsArgs;

/// One of the commands, with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadEvents {
    /// Lists a page of dead events.
    List(ListArgs),
    /// Shows all about one dead event.
    Show(ShowArgs),
    /// Makes the events with these ids due again.
    Retry(RetryArgs),
    /// Makes many events due again.
    RetryBatch(RetryBatchArgs),
    /// Counts dead events by type.
    Stats(StatsArgs),
    /// Writes all dead events to a file.
    Export(ExportArgs),
    /// Moves dead events to the archive.
    Discard(DiscardArgs),
}

/// Runs the command.
pub fn run(command: &DeadEvents, env: &Env) -> ExitCode {
    match command {
        DeadEvents::List(args) => list::run(args, env),
        DeadEvents::Show(args) => show::run(args, env),
        DeadEvents::Retry(args) => retry::run(args, env),
        DeadEvents::RetryBatch(args) => retry::run_batch(args, env),
        DeadEvents::Stats(args) => stats::run(args, env),
        DeadEvents::Export(args) => export::run(args, env),
        DeadEvents::Discard(args) => discard::run(args, env),
    }
}
