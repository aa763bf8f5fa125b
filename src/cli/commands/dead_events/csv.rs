//! Dead letters as CSV (RFC 4180, lines ended by `\n`), for spreadsheets.
//!
//! A spreadsheet takes a text that begins with `=`, `+`, `-` or `@` for a formula and runs it, and
//! every party that can make an event fail can put one into `last_error`. So such texts get an
//! apostrophe in front, which spreadsheets read as "this is text". That changes the data by one
//! character: JSON has the exact text.

use crate::store::DeadEvent;

/// The columns, in the order of the JSON.
pub(super) const HEADER: &str = "id,aggregate_type,aggregate_id,event_type,payload,status,attempts,next_run_at,created_at,last_error,last_error_at,finished_at,headers\n";

/// Renders one event.
pub(super) fn line(event: &DeadEvent) -> String {
    let maybe = |text: &Option<String>| text.as_deref().map(field).unwrap_or_default();
    let mut line = [
        event.id.to_string(),
        field(&event.aggregate_type),
        field(&event.aggregate_id),
        field(&event.event_type),
        field(&event.payload),
        field(&event.status),
        event.attempts.to_string(),
        // Times begin with a digit, except for `-infinity`.
        maybe(&event.next_run_at),
        maybe(&event.created_at),
        maybe(&event.last_error),
        maybe(&event.last_error_at),
        maybe(&event.finished_at),
        maybe(&event.headers),
    ]
    .join(",");
    line.push('\n');
    line
}

fn field(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        "'"
    } else {
        ""
    };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{guard}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_has_to_be() {
        assert_eq!(field("plain text"), "plain text");
        assert_eq!(field("a,b"), "\"a,b\"");
        assert_eq!(field("say \"x\"\n"), "\"say \"\"x\"\"\n\"");
        assert_eq!(field(""), "");
    }

    #[test]
    fn no_field_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert!(
                field(text).trim_start_matches('"').starts_with('\''),
                "{text}"
            );
        }
        assert_eq!(field("=HYPERLINK(\"x\",1)"), "\"'=HYPERLINK(\"\"x\"\",1)\"");
    }
}
