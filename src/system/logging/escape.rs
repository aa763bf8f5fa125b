//! Text made harmless for a line of the log and for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes characters that could end the line, move a terminal's cursor, turn the direction of the
/// text, or be invisible in it.
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

/// Control characters of ASCII and C1, line and paragraph separator, the marks that reorder text,
/// and characters without width: two texts that differ only in those look alike. The page's script
/// (text.js) has the same list.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
