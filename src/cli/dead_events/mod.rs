//! `dispatchbox dead-events`: to look at dead letters, make them due again, or give them up; one file per command.
//!
//! They work in the database itself, so they need no daemon. What changes events goes in batches, each a transaction of its own: an
//! interrupt or an outage ends the work between two of them, what is done is done, and how much that is gets said.

mod batch;
mod csv;
mod discard;
mod export;
mod filter;
mod list;
mod retry;
mod show;
mod stats;

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
    /// A page of them.
    List(ListArgs),
    /// All about one.
    Show(ShowArgs),
    /// Some, by their ids, due again.
    Retry(RetryArgs),
    /// Many due again.
    RetryBatch(RetryBatchArgs),
    /// How many of which type.
    Stats(StatsArgs),
    /// All of them into a file.
    Export(ExportArgs),
    /// To the archive.
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
