//! The log: one line per fact on standard error.
//!
//! Every line passes one sink that promises three things: a line is one line whatever text an event or a server put into it
//! (control characters are escaped), no password stands in it (what looks like one is replaced), and a reader that has gone away
//! or a full disk harms nothing (errors of writing are ignored). Not here: files and rotation, which the journal does better.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter, Record};

use crate::config::LogLevel;

/// Longest message that is written: journald splits lines of more than 48 KiB, and nobody reads so far.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Starts the log of this process, `process` being its name in every line. A second call changes nothing.
///
/// Panics are written through the log, too: their text may hold what an event or a server said.
pub fn init(level: LogLevel, process: &str) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let process = escape(process).into_owned();
    let mut builder = Builder::new();
    builder
        .target(Target::Stderr)
        .write_style(WriteStyle::Never)
        .filter_level(filter(level))
        // The drivers log the parameters of statements at debug and the server's notices at info: payloads and more.
        .filter_module("tokio_postgres", LevelFilter::Warn.min(filter(level)))
        .filter_module("postgres", LevelFilter::Warn.min(filter(level)))
        // The HTTP client logs each step of each request, and may log a receiver's answer.
        .filter_module("ureq", LevelFilter::Warn.min(filter(level)))
        .filter_module("ureq_proto", LevelFilter::Warn.min(filter(level)))
        .filter_module("rustls", LevelFilter::Warn.min(filter(level)))
        .format(move |out, record| {
            let time = (!journal).then(SystemTime::now);
            out.write_all(line(time, &process, record).as_bytes())
        });
    if builder.try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("unnamed");
            log::error!(target: "panic", "thread `{name}` {panic}");
        }));
    }
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
    // Redacted before it is cut: half a URL would no longer show where its password ends.
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

/// The journal's priorities are syslog's.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Our modules by their last name, other crates by their first.
fn short_target(target: &str) -> &str {
    let (first, rest) = target.split_once("::").unwrap_or((target, ""));
    match rest.rsplit("::").next() {
        Some(last) if first == "dispatchbox" && !last.is_empty() => last,
        _ => first,
    }
}

/// Milliseconds are enough to tell lines apart.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "-".to_owned(), |time| format!("{time:.3}"))
}

fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE_BYTES_MAX {
        return Cow::Borrowed(message);
    }
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    Cow::Owned(format!(
        "{}… ({} more bytes)",
        &message[..end],
        message.len() - end
    ))
}

/// Escapes what could end the line, move a terminal's cursor, turn the direction of the text or stand in it unseen.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if is_harmful(c) && c.is_ascii() => {
                let _ = write!(escaped, "\\x{:02x}", u32::from(c));
            }
            c if is_harmful(c) => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Control characters of ASCII and C1, line and paragraph separator, the marks that reorder text, and what has no width: two texts that
/// differ only there look alike. The page's script (text.js) names the same.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// What stands for a secret.
const REDACTED: &str = "***";

/// Words after which, with `=` or `":`, a secret follows. Also as the end of a longer word: `sslpassword`, `api_token`.
const SECRET_NAMES: [&str; 5] = ["password", "passwd", "pwd", "secret", "token"];

/// Schemes of the Authorization header.
const SECRET_SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// Replaces what looks like a password: `password=…` (quoted or not), the user part of URLs, `Bearer …`.
///
/// The last line of defense: no text should hold one. It prefers to replace too much.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let lower = text.to_ascii_lowercase();
    find_named(&lower, &mut found);
    find_schemes(&lower, &mut found);
    find_userinfo(&lower, &mut found);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable();
    let mut redacted = String::with_capacity(text.len());
    let mut copied = 0;
    for (start, end) in found {
        if start >= copied {
            redacted.push_str(&text[copied..start]);
            redacted.push_str(REDACTED);
        }
        copied = copied.max(end);
    }
    redacted.push_str(&text[copied..]);
    Cow::Owned(redacted)
}

/// Finds the values of `password=…`, `password = '…'` and `"password": "…"`. (Lowering ASCII letters moves no byte.)
fn find_named(lower: &str, found: &mut Vec<(usize, usize)>) {
    for name in SECRET_NAMES {
        for (at, _) in lower.match_indices(name) {
            let mut start = at + name.len();
            let quoted_name = lower[start..].starts_with(['"', '\'']);
            start += usize::from(quoted_name);
            start += blanks(&lower[start..]);
            let separator = lower[start..].chars().next();
            if !(separator == Some('=') || quoted_name && separator == Some(':')) {
                continue;
            }
            start += 1;
            start += blanks(&lower[start..]);
            let end = start + value_length(&lower[start..]);
            if end > start {
                found.push((start, end));
            }
        }
    }
}

/// Finds the words after `Bearer` and `Basic`.
fn find_schemes(lower: &str, found: &mut Vec<(usize, usize)>) {
    for scheme in SECRET_SCHEMES {
        for (at, _) in lower.match_indices(scheme) {
            let start = at + scheme.len();
            let end = start + word_length(&lower[start..]);
            if end > start {
                found.push((start, end));
            }
        }
    }
}

/// Finds the user part of URLs. In PostgreSQL's it reaches to the last `@` of the word, since a password may hold `@` or `/`,
/// unescaped by mistake; elsewhere it ends with the host, since paths and queries hold `@` lawfully.
fn find_userinfo(lower: &str, found: &mut Vec<(usize, usize)>) {
    for (at, separator) in lower.match_indices("://") {
        let start = at + separator.len();
        let mut word = &lower[start..start + word_length(&lower[start..])];
        if !["postgres", "postgresql"]
            .iter()
            .any(|scheme| lower[..at].ends_with(scheme))
        {
            word = &word[..word.find(['/', '?', '#']).unwrap_or(word.len())];
        }
        if let Some(at_sign) = word.rfind('@').filter(|&length| length > 0) {
            found.push((start, start + at_sign));
        }
    }
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || matches!(c, '"' | '`'))
        .unwrap_or(text.len())
}

/// A quoted value ends with its quote (a backslash takes the next character along), another one with the word, also at `&`.
fn value_length(text: &str) -> usize {
    let mut chars = text.char_indices();
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    if quote.is_some() {
        chars.next();
    }
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if Some(c) == quote {
            return at + 1;
        } else if quote.is_none() && (c.is_whitespace() || matches!(c, '&' | '"' | '`' | ',')) {
            return at;
        }
    }
    text.len()
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
    fn what_has_no_width_is_seen_and_what_joins_letters_stays() {
        assert_eq!(
            escape("a\u{200b}b\u{2060}c\u{feff}d\u{200e}e\u{200f}f\u{61c}"),
            "a\\u{200b}b\\u{2060}c\\u{feff}d\\u{200e}e\\u{200f}f\\u{61c}"
        );
        assert_eq!(
            escape("\u{1f469}\u{200d}\u{1f680} \u{5d0}"),
            "\u{1f469}\u{200d}\u{1f680} \u{5d0}"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let line = logged(None, "x", &"é".repeat(MESSAGE_BYTES_MAX));
        assert!(line.len() < MESSAGE_BYTES_MAX + 100);
        assert!(line.ends_with("… (8192 more bytes)\n"), "{line}");
    }

    #[test]
    fn what_looks_like_a_secret_is_replaced() {
        for (text, redacted) in [
            (
                "host=h password=hunter2 user=u",
                "host=h password=*** user=u",
            ),
            ("password = 'a b\\'c' user=u", "password = *** user=u"),
            ("Password='unterminated and more", "Password=***"),
            ("?user=u&password=x&port=1", "?user=u&password=***&port=1"),
            (
                r#"{"password": "a b", "x": 1}"#,
                r#"{"password": ***, "x": 1}"#,
            ),
            ("PGPASSWORD=x", "PGPASSWORD=***"),
            ("api_token=x", "api_token=***"),
            ("postgres://u:p@h:1/d", "postgres://***@h:1/d"),
            ("at `postgresql://u:p/@@h/d`", "at `postgresql://***@h/d`"),
            ("https://token@host/", "https://***@host/"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("bearer x, basic eTp6", "bearer *** basic ***"),
            ("postgres://h/d?password=p@x", "postgres://***"),
        ] {
            assert_eq!(redact(text), redacted);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "",
            "password authentication failed for user \"u\"",
            "wrong password: see the log",
            "https://host/path?mail=a@b",
            "mail to a@b",
            "token 812 was lost",
            "password=",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
