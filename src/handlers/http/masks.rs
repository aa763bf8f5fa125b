//! Texts that are shown nowhere, and the answers of receivers that repeat them. Pure.

use std::cmp::Reverse;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::event::json_text;

/// Shortest text that is taken for a secret that is not marked as one.
const SECRET_BYTES_MIN: usize = 12;

/// The secrets of a route.
#[derive(Default)]
pub(super) struct Masks(Vec<String>);

impl Masks {
    /// Adds a secret, also as JSON and a URL would repeat it.
    pub(super) fn add(&mut self, secret: &str) {
        let json = json_text(secret);
        let quoted = json[1..json.len() - 1].to_owned();
        let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
        for form in [secret.to_owned(), quoted, encoded] {
            if !form.is_empty() && !self.0.contains(&form) {
                self.0.push(form);
            }
        }
        self.sort();
    }

    /// Adds all of `others`.
    pub(super) fn extend(&mut self, others: Masks) {
        self.0.extend(others.0);
        self.sort();
    }

    /// A longer one may hold a shorter one.
    fn sort(&mut self) {
        self.0.sort_by_key(|secret| Reverse(secret.len()));
    }

    /// Adds a text that looks like a secret: long, and no plain word.
    pub(super) fn add_if_secret(&mut self, text: &str) {
        let is_no_word = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
        if text.len() >= SECRET_BYTES_MIN && text.bytes().any(is_no_word) {
            self.add(text);
        }
    }

    /// Adds a text that is long enough to tell a place.
    pub(super) fn add_if_long(&mut self, text: &str) {
        if text.len() >= SECRET_BYTES_MIN {
            self.add(text);
        }
    }

    /// Replaces what a text repeats.
    pub(super) fn apply(&self, text: &str) -> String {
        let mask = |text: String, secret: &String| text.replace(secret, "…");
        self.0.iter().fold(text.to_owned(), mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_as_it_is_and_as_json_and_urls_repeat_it() {
        let mut masks = Masks::default();
        masks.add("a");
        masks.add("p\"w ä");
        masks.add_if_secret("contenttypes");
        masks.add_if_secret("0123456789ab");
        masks.add("");

        for (text, masked) in [
            ("<p\"w ä>", "<…>"),
            (r#"{"x": "p\"w ä"}"#, r#"{"x": "…"}"#),
            ("?x=p%22w%20%C3%A4", "?x=…"),
            ("contenttypes", "contenttypes"),
            ("0123456789ab", "…"),
            ("b", "b"),
        ] {
            assert_eq!(masks.apply(text), masked);
        }
    }
}
