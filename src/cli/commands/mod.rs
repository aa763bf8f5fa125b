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

/// The subcommands in the order of the help.
pub(in crate::cli) const COMMANDS: &[Spec] = &[
    Spec {
        words: &["run"],
        summary: "deliver committed events to their handlers, until told to stop",
        info: RunArgs::get_args_info,
        parse: |name, args| RunArgs::from_args(name, args).map(Command::Run),
    },
    Spec {
        words: &["migrate"],
        summary: "create the tables and functions, or complete those of an older version",
        info: MigrateArgs::get_args_info,
        parse: |name, args| MigrateArgs::from_args(name, args).map(Command::Migrate),
    },
    Spec {
        words: &["status"],
        summary: "show how the daemon, its workers and its work stand",
        info: StatusArgs::get_args_info,
        parse: |name, args| StatusArgs::from_args(name, args).map(Command::Status),
    },
    Spec {
        words: &["dead-events", "list"],
        summary: "list dead events, newest first",
        info: ListArgs::get_args_info,
        parse: |name, args| {
            ListArgs::from_args(name, args).map(|args| Command::DeadEvents(DeadEvents::List(args)))
        },
    },
    Spec {
        words: &["dead-events", "show"],
        summary: "show one dead event with its payload and last error",
        info: ShowArgs::get_args_info,
        parse: |name, args| {
            ShowArgs::from_args(name, args).map(|args| Command::DeadEvents(DeadEvents::Show(args)))
        },
    },
    Spec {
        words: &["dead-events", "retry"],
        summary: "make dead events due again, from the first attempt on",
        info: RetryArgs::get_args_info,
        parse: |name, args| {
            RetryArgs::from_args(name, args)
                .map(|args| Command::DeadEvents(DeadEvents::Retry(args)))
        },
    },
    Spec {
        words: &["dead-events", "retry-batch"],
        summary: "make many dead events due again: by filter, or by a file of ids",
        info: RetryBatchArgs::get_args_info,
        parse: |name, args| {
            RetryBatchArgs::from_args(name, args)
                .map(|args| Command::DeadEvents(DeadEvents::RetryBatch(args)))
        },
    },
    Spec {
        words: &["dead-events", "stats"],
        summary: "count dead events by type",
        info: StatsArgs::get_args_info,
        parse: |name, args| {
            StatsArgs::from_args(name, args)
                .map(|args| Command::DeadEvents(DeadEvents::Stats(args)))
        },
    },
    Spec {
        words: &["dead-events", "export"],
        summary: "write dead events as JSON, JSON lines or CSV",
        info: ExportArgs::get_args_info,
        parse: |name, args| {
            ExportArgs::from_args(name, args)
                .map(|args| Command::DeadEvents(DeadEvents::Export(args)))
        },
    },
    Spec {
        words: &["dead-events", "discard"],
        summary: "move dead events to the archive, payload and error included",
        info: DiscardArgs::get_args_info,
        parse: |name, args| {
            DiscardArgs::from_args(name, args)
                .map(|args| Command::DeadEvents(DeadEvents::Discard(args)))
        },
    },
    Spec {
        words: &["explain"],
        summary: "say why an event has not been delivered yet",
        info: ExplainArgs::get_args_info,
        parse: |name, args| ExplainArgs::from_args(name, args).map(Command::Explain),
    },
    Spec {
        words: &["publish"],
        summary: "write one event and print its id",
        info: PublishArgs::get_args_info,
        parse: |name, args| PublishArgs::from_args(name, args).map(Command::Publish),
    },
    Spec {
        words: &["demo"],
        summary: "show everything at work on a throwaway PostgreSQL, which goes without a trace",
        info: DemoArgs::get_args_info,
        parse: |name, args| DemoArgs::from_args(name, args).map(Command::Demo),
    },
    Spec {
        words: &["bench"],
        summary: "measure the whole pipeline beside the bare statements on this machine",
        info: BenchArgs::get_args_info,
        parse: |name, args| BenchArgs::from_args(name, args).map(Command::Bench),
    },
    Spec {
        words: &["config", "check"],
        summary: "check the settings of `run` and show where each comes from",
        info: RunArgs::get_args_info,
        parse: |name, args| RunArgs::from_args(name, args).map(Command::ConfigCheck),
    },
];
