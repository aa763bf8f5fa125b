//! `dispatchbox demo`: its arguments.

use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use crate::cli::settings::values;
use crate::cli::terminal::message::complain;
use crate::dev::demo::{self, DemoOptions};
use crate::domain::usage::UsageError;

/// Options of `demo`.
#[derive(Debug, Default, Clone, PartialEq, Eq, FromArgs, ArgsInfo)]
pub struct DemoArgs {
    #[argh(option, arg_name = "seconds")]
    /// end by itself, so long after the sample events were handled [default: run until Ctrl-C]
    pub exit_after: Option<String>,
    #[argh(option, arg_name = "port")]
    /// port of the HTTP endpoints on 127.0.0.1; 0 takes any free one [default: 0]
    pub http_port: Option<String>,
}

/// Runs the command.
pub fn run(args: &DemoArgs) -> ExitCode {
    match options(args) {
        Ok(options) => demo::run(&options),
        Err(error) => complain(&error.hint("`dispatchbox help demo` lists its options")),
    }
}

fn options(args: &DemoArgs) -> Result<DemoOptions, UsageError> {
    let exit_after = values::option("--exit-after", args.exit_after.as_deref(), |text| {
        values::seconds(text, &(0.0..=86_400.0))
    })?;
    let http_port = values::option("--http-port", args.http_port.as_deref(), |text| {
        values::count(text, &(0..=u16::MAX))
    })?;
    Ok(DemoOptions {
        exit_after,
        http_port: http_port.unwrap_or(0),
    })
}
