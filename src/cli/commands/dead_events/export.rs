//! `dispatchbox dead-events export`: all dead letters that match a filter, as JSON, JSON lines or
//! CSV.
//!
//! The events are read a page at a time, so that memory stays flat however many there are. Each
//! page is a statement of its own, so that no snapshot is held while a slow disk takes it. A file
//! is written under a temporary name and gets its own name when it is complete: there is never half
//! an export, and an existing file is only replaced by `--force`. The file is readable by its owner
//! alone, since payloads are other people's data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;

use crate::cli::commands::dead_events::csv;
use crate::cli::commands::dead_events::filter::dead_set_args;
use crate::cli::commands::one_shot::{self, Failure};
use crate::cli::settings::{Env, values};
use crate::cli::terminal::message::say;
use crate::cli::terminal::{self, events};
use crate::domain::event::one_line;
use crate::domain::usage::UsageError;
use crate::store::{DeadCursor, DeadEvent, DeadFilter, Session, io_cause};
use crate::system::logging;
use crate::system::signal::{self, SignalThread};

/// Ids that one statement looks up.
const PAGE_IDS: u32 = 1000;

/// Payload bytes, as they are stored, that one statement reads: compressed payloads take a multiple
/// of that in memory.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

dead_set_args! {
    /// Options of `dead-events export`.
    pub struct ExportArgs {
        #[argh(option, arg_name = "format")]
        /// json (one array), jsonl (one object a line) or csv (for spreadsheets) [default: jsonl]
        pub format: Option<String>,
        #[argh(option, arg_name = "file")]
        /// where to; `-` is standard output [default: -]
        pub output: Option<String>,
        #[argh(switch)]
        /// replace the file if there is one
        pub force: bool,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    JsonLines,
    Csv,
}

impl Format {
    fn read(text: &str) -> Result<Format, UsageError> {
        match text {
            "json" => Ok(Format::Json),
            "jsonl" => Ok(Format::JsonLines),
            "csv" => Ok(Format::Csv),
            other => Err(UsageError::new(format!(
                "--format must be json, jsonl or csv, not {}",
                values::quoted(other)
            ))),
        }
    }

    fn begin(self) -> &'static str {
        match self {
            Format::Json => "[",
            Format::JsonLines => "",
            Format::Csv => csv::HEADER,
        }
    }

    fn event(self, event: &DeadEvent, is_first: bool) -> String {
        match self {
            Format::Json if is_first => format!("\n{}", event.to_json()),
            Format::Json => format!(",\n{}", event.to_json()),
            Format::JsonLines => one_line(event.to_json()) + "\n",
            Format::Csv => csv::line(event),
        }
    }

    fn end(self) -> &'static str {
        match self {
            Format::Json => "\n]\n",
            Format::JsonLines | Format::Csv => "",
        }
    }

    /// Makes the text safe where it goes to a terminal.
    fn shown(self, text: &str) -> String {
        match self {
            Format::Json | Format::JsonLines => terminal::safe_json(text),
            Format::Csv => logging::escape(text.trim_end_matches('\n')).into_owned() + "\n",
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &ExportArgs, env: &Env) -> ExitCode {
    let read = || {
        let format = args
            .format
            .as_deref()
            .map_or(Ok(Format::JsonLines), Format::read)?;
        let path = args.output.as_deref().filter(|path| *path != "-");
        if path.is_none() && args.force {
            return Err(UsageError::new("--force needs --output with a file"));
        }
        if let Some(path) = path.filter(|path| Path::new(path).is_dir()) {
            return Err(UsageError::new(format!(
                "--output must be a file, and `{path}` is a directory"
            )));
        }
        // An existing file is reported before any work. Whether there is one is checked again when
        // the export gets its name.
        if let Some(path) = path.filter(|path| !args.force && Path::new(path).exists()) {
            return Err(already_there(path));
        }
        Ok((args.chosen()?, format, path.map(PathBuf::from)))
    };
    let command = "dead-events export";
    one_shot::look(command, args.given(), env, read, |session, wanted| {
        let (chosen, format, path) = wanted;
        let filter = chosen.resolve(session)?;
        let n_events = match path {
            None => to_stdout(session, &filter, format)?,
            Some(path) => to_file(session, &filter, format, &path, args.force)?,
        };
        say(&format!("exported {}\n", events(n_events)));
        Ok(ExitCode::SUCCESS)
    })
}

fn already_there(path: &str) -> UsageError {
    UsageError::new(format!("`{path}` is there already: --force replaces it"))
}

fn to_stdout(session: &mut Session, filter: &DeadFilter, format: Format) -> Result<u64, Failure> {
    let is_shown = io::stdout().is_terminal();
    let mut out = BufWriter::new(io::stdout().lock());
    write_all(
        session,
        filter,
        format,
        &mut out,
        "to standard output",
        is_shown,
    )
}

fn to_file(
    session: &mut Session,
    filter: &DeadFilter,
    format: Format,
    path: &Path,
    is_forced: bool,
) -> Result<u64, Failure> {
    let shown = path.display();
    let failed = |error: io::Error| {
        Failure::Other(format!("could not write `{shown}`: {}", io_cause(&error)))
    };
    let draft = Draft::create(path).map_err(failed)?;
    let mut out = BufWriter::new(&draft.file);
    let n_events = write_all(
        session,
        filter,
        format,
        &mut out,
        &format!("`{shown}`"),
        false,
    )?;
    drop(out);
    draft.file.sync_all().map_err(failed)?;
    match draft.publish(path, is_forced) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(already_there(&shown.to_string()).into())
        }
        published => published.map(|()| n_events).map_err(failed),
    }
}

/// A file that has no name of its own yet; it is removed when this value is dropped.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    fn create(target: &Path) -> io::Result<Draft> {
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
        name.push(format!(".{:016x}.part", fastrand::u64(..)));
        let path = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Draft { file, path })
    }

    /// A link fails where a file exists, whichever process made it and when; a rename replaces it.
    fn publish(self, target: &Path, is_forced: bool) -> io::Result<()> {
        if is_forced {
            fs::rename(&self.path, target)
        } else {
            fs::hard_link(&self.path, target)
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn write_all(
    session: &mut Session,
    filter: &DeadFilter,
    format: Format,
    out: &mut impl Write,
    where_to: &str,
    is_shown: bool,
) -> Result<u64, Failure> {
    let signals = SignalThread::start()
        .map_err(|error| Failure::Other(format!("could not listen to signals: {error}")))?;
    // On a terminal that shows the events themselves, a progress bar would stand between them.
    let bar = if is_shown {
        ProgressBar::hidden()
    } else {
        terminal::progress(None)
    };
    let failed = |error: io::Error| Failure::of_write(where_to, &error);
    let mut write = |text: String| {
        let text = if is_shown { format.shown(&text) } else { text };
        out.write_all(text.as_bytes()).map_err(failed)
    };
    write(format.begin().to_owned())?;
    let mut n_events = 0;
    let mut cursor = DeadCursor::default();
    loop {
        let ids = session.matching_dead(filter, &mut cursor, PAGE_IDS)?;
        if ids.is_empty() {
            break;
        }
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            if let Ok(signal) = signals.received.try_recv() {
                let signal = signal::name(signal);
                return Err(Failure::Other(format!(
                    "interrupted by {signal}: the export is not complete"
                )));
            }
            let page = session.dead_events_of(rest, PAGE_BYTES)?;
            // An event that is not returned is not dead any more.
            let Some(last) = page.last() else { break };
            let last_at = rest.iter().position(|id| *id == last.id);
            for event in &page {
                write(format.event(event, n_events == 0))?;
                n_events += 1;
            }
            rest = &rest[last_at.map_or(rest.len(), |at| at + 1)..];
        }
        bar.set_position(n_events);
    }
    write(format.end().to_owned())?;
    out.flush().map_err(failed)?;
    bar.finish_and_clear();
    Ok(n_events)
}
