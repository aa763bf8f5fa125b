//! Replaces text that looks like a password.

use std::borrow::Cow;

use crate::system::logging::escape::escape;

/// Longest part of a refused value that is shown.
const SHOWN_CHARS_MAX: usize = 40;

/// The replacement of a secret.
const REDACTED: &str = "***";

/// Words after which, with `=` or `":`, a secret follows. They also count as the end of a longer
/// word: `sslpassword`, `api_token`.
const SECRET_NAMES: [&str; 5] = ["password", "passwd", "pwd", "secret", "token"];

/// Schemes of the Authorization header.
const SECRET_SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// Replaces what looks like a password: `password=…` (quoted or not), the user part of URLs,
/// `Bearer …`.
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

/// Shows a refused value in backticks: on one line, short, and not at all if it looks like a DSN
/// with a password in the wrong place.
pub(crate) fn quoted(text: &str) -> String {
    if *redact(text) != *text {
        return "`***`".to_owned();
    }
    let harmless = escape(text);
    match harmless.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("`{}…`", &harmless[..end]),
        None => format!("`{harmless}`"),
    }
}

/// Finds the values of `password=…`, `password = '…'` and `"password": "…"`. (Lowering ASCII
/// letters moves no byte.)
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

/// Finds the user part of URLs. In PostgreSQL's URLs it reaches to the last `@` of the word, since
/// a password may hold an `@` or `/` that was left unescaped by mistake. In other URLs it ends with
/// the host, since their paths and queries may hold `@`.
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

/// The length of a value: a quoted one ends with its quote (a backslash escapes the next
/// character), another one ends with the word, also at `&`.
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

    #[test]
    fn a_refused_value_shows_no_secret_and_no_control_character() {
        assert_eq!(quoted("postgres://u:hunter2@h/"), "`***`");
        assert_eq!(quoted("password=my hunter2"), "`***`");
        assert_eq!(quoted("\u{1b}[31m"), "`\\x1b[31m`");
    }
}
