//! Single values of a status as a person reads them. A value that is missing is a dash, so that a
//! status of another version can be shown.

use std::time::Duration;

use serde_json::Value;

use crate::cli::terminal;
use crate::domain::figure::grouped;

/// The elements of a list; none where there is no list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text or number as it is, or a dash for a missing one.
pub(super) fn text(value: &Value) -> String {
    if value.is_null() {
        return "-".to_owned();
    }
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A number of events, or a dash for a missing one.
pub(super) fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| text(value), grouped)
}

/// A time in words, or a dash for a missing one.
pub(super) fn age(seconds: &Value) -> String {
    seconds
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or_else(|| "-".to_owned(), terminal::in_words)
}

/// A number of events a second, or a dash for a missing one.
pub(super) fn rate(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

/// A count `of` the table, which may have stopped at a cap.
pub(super) fn capped(number: &Value, of: &Value) -> String {
    let more = if of["capped"] == true { " or more" } else { "" };
    format!("{}{more}", count(number))
}
