//! `dispatchbox bench`: its arguments.

use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use crate::cli::settings::values;
use crate::cli::terminal::message::{complain, say};
use crate::cli::terminal::output;
use crate::dev::bench::{self, BenchOptions, SoakOptions};
use crate::domain::config::CLAIM_EVENTS_MAX;
use crate::domain::usage::{EXIT_FAILED, UsageError};

/// The shortest soak, in minutes: three seconds, which have four quarters with some looks each.
const MINUTES_MIN: f64 = 0.05;

/// The longest soak, in minutes: a week.
const MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;

/// Options of `bench`.
#[derive(Debug, Default, Clone, PartialEq, Eq, FromArgs, ArgsInfo)]
pub struct BenchArgs {
    #[argh(option, arg_name = "dsn")]
    /// measure in this database, in a schema that is removed again [default: a throwaway server]
    pub dsn: Option<String>,
    #[argh(option, arg_name = "n")]
    /// worker processes, and connections of the bare statements [default: 2]
    pub processes: Option<String>,
    #[argh(option, arg_name = "n")]
    /// events a claim takes [default: 500]
    pub batch_size: Option<String>,
    #[argh(option, arg_name = "n")]
    /// events that each run drains [default: 200000]
    pub events: Option<String>,
    #[argh(option, arg_name = "n")]
    /// pairs of runs, of which the median counts [default: 3]
    pub pairs: Option<String>,
    #[argh(switch)]
    /// instead, let producers commit events for an hour, and look whether anything grows or slows
    /// down
    pub soak: bool,
    #[argh(option, arg_name = "n")]
    /// length of a soak, fractions allowed [default: 60]
    pub minutes: Option<String>,
    #[argh(option, arg_name = "n")]
    /// events that the producers of a soak commit each second [default: 5000]
    pub rate: Option<String>,
    #[argh(switch)]
    /// print one JSON object instead of the table
    pub json: bool,
}

/// Runs the command; the exit code is 1 also when an event was lost or handled twice.
pub fn run(args: &BenchArgs) -> ExitCode {
    let options = match options(args) {
        Ok(options) => options,
        Err(error) => return complain(&error.hint("`dispatchbox help bench` lists its options")),
    };
    match bench::run(&options) {
        Ok(found) => output::finish(
            &found.text,
            ExitCode::from(if found.is_exact { 0 } else { EXIT_FAILED }),
        ),
        Err(error) => {
            say(&format!("error: {error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn options(args: &BenchArgs) -> Result<BenchOptions, UsageError> {
    let soak = soak(args)?;
    Ok(BenchOptions {
        dsn: args.dsn.clone(),
        // More processes than a small server has connections measure nothing.
        processes: positive("--processes", args.processes.as_deref(), "2", 64)?,
        batch_size: positive(
            "--batch-size",
            args.batch_size.as_deref(),
            "500",
            CLAIM_EVENTS_MAX,
        )?,
        events: values::option("--events", args.events.as_deref(), |text| {
            values::count(text, &(1..=100_000_000))
        })?
        .unwrap_or(200_000),
        pairs: positive("--pairs", args.pairs.as_deref(), "3", 1000)?,
        soak,
        json: args.json,
    })
}

/// Reads the options of a soak; an option that would have no effect is refused.
fn soak(args: &BenchArgs) -> Result<Option<SoakOptions>, UsageError> {
    let (others, rule) = if args.soak {
        let pairs = [("--events", &args.events), ("--pairs", &args.pairs)];
        (pairs, "has no meaning with --soak")
    } else {
        let soak = [("--minutes", &args.minutes), ("--rate", &args.rate)];
        (soak, "is for --soak alone")
    };
    if let Some((name, _)) = others.iter().find(|(_, typed)| typed.is_some()) {
        return Err(UsageError::new(format!("{name} {rule}")));
    }
    let minutes = values::option("--minutes", args.minutes.as_deref(), |text| {
        values::decimal(text, &(MINUTES_MIN..=MINUTES_MAX), "")
    })?;
    let rate = values::option("--rate", args.rate.as_deref(), |text| {
        values::count(text, &(1..=1_000_000))
    })?;
    Ok(args.soak.then(|| SoakOptions {
        time: Duration::from_secs_f64(minutes.unwrap_or(60.0) * 60.0),
        rate: rate.unwrap_or(5000),
    }))
}

fn positive(
    name: &str,
    typed: Option<&str>,
    default: &str,
    most: u16,
) -> Result<NonZeroU16, UsageError> {
    values::named(name, typed.unwrap_or(default), |text| {
        values::positive(text, &(1..=most))
    })
}
