//! The words for what really happened, found in the causes of an error.

use std::error::Error as _;
use std::io;

use postgres::error::{DbError, SqlState};

/// Says whether a prepared statement no longer fits a table that was altered. The code alone also
/// stands for what the server never does, for example a statement that a rule of the table changes;
/// the message may be translated, and the routine is not.
pub(super) fn is_plan_outdated(db: &DbError) -> bool {
    *db.code() == SqlState::FEATURE_NOT_SUPPORTED
        && (db.routine() == Some("RevalidateCachedQuery")
            || db.message() == "cached plan must not change result type")
}

pub(super) fn has_io_cause(error: &postgres::Error) -> bool {
    error
        .source()
        .is_some_and(<dyn std::error::Error>::is::<io::Error>)
}

/// Finds the words for what really happened: the deepest cause.
pub(super) fn cause_of(error: &postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return match plain_detail(db) {
            Some(detail) => format!("{} ({detail})", db.message()),
            None => db.message().to_owned(),
        };
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
        .downcast_ref::<io::Error>()
        .map_or_else(|| cause.to_string(), io_cause)
}

/// The detail of an escape that no text can hold: it names the escape and quotes nothing else.
fn plain_detail(db: &DbError) -> Option<&str> {
    let detail = db.detail()?;
    let is_plain = *db.code() == SqlState::UNTRANSLATABLE_CHARACTER
        && detail.starts_with("\\u0000 ")
        || *db.code() == SqlState::INVALID_TEXT_REPRESENTATION && detail.starts_with("Unicode ");
    is_plain.then(|| detail.trim_end_matches('.'))
}

/// Words a failure of the system as part of a sentence: "connection refused" instead of "Connection
/// refused (os error 111)".
pub(crate) fn io_cause(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) if error.raw_os_error().is_some() => {
            let mut chars = words.chars();
            let first = chars.next().map(|first| first.to_ascii_lowercase());
            first.into_iter().chain(chars).collect()
        }
        _ => text,
    }
}
