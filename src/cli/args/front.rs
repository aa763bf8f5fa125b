//! The front of the command line: from the arguments of the process to one [`Command`].
//!
//! argh fills the structures. This front does before it what argh lacks or does otherwise:
//! `--name=value`, `run` when no command is named, `-h`, exit code 2, and errors that never show a
//! value (argh prints the value of an option that is given twice, and that may be a DSN with its
//! password).

use std::ffi::OsString;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use crate::cli::args::help;
use crate::cli::commands::{COMMANDS, Command, DAEMONS, Spec};
use crate::domain::nearest::did_you_mean;
use crate::domain::usage::UsageError;
use crate::system::logging;

/// The result of parsing the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A command.
    Command(Box<Command>),
    /// Help or version, to be printed with exit code 0.
    Text(String),
}

/// The word that makes this process a worker. No help shows it: only the supervisor uses it.
pub const WORKER: &str = "worker";

/// A topic of the help that is no command.
const ROUTES: &str = "routes";

/// Longest mistyped word that an error repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// Reads the arguments of the process, its name not among them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, UsageError> {
    let args = args
        .into_iter()
        .enumerate()
        .map(|(at, arg)| {
            arg.into_string()
                .map_err(|_| UsageError::new(format!("argument {} is not valid UTF-8", at + 1)))
        })
        .collect::<Result<Vec<String>, _>>()?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--help" | "-h"] => Ok(Parsed::Text(help::overview())),
        ["help", words @ ..] => help_on(words),
        [word, "--help" | "-h"] if is_group(word) => Ok(Parsed::Text(help::group(word))),
        ["--version" | "-V", ..] => Ok(Parsed::Text(version())),
        [WORKER] => Ok(Parsed::Command(Box::new(Command::Worker))),
        [first, rest @ ..] if !first.starts_with('-') => {
            if let Some(daemon) = DAEMONS.iter().find(|spec| spec.words == [*first]) {
                return command(daemon, rest);
            }
            let (spec, rest) = find(&args)?;
            command(spec, rest)
        }
        _ => command(&COMMANDS[0], &args),
    }
}

fn version() -> String {
    format!("dispatchbox {}\n", env!("CARGO_PKG_VERSION"))
}

fn help_on(words: &[&str]) -> Result<Parsed, UsageError> {
    let words: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| !word.starts_with('-'))
        .collect();
    match words.as_slice() {
        [] => Ok(Parsed::Text(help::overview())),
        [ROUTES] => Ok(Parsed::Text(help::routes())),
        [word] if is_group(word) => Ok(Parsed::Text(help::group(word))),
        words => find(words).map(|(spec, _)| Parsed::Text(help::command(spec))),
    }
}

/// Says whether commands of two words begin with this one.
fn is_group(word: &str) -> bool {
    COMMANDS
        .iter()
        .any(|spec| spec.words.len() > 1 && spec.words[0] == word)
}

/// Finds the command that the first words name; the rest are its arguments.
fn find<'a, 'b>(args: &'a [&'b str]) -> Result<(&'static Spec, &'a [&'b str]), UsageError> {
    if let Some(spec) = COMMANDS.iter().find(|spec| args.starts_with(spec.words)) {
        return Ok((spec, &args[spec.words.len()..]));
    }
    let group: Vec<&str> = COMMANDS
        .iter()
        .filter(|spec| spec.words.len() > 1 && spec.words[0] == args[0])
        .map(|spec| spec.words[1])
        .collect();
    let hint = "`dispatchbox help` lists the commands";
    if group.is_empty() {
        let known = COMMANDS.iter().map(|spec| spec.words[0]).chain(["help"]);
        return Err(unknown("command", args[0], known).hint(hint));
    }
    match args.get(1).filter(|word| !word.starts_with('-')) {
        Some(word) => Err(unknown(&format!("`{}` command", args[0]), word, group).hint(hint)),
        None => Err(UsageError::new(format!(
            "`{}` needs a command: {}",
            args[0],
            group.join(", ")
        ))
        .hint(hint)),
    }
}

/// Reports an unknown word, and repeats it unless it may hold a secret: a DSN typed without
/// `--dsn`.
fn unknown<'a>(what: &str, word: &str, known: impl IntoIterator<Item = &'a str>) -> UsageError {
    if !is_name(word) {
        return UsageError::new(format!("unknown {what}"));
    }
    UsageError::new(format!(
        "unknown {what} `{word}`{}",
        did_you_mean(word, known)
    ))
}

fn is_name(word: &str) -> bool {
    (1..=SHOWN_CHARS_MAX).contains(&word.len())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Parses the arguments of a command.
fn command(spec: &Spec, args: &[&str]) -> Result<Parsed, UsageError> {
    let name = spec.words.join(" ");
    let with_hint =
        |error: UsageError| error.hint(format_args!("`dispatchbox help {name}` lists its options"));
    let info = (spec.info)();
    let Some(args) = canonical(&name, &info, args).map_err(with_hint)? else {
        return Ok(Parsed::Text(help::command(spec)));
    };
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match (spec.parse)(&["dispatchbox", &name], &args) {
        Ok(command) => Ok(Parsed::Command(Box::new(command))),
        Err(exit) if exit.status.is_ok() => Ok(Parsed::Text(exit.output)),
        // The front has checked everything, so argh should refuse nothing.
        Err(exit) => {
            let line = exit.output.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(with_hint(UsageError::new(logging::redact(&line))))
        }
    }
}

/// Brings arguments into the form that argh takes: each known option once, its value behind it.
/// `None` means that help was asked for.
fn canonical(
    name: &str,
    info: &CommandInfoWithArgs,
    args: &[&str],
) -> Result<Option<Vec<String>>, UsageError> {
    let mut canonical: Vec<String> = Vec::new();
    let mut positionals: Vec<String> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut has_ended_options = false;
    let mut args = args.iter().copied();
    while let Some(arg) = args.next() {
        let is_positional = has_ended_options || !arg.starts_with('-') || is_negative(info, arg);
        let is_help =
            matches!(arg, "--help" | "-h") || arg == "help" && info.positionals.is_empty();
        if is_help && !has_ended_options {
            return Ok(None);
        }
        if is_positional {
            positionals.push(arg.to_owned());
            check_positional(info, positionals.len(), arg)?;
            continue;
        }
        if arg == "--" {
            has_ended_options = true;
            continue;
        }
        let (typed, inline) = match arg.split_once('=') {
            Some((typed, value)) => (typed, Some(value)),
            None => (arg, None),
        };
        let flag = find_flag(info, typed)?;
        if seen.contains(&flag.long) && flag.optionality != Optionality::Repeating {
            return Err(UsageError::new(format!("{} is given twice", flag.long)));
        }
        seen.push(flag.long);
        canonical.push(flag.long.to_owned());
        match (&flag.kind, inline) {
            (FlagInfoKind::Switch, None) => {}
            (FlagInfoKind::Switch, Some(_)) => {
                return Err(UsageError::new(format!("{} takes no value", flag.long)));
            }
            (FlagInfoKind::Option { .. }, Some(value)) => canonical.push(value.to_owned()),
            (FlagInfoKind::Option { arg_name }, None) => {
                let value = args.next().filter(|value| !value.starts_with("--"));
                let value = value.ok_or_else(|| missing_value(flag, arg_name))?;
                canonical.push(value.to_owned());
            }
        }
    }
    check_complete(name, info, positionals.len(), &seen)?;
    if positionals.iter().any(|arg| arg.starts_with('-')) {
        canonical.push("--".to_owned());
    }
    canonical.append(&mut positionals);
    Ok(Some(canonical))
}

/// Says whether an argument is a negative number, such as an id, where arguments are taken; no
/// option looks like a number.
fn is_negative(info: &CommandInfoWithArgs, arg: &str) -> bool {
    let digits = arg.strip_prefix('-').unwrap_or_default();
    !info.positionals.is_empty()
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Refuses a command line that lacks what the command needs, and names all of it.
fn check_complete(
    name: &str,
    info: &CommandInfoWithArgs,
    n_positionals: usize,
    seen: &[&str],
) -> Result<(), UsageError> {
    let positionals = info.positionals.iter().skip(n_positionals);
    let arguments = positionals
        .filter(|positional| positional.optionality == Optionality::Required)
        .map(|positional| with_article(positional.name));
    let options = info
        .flags
        .iter()
        .filter(|flag| flag.optionality == Optionality::Required && !seen.contains(&flag.long))
        .map(|flag| flag.long.to_owned());
    let missing: Vec<String> = arguments.chain(options).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(UsageError::new(format!(
        "`{name}` needs {}",
        missing.join(", ")
    )))
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

fn missing_value(flag: &FlagInfo, arg_name: &str) -> UsageError {
    UsageError::new(format!("{} needs a value: <{arg_name}>", flag.long))
}

fn find_flag<'a>(
    info: &'a CommandInfoWithArgs,
    name: &str,
) -> Result<&'a FlagInfo<'static>, UsageError> {
    info.flags
        .iter()
        .find(|flag| flag.long == name)
        .ok_or_else(|| {
            let is_long = name.starts_with("--");
            // `-ppassword` is how other programs take a password, so only the letter may be shown.
            let shown: String = name
                .chars()
                .take(if is_long { usize::MAX } else { 2 })
                .collect();
            unknown("option", &shown, info.flags.iter().map(|flag| flag.long))
        })
}

fn check_positional(
    info: &CommandInfoWithArgs,
    n_positionals: usize,
    arg: &str,
) -> Result<(), UsageError> {
    let takes_more = info.positionals.iter().any(|positional| {
        matches!(
            positional.optionality,
            Optionality::Repeating | Optionality::Greedy
        )
    });
    if n_positionals <= info.positionals.len() || takes_more {
        return Ok(());
    }
    Err(if is_name(arg) {
        UsageError::new(format!("unexpected argument `{arg}`"))
    } else {
        UsageError::new("unexpected argument")
    })
}
