//! Which characters the database's encoding lacks, as far as a session has had to ask.
//!
//! A database in LATIN1 takes no emoji, and refuses the whole statement that brings one. The server
//! alone knows its encodings, so it is asked character by character, once each in a session and
//! only after such a refusal.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

/// Characters remembered; a session that has met more begins anew.
const KNOWN_MAX: usize = 10_000;

/// Stands where a character had to give way.
const SUBSTITUTE: &str = "?";

/// What is known of the characters beyond ASCII.
#[derive(Debug, Default)]
pub(super) struct Repertoire {
    lacking: HashSet<char>,
    there: HashSet<char>,
}

impl Repertoire {
    /// The text with a substitute for each character that is known to be lacking.
    pub(super) fn fit<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.lacking.is_empty() || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let mut fit = String::with_capacity(text.len());
        for char in text.chars() {
            if self.lacking.contains(&char) {
                fit.push_str(SUBSTITUTE);
            } else {
                fit.push(char);
            }
        }
        Cow::Owned(fit)
    }

    /// The characters of these texts that were not asked about yet.
    pub(super) fn unknown<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> BTreeSet<char> {
        if self.lacking.len() + self.there.len() > KNOWN_MAX {
            *self = Repertoire::default();
        }
        texts
            .flat_map(str::chars)
            .filter(|&char| !self.is_known(char))
            .collect()
    }

    /// Notes whether a character is there.
    pub(super) fn learn(&mut self, char: char, is_there: bool) {
        let set = if is_there {
            &mut self.there
        } else {
            &mut self.lacking
        };
        set.insert(char);
    }

    fn is_known(&self, char: char) -> bool {
        char.is_ascii() || self.there.contains(&char) || self.lacking.contains(&char)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_lacking_gives_way() {
        let repertoire = Repertoire {
            lacking: HashSet::from(['💥', '€']),
            there: HashSet::from(['é']),
        };

        assert_eq!(repertoire.fit("café 💥 5 €"), "café ? 5 ?");
        assert!(matches!(repertoire.fit("plain"), Cow::Borrowed("plain")));
    }
}
