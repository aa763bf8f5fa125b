//! Texts for a person: short times and durations, names with values, lines that fit, JSON that is
//! safe to show.

use std::fmt::Write as _;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::domain::figure::counted;
use crate::system::logging;

/// Cuts a text to `width` columns of the terminal; a wide character takes two.
pub(in crate::cli) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// Divides a text into lines of at most `width` columns of the terminal; there is always one.
pub(in crate::cli) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns > width {
            lines.push(String::new());
            used = 0;
        }
        used += columns;
        if let Some(line) = lines.last_mut() {
            line.push(c);
        }
    }
    lines
}

/// Shows a time of the API to the second: `2025-01-02 03:04:05Z`; other texts, such as `infinity`,
/// as they are.
pub(in crate::cli) fn short_time(text: &str) -> String {
    match (text.get(..10), text.get(10..11), text.get(11..19)) {
        (Some(date), Some("T"), Some(time)) => format!("{date} {time}Z"),
        _ => text.to_owned(),
    }
}

/// Shows a duration in its two largest units: `3 min 20 s`, `2 d 4 h`.
pub(in crate::cli) fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (large, small) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3_600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        3_600..86_400 => ((seconds / 3_600, "h"), (seconds / 60 % 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds / 3_600 % 24, "h")),
    };
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        _ => format!("{} {} {} {}", large.0, large.1, small.0, small.1),
    }
}

/// Renders names and values, a line each, in two columns; values are escaped.
pub(in crate::cli) fn fields(lines: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:14} {}", logging::escape(value));
    }
    text
}

/// `1 event`, `2 events`.
pub(in crate::cli) fn events(n: u64) -> String {
    counted(n, "event")
}

/// Makes JSON safe for a terminal: characters that a terminal would obey stand only inside strings,
/// so they are written as their escapes.
pub(in crate::cli) fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if logging::is_harmful(c) && !matches!(c, '\n') {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_text_is_whole_and_no_line_is_too_wide() {
        for text in ["", "short", "受信者は忙しいです、あとで", &"x".repeat(95)] {
            for width in 2..30 {
                let lines = wrapped(text, width);
                assert_eq!(lines.concat(), text);
                assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
            }
        }
        assert_eq!(wrapped("", 10).len(), 1);
    }

    #[test]
    fn times_and_durations_are_short() {
        assert_eq!(
            short_time("2025-01-02T03:04:05.123456+00:00"),
            "2025-01-02 03:04:05Z"
        );
        assert_eq!(short_time("infinity"), "infinity");
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(words(59), "59 s");
        assert_eq!(words(120), "2 min");
        assert_eq!(words(200), "3 min 20 s");
        assert_eq!(words(187_200), "2 d 4 h");
    }

    #[test]
    fn json_that_is_shown_means_the_same_and_moves_no_cursor() {
        let json = "{\"a\":\"\u{9b}31m\u{202e}\u{7f}ü\"}\n";

        let safe = safe_json(json);

        assert_eq!(safe, "{\"a\":\"\\u009b31m\\u202e\\u007fü\"}\n");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(parse(&safe), parse(json));
        assert!(parse(json).is_some());
    }
}
