//! The help texts, rendered from what argh knows about the commands, so that help and parser cannot
//! disagree.

use std::fmt::Write as _;

use argh::{FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use crate::cli::commands::{COMMANDS, Spec};
use crate::cli::settings::routes::{LIMIT_KEYS, RETRY_KEYS, TARGET_KEYS};
use crate::cli::settings::run::SETTINGS;
use crate::handlers::KINDS;
use crate::handlers::keys::Key;

/// Widest line: every terminal has this width.
const WIDTH: usize = 80;

/// Column where descriptions begin; a longer name gets a line of its own.
const DESCRIPTION_COLUMN: usize = 26;

/// Renders the help of the program.
pub(super) fn overview() -> String {
    let mut text = String::from(
        "Deliver the events of a PostgreSQL outbox table, each at least once.\n\n\
         Usage: dispatchbox [command] [options]\n\nCommands:\n",
    );
    for spec in COMMANDS {
        entry(&mut text, &spec.words.join(" "), spec.summary);
    }
    text.push_str("\nOptions:\n");
    entry(
        &mut text,
        "-h, --help",
        "show this text, or that of a command",
    );
    entry(&mut text, "-V, --version", "show the version");
    text.push_str(
        "\nWithout a command, `run` is meant. `dispatchbox help run` lists its options.\n\n\
         Exit codes: 0 done, 1 failed, 2 usage, 69 database unreachable (not from `run`,\n\
         which waits for it), 78 configuration, schema, password or database name wrong.\n",
    );
    text
}

/// Renders the commands that begin with the same word.
pub(super) fn group(word: &str) -> String {
    let mut text = format!("Usage: dispatchbox {word} <command> [options]\n\nCommands:\n");
    for spec in COMMANDS.iter().filter(|spec| spec.words[0] == word) {
        entry(&mut text, &spec.words.join(" "), spec.summary);
    }
    text
}

/// Renders the help of one command.
pub(super) fn command(spec: &Spec) -> String {
    let info = (spec.info)();
    let name = spec.words.join(" ");
    let mut text = format!(
        "{}.\n\nUsage: dispatchbox {name} [options]",
        capitalized(spec.summary)
    );
    for positional in info
        .positionals
        .iter()
        .filter(|positional| !positional.hidden)
    {
        let _ = write!(text, " {}", argument(positional));
    }
    text.push('\n');
    if !info.positionals.is_empty() {
        text.push_str("\nArguments:\n");
        for positional in info.positionals {
            entry(&mut text, &argument(positional), positional.description);
        }
    }
    text.push_str("\nOptions:\n");
    for flag in info.flags.iter().filter(|flag| !flag.hidden) {
        if flag.long != "--help" {
            entry(&mut text, &usage(flag), &described(flag));
        }
    }
    entry(&mut text, "-h, --help", "show this text");
    for note in info.notes {
        let _ = write!(text, "\n{note}\n");
    }
    text
}

/// Renders what routes can have, from the tables by which they are read.
pub(super) fn routes() -> String {
    let mut text = String::from(
        "A route says which handler delivers which event types; the first match wins.\n\n\
         Usage: dispatchbox run --route <pattern=handler> --route …\n       \
         dispatchbox run --config <file>, with a [[route]] table for each route\n\n\
         Handlers:\n",
    );
    for kind in KINDS {
        entry(&mut text, kind.name, kind.summary);
        for form in kind.forms {
            entry(&mut text, "", &format!("--route 'PATTERN={form}'"));
        }
    }
    let own = "a handler that the program has registered under this name";
    entry(&mut text, "NAME", own);
    entry(&mut text, "", "--route 'PATTERN=NAME'");
    let of_all = [TARGET_KEYS, LIMIT_KEYS].concat();
    keys(&mut text, "Keys of a [[route]] table", &of_all);
    for kind in KINDS.iter().filter(|kind| !kind.keys.is_empty()) {
        let title = format!("Further keys with handler = \"{}\"", kind.name);
        keys(&mut text, &title, kind.keys);
    }
    keys(&mut text, "Keys of a [route.retry] table", RETRY_KEYS);
    text
}

fn keys(text: &mut String, title: &str, keys: &[Key]) {
    let _ = writeln!(text, "\n{title}:");
    for key in keys {
        entry(text, key.name, key.help);
    }
}

fn argument(positional: &PositionalInfo) -> String {
    let more = match positional.optionality {
        Optionality::Repeating | Optionality::Greedy => "…",
        Optionality::Required | Optionality::Optional => "",
    };
    format!("<{}>{more}", positional.name)
}

fn usage(flag: &FlagInfo) -> String {
    match flag.kind {
        FlagInfoKind::Switch => flag.long.to_owned(),
        FlagInfoKind::Option { arg_name } => format!("{} <{arg_name}>", flag.long),
    }
}

/// Marks where a description has the default of a setting, which the table of settings knows.
const DEFAULT_MARK: &str = "[default: …";

/// The description of an option, with the default of its setting where it has the mark.
fn described(flag: &FlagInfo) -> String {
    let is_flag = |option: &str| flag.long.strip_prefix("--") == Some(option);
    let mut settings = SETTINGS.all().into_iter();
    match settings.find(|(name, _)| is_flag(&name.option())) {
        Some((_, default)) => {
            let shown = DEFAULT_MARK.replace('…', &default);
            flag.description.replace(DEFAULT_MARK, &shown)
        }
        None => flag.description.to_owned(),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// Writes a name and its description, which is wrapped in its own column.
fn entry(text: &mut String, name: &str, description: &str) {
    let mut line = format!("  {name}");
    if line.len() + 2 > DESCRIPTION_COLUMN {
        let _ = writeln!(text, "{line}");
        line.clear();
    }
    for word in description.split_whitespace() {
        let at_start = line.chars().count() < DESCRIPTION_COLUMN;
        if !at_start && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line.clear();
        }
        let width = line.chars().count();
        let n_blanks = DESCRIPTION_COLUMN.saturating_sub(width).max(1);
        let _ = write!(line, "{:n_blanks$}{word}", "");
    }
    let _ = writeln!(text, "{line}");
}
