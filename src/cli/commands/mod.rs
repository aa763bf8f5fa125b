//! The subcommands: their words, their options, and how the program runs them.

pub mod bench;
pub mod chaos;
pub mod config;
pub mod dead_events;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod migrate;
mod one_shot;
pub mod publish;
pub mod status;

use argh::{ArgsInfo, CommandInfoWithArgs, EarlyExit, FromArgs};

use crate::cli::commands::bench::BenchArgs;
use crate::cli::commands::chaos::ChaosArgs;
use crate::cli::commands::dead_events::{
    DeadEvents, DiscardArgs, ExportArgs, ListArgs, RetryArgs, RetryBatchArgs, ShowArgs, StatsArgs,
};
use crate::cli::commands::demo::DemoArgs;
use crate::cli::commands::doctor::DoctorArgs;
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
    /// Look for what is wrong with the database and the settings.
    Doctor(DoctorArgs),
    /// Write one event.
    Publish(PublishArgs),
    /// Show the whole thing on a throwaway server.
    Demo(DemoArgs),
    /// Measure the pipeline against the bare statements.
    Bench(BenchArgs),
    /// Be the daemon that the bench measures.
    BenchDaemon(RunArgs),
    /// Break everything on a throwaway server, and check that the laws hold.
    Chaos(ChaosArgs),
    /// Be a daemon of the chaos.
    ChaosDaemon(RunArgs),
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

/// Declares the table of commands: the words of each, the structure into which argh reads its
/// options, what makes a [`Command`] of it, and its summary.
macro_rules! commands {
    ($($($word:literal)+: $args:ty => $command:expr, $summary:literal;)*) => {
        /// The subcommands in the order of the help.
        pub(in crate::cli) const COMMANDS: &[Spec] = &[$(Spec {
            words: &[$($word),+],
            summary: $summary,
            info: <$args>::get_args_info,
            parse: |name, args| <$args>::from_args(name, args).map($command),
        }),*];
    };
}

commands! {
    "run": RunArgs => Command::Run,
        "deliver committed events to their handlers, until told to stop";
    "migrate": MigrateArgs => Command::Migrate,
        "create the tables and functions, or complete those of an older version";
    "status": StatusArgs => Command::Status,
        "show how the daemon, its workers and its work stand";
    "dead-events" "list": ListArgs => |args| Command::DeadEvents(DeadEvents::List(args)),
        "list dead events, newest first";
    "dead-events" "show": ShowArgs => |args| Command::DeadEvents(DeadEvents::Show(args)),
        "show one dead event with its payload and last error";
    "dead-events" "retry": RetryArgs => |args| Command::DeadEvents(DeadEvents::Retry(args)),
        "make dead events due again, from the first attempt on";
    "dead-events" "retry-batch": RetryBatchArgs =>
        |args| Command::DeadEvents(DeadEvents::RetryBatch(args)),
        "make many dead events due again: by filter, or by a file of ids";
    "dead-events" "stats": StatsArgs => |args| Command::DeadEvents(DeadEvents::Stats(args)),
        "count dead events by type";
    "dead-events" "export": ExportArgs => |args| Command::DeadEvents(DeadEvents::Export(args)),
        "write dead events as JSON, JSON lines or CSV";
    "dead-events" "discard": DiscardArgs => |args| Command::DeadEvents(DeadEvents::Discard(args)),
        "move dead events to the archive, payload and error included";
    "explain": ExplainArgs => Command::Explain,
        "say why an event has not been delivered yet";
    "doctor": DoctorArgs => Command::Doctor,
        "look for what is wrong with the database and the settings, and say what mends it";
    "publish": PublishArgs => Command::Publish,
        "write one event and print its id";
    "demo": DemoArgs => Command::Demo,
        "show everything at work on a throwaway PostgreSQL, which goes without a trace";
    "bench": BenchArgs => Command::Bench,
        "measure the whole pipeline beside the bare statements on this machine";
    "chaos": ChaosArgs => Command::Chaos,
        "break everything on a throwaway PostgreSQL, and check that nothing is lost";
    "config" "check": RunArgs => Command::ConfigCheck,
        "check the settings of `run` and show where each comes from";
}

/// The daemons of the bench and of the chaos. They are not among [`COMMANDS`]: no help shows them.
pub(in crate::cli) const DAEMONS: &[Spec] = &[
    Spec {
        words: &[crate::dev::bench::BENCH_DAEMON],
        summary: "deliver the events of a bench",
        info: RunArgs::get_args_info,
        parse: |name, args| RunArgs::from_args(name, args).map(Command::BenchDaemon),
    },
    Spec {
        words: &[crate::dev::chaos::CHAOS_DAEMON],
        summary: "deliver the events of a chaos",
        info: RunArgs::get_args_info,
        parse: |name, args| RunArgs::from_args(name, args).map(Command::ChaosDaemon),
    },
];
