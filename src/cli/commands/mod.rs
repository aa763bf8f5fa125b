//! The subcommands: their words, their options, and how the program runs them.

pub mod bench;
pub mod config;
pub mod dead_events;
pub mod demo;
pub mod explain;
pub mod migrate;
mod one_shot;
pub mod publish;
pub mod status;

use argh::{ArgsInfo, CommandInfoWithArgs, EarlyExit, FromArgs};

use crate::cli::commands::bench::BenchArgs;
use crate::cli::commands::dead_events::{
    DeadEvents, DiscardArgs, ExportArgs, ListArgs, RetryArgs, RetryBatchArgs, ShowArgs, StatsArgs,
};
use crate::cli::commands::demo::DemoArgs;
use crate::cli::commands::explain::ExplainArgs;
use crate::cli::commands::migrate::MigrateArgs;
use crate::cli::commands::publish::PublishArgs;
use crate::cli::commands::status::StatusArgs;
use crate::cli::settings::run::RunArgs;

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Deliver events until told to stop.
    Run(RunArgs),
    /// Create or complete the tables and functions.
    Migrate(MigrateArgs),
    /// Show which settings are effective.
    ConfigCheck(RunArgs),
    /// Show how daemon and work stand.
    Status(StatusArgs),
    /// Look at dead letters, requeue or discard them.
    DeadEvents(DeadEvents),
    /// Say why an event has not been delivered yet.
    Explain(ExplainArgs),
    /// Write one event.
    Publish(PublishArgs),
    /// Show the whole thing on a throwaway server.
    Demo(DemoArgs),
    /// Measure the pipeline against the bare statements.
    Bench(BenchArgs),
    /// Be a worker of the supervisor that started this process.
    Worker,
}

/// One subcommand. To add one: a file with its argh structure and `pub fn run(args, env) ->
/// ExitCode`, a variant of [`Command`], a line in [`COMMANDS`], an arm in the program's `dispatch`.
pub(in crate::cli) struct Spec {
    /// The words that choose the command.
    pub(in crate::cli) words: &'static [&'static str],
    /// Its description in the help, in one line.
    pub(in crate::cli) summary: &'static str,
    /// Its options.
    pub(in crate::cli) info: fn() -> CommandInfoWithArgs,
    /// Parses the words of the command and the arguments behind them.
    pub(in crate::cli) parse: fn(&[&str], &[&str]) -> Result<Command, EarlyExit>,
}

/// Makes the entry of a command whose options argh reads into `$args`; `$command` turns them into a
/// [`Command`].
macro_rules! spec {
    ($words:expr, $summary:expr, $args:ty, $command:expr $(,)?) => {
        Spec {
            words: &$words,
            summary: $summary,
            info: <$args>::get_args_info,
            parse: |name, args| <$args>::from_args(name, args).map($command),
        }
    };
}

/// The subcommands in the order of the help.
pub(in crate::cli) const COMMANDS: &[Spec] = &[
    spec!(
        ["run"],
        "deliver committed events to their handlers, until told to stop",
        RunArgs,
        Command::Run,
    ),
    spec!(
        ["migrate"],
        "create the tables and functions, or complete those of an older version",
        MigrateArgs,
        Command::Migrate,
    ),
    spec!(
        ["status"],
        "show how the daemon, its workers and its work stand",
        StatusArgs,
        Command::Status,
    ),
    spec!(
        ["dead-events", "list"],
        "list dead events, newest first",
        ListArgs,
        |args| Command::DeadEvents(DeadEvents::List(args)),
    ),
    spec!(
        ["dead-events", "show"],
        "show one dead event with its payload and last error",
        ShowArgs,
        |args| Command::DeadEvents(DeadEvents::Show(args)),
    ),
    spec!(
        ["dead-events", "retry"],
        "make dead events due again, from the first attempt on",
        RetryArgs,
        |args| Command::DeadEvents(DeadEvents::Retry(args)),
    ),
    spec!(
        ["dead-events", "retry-batch"],
        "make many dead events due again: by filter, or by a file of ids",
        RetryBatchArgs,
        |args| Command::DeadEvents(DeadEvents::RetryBatch(args)),
    ),
    spec!(
        ["dead-events", "stats"],
        "count dead events by type",
        StatsArgs,
        |args| Command::DeadEvents(DeadEvents::Stats(args)),
    ),
    spec!(
        ["dead-events", "export"],
        "write dead events as JSON, JSON lines or CSV",
        ExportArgs,
        |args| Command::DeadEvents(DeadEvents::Export(args)),
    ),
    spec!(
        ["dead-events", "discard"],
        "move dead events to the archive, payload and error included",
        DiscardArgs,
        |args| Command::DeadEvents(DeadEvents::Discard(args)),
    ),
    spec!(
        ["explain"],
        "say why an event has not been delivered yet",
        ExplainArgs,
        Command::Explain,
    ),
    spec!(
        ["publish"],
        "write one event and print its id",
        PublishArgs,
        Command::Publish,
    ),
    spec!(
        ["demo"],
        "show everything at work on a throwaway PostgreSQL, which goes without a trace",
        DemoArgs,
        Command::Demo,
    ),
    spec!(
        ["bench"],
        "measure the whole pipeline beside the bare statements on this machine",
        BenchArgs,
        Command::Bench,
    ),
    spec!(
        ["config", "check"],
        "check the settings of `run` and show where each comes from",
        RunArgs,
        Command::ConfigCheck,
    ),
];
