//! Texts as the server sends them.
//!
//! In a database in `SQL_ASCII` a text is whatever bytes some client has written. There the
//! sessions ask for these bytes as they are, and what is no UTF-8 among them becomes U+FFFD: an
//! event is better delivered so than not at all, and one such row must not fail all others.

use std::error::Error;

use postgres::types::{FromSql, Type};

/// A text whose bytes need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Text, Box<dyn Error + Sync + Send>> {
        Ok(Text(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(ty: &Type) -> bool {
        <String as FromSql>::accepts(ty)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.0
    }
}
