//! `dispatchbox chaos`: its arguments.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use crate::cli::settings::values;
use crate::cli::terminal::message::{complain, say};
use crate::cli::terminal::output;
use crate::dev::chaos::{self, ChaosOptions, Fault};
use crate::domain::nearest::did_you_mean;
use crate::domain::usage::{EXIT_FAILED, UsageError};

/// Options of `chaos`.
#[derive(Debug, Default, Clone, PartialEq, Eq, FromArgs, ArgsInfo)]
pub struct ChaosArgs {
    #[argh(option, arg_name = "minutes")]
    /// how long faults are played, 0.5 for half a minute; Ctrl-C ends them earlier [default: 1]
    pub minutes: Option<String>,
    #[argh(option, arg_name = "n")]
    /// play the schedule of this number once more [default: a random one, which is printed]
    pub seed: Option<String>,
    #[argh(option, arg_name = "names")]
    /// play only these faults, separated by commas [default: all of them]
    pub faults: Option<String>,
    #[argh(option, arg_name = "file")]
    /// run these statements after the migration: break a function, and see that it is found
    pub sql: Option<String>,
    #[argh(switch)]
    /// keep the logs also where every law held
    pub keep: bool,
}

/// Runs the command; the exit code is 1 also when a law was broken.
pub fn run(args: &ChaosArgs) -> ExitCode {
    let options = match options(args) {
        Ok(options) => options,
        Err(error) => return complain(&error.hint("`dispatchbox help chaos` lists its options")),
    };
    say(&format!("chaos with --seed {}\n", options.seed));
    match chaos::run(&options) {
        Ok(found) => output::finish(
            &found.text,
            ExitCode::from(if found.is_lawful { 0 } else { EXIT_FAILED }),
        ),
        Err(error) => {
            say(&format!("error: {error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn options(args: &ChaosArgs) -> Result<ChaosOptions, UsageError> {
    let minutes = values::option("--minutes", args.minutes.as_deref(), |text| {
        values::decimal(text, &(0.0..=1440.0), " of minutes")
    })?;
    let seed = values::option("--seed", args.seed.as_deref(), |text| {
        values::whole(text, &(0..=u64::from(u32::MAX)))
    })?;
    let faults = values::option("--faults", args.faults.as_deref(), faults)?;
    let sql = values::option("--sql", args.sql.as_deref(), |path| {
        fs::read_to_string(path).map_err(|error| format!("could not be read: {error}"))
    })?;
    Ok(ChaosOptions {
        length: Duration::from_secs_f64(minutes.unwrap_or(1.0) * 60.0),
        // A number that is quickly typed.
        seed: seed.unwrap_or_else(|| u64::from(fastrand::u16(..))),
        faults: faults.unwrap_or_else(|| Fault::ALL.to_vec()),
        sql,
        is_kept: args.keep,
    })
}

fn faults(text: &str) -> Result<Vec<Fault>, String> {
    let known = || Fault::ALL.into_iter().map(Fault::name);
    text.split(',')
        .map(|name| {
            let found = Fault::ALL.into_iter().find(|fault| fault.name() == name);
            found.ok_or_else(|| {
                format!(
                    "must be among {}, not {}{}",
                    known().collect::<Vec<_>>().join(", "),
                    values::quoted(name),
                    did_you_mean(name, known())
                )
            })
        })
        .collect()
}
