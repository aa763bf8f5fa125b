//! The log: one line per fact on standard error.
//!
//! Every line passes one sink that promises three things. A line is one line, whatever text an
//! event or a server put into it (control characters are escaped). No password stands in it (text
//! that looks like one is replaced). A reader that has gone away or a full disk harms nothing
//! (errors of writing are ignored). A daemon's lines are written by `writer`, so that a reader that
//! has stalled stops nothing, either. A command's lines are written at once, in their order with
//! its output.
//!
//! Not here: files and rotation, which the journal does better.

mod escape;
mod redact;
mod writer;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::time::SystemTime;

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter, Record};

use crate::domain::config::LogLevel;
use crate::domain::text::{ellipsis, first_bytes};
pub use escape::escape;
pub(crate) use escape::is_harmful;
pub(crate) use redact::quoted;
pub use redact::redact;
use writer::Writer;

/// Longest message that is written: journald splits lines of more than 48 KiB, and a person does
/// not read so far.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// The writer of a daemon's lines; none in a command, and before the log is started.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// Starts the log of a command; `process` is its name in every line. A second call changes nothing.
pub fn init(level: LogLevel, process: &str) {
    start(level, process, None);
}

/// Starts the log of a process of the daemon: a reader of the log cannot stop the process. A second
/// call changes nothing.
pub fn init_daemon(level: LogLevel, process: &str) {
    let name = escape(process).into_owned();
    let time = time_source();
    let notice = move |n_dropped| {
        let told = match n_dropped {
            1 => "1 line of the log was dropped: nothing read it in time".to_owned(),
            n => format!("{n} lines of the log were dropped: nothing read them in time"),
        };
        let args = format_args!("{told}");
        let record = Record::builder()
            .level(Level::Warn)
            .target("log")
            .args(args)
            .build();
        line(time(), &name, &record)
    };
    // Without a thread of its own the log is written at once.
    let writer = Writer::start(Box::new(notice)).ok();
    start(level, process, writer);
}

/// Waits until the daemon's lines are written, or the reader has stalled; returns soon in any case.
/// It is called at the end of the process.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush();
    }
}

/// Lines of this process that were dropped because nothing read them in time.
pub fn n_dropped() -> u64 {
    WRITER.get().map_or(0, Writer::n_dropped)
}

/// Starts the log. Panics are written to it, too: their text may hold text of an event or a server.
fn start(level: LogLevel, process: &str, writer: Option<Writer>) {
    let process = escape(process).into_owned();
    let time = time_source();
    let is_queued = writer.is_some();
    let queue = writer.clone();
    let mut builder = Builder::new();
    builder
        .target(if is_queued {
            // The format below writes each line itself, so nothing is left for the target.
            Target::Pipe(Box::new(io::sink()))
        } else {
            Target::Stderr
        })
        .write_style(WriteStyle::Never)
        .filter_level(filter(level))
        // The drivers log the parameters of statements at debug and the server's notices at info:
        // payloads and more.
        .filter_module("tokio_postgres", LevelFilter::Warn.min(filter(level)))
        .filter_module("postgres", LevelFilter::Warn.min(filter(level)))
        // The HTTP client logs each step of each request, and may log a receiver's answer.
        .filter_module("ureq", LevelFilter::Warn.min(filter(level)))
        .filter_module("ureq_proto", LevelFilter::Warn.min(filter(level)))
        .filter_module("rustls", LevelFilter::Warn.min(filter(level)))
        .format(move |out, record| {
            let line = line(time(), &process, record);
            match &queue {
                Some(queue) => {
                    queue.push(record.level(), line);
                    Ok(())
                }
                None => out.write_all(line.as_bytes()),
            }
        });
    if builder.try_init().is_ok() {
        if let Some(writer) = writer {
            // The cell is empty until now: this line runs once.
            let _ = WRITER.set(writer);
        }
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("unnamed");
            log::error!(target: "panic", "thread `{name}` {panic}");
            // The panic may be the last line of this process.
            flush();
        }));
    }
}

/// The source of a line's time; none under the journal, which adds its own.
fn time_source() -> impl Fn() -> Option<SystemTime> + Copy {
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    move || (!is_journal).then(SystemTime::now)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Warning => LevelFilter::Warn,
        LogLevel::Error => LevelFilter::Error,
    }
}

/// Renders one line; without a time it begins with the priority that the journal reads.
fn line(time: Option<SystemTime>, process: &str, record: &Record) -> String {
    let message = record.args().to_string();
    // The message is redacted before it is cut: half a URL would no longer show where its password
    // ends.
    let message = redact(&message);
    let mut line = match time {
        Some(time) => format!("{} ", timestamp(time)),
        None => format!("<{}>", priority(record.level())),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        "{:5} {process} {}  {}",
        record.level(),
        escape(short_target(record.target())),
        escape(&shortened(&message)),
    );
    line
}

/// The journal uses the priorities of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The last name of our modules' paths, the first name of other crates'.
fn short_target(target: &str) -> &str {
    let (first, rest) = target.split_once("::").unwrap_or((target, ""));
    match rest.rsplit("::").next() {
        Some(last) if first == "dispatchbox" && !last.is_empty() => last,
        _ => first,
    }
}

/// Formats a time to milliseconds, which are enough to tell lines apart.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "-".to_owned(), |time| format!("{time:.3}"))
}

fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE_BYTES_MAX {
        return Cow::Borrowed(message);
    }
    let begin = first_bytes(message, MESSAGE_BYTES_MAX);
    Cow::Owned(format!(
        "{begin}{} ({} more bytes)",
        ellipsis(message, begin),
        message.len() - begin.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(time: Option<SystemTime>, target: &str, message: &str) -> String {
        line(
            time,
            "worker-00-pid123",
            &Record::builder()
                .level(Level::Info)
                .target(target)
                .args(format_args!("{message}"))
                .build(),
        )
    }

    #[test]
    fn a_line_is_time_level_process_target_and_sentence() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_795_475_761_123);
        assert_eq!(
            logged(
                Some(time),
                "dispatchbox::worker::fetcher",
                "claimed 10 events in 3 ms"
            ),
            "2026-11-23T23:16:01.123Z INFO  worker-00-pid123 fetcher  claimed 10 events in 3 ms\n"
        );
    }

    #[test]
    fn under_the_journal_a_line_begins_with_its_priority() {
        assert_eq!(
            logged(None, "supervisor", "started"),
            "<6>INFO  worker-00-pid123 supervisor  started\n"
        );
        let priorities = [Level::Error, Level::Warn, Level::Info, Level::Debug].map(priority);
        assert_eq!(priorities, [3, 4, 6, 7]);
    }

    #[test]
    fn a_target_is_shown_by_the_name_that_helps() {
        assert_eq!(short_target("dispatchbox::supervisor"), "supervisor");
        assert_eq!(short_target("dispatchbox"), "dispatchbox");
        assert_eq!(short_target("postgres::config"), "postgres");
        assert_eq!(short_target("panic"), "panic");
    }

    #[test]
    fn a_line_stays_one_line() {
        let line = logged(None, "x", "a\nb\r\u{1b}[31m\u{85}\u{2028}\u{202e}\0\u{7f}é");
        assert_eq!(
            line,
            "<6>INFO  worker-00-pid123 x  a\\nb\\r\\x1b[31m\\u{85}\\u{2028}\\u{202e}\\x00\\x7fé\n"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let line = logged(None, "x", &"é".repeat(MESSAGE_BYTES_MAX));
        assert!(line.len() < MESSAGE_BYTES_MAX + 100);
        assert!(line.ends_with("… (8192 more bytes)\n"), "{line}");
    }
}
