//! Pure: the body that describes a set of dead events. It is read strictly: a misspelled filter
//! would match all events, and an empty body would requeue all of them.

use serde_json::{Map, Value};

use crate::http::api::body::{NO_JSON, object};
use crate::http::api::query;
use crate::store::{DeadCursor, DeadFilter};

/// Longest part of an unknown name that is repeated.
const NAME_CHARS_MAX: usize = 40;

/// Names that may stand in the description of a set.
const SELECTION: [&str; 8] = [
    "aggregate_type",
    "event_type",
    "error",
    "since",
    "until",
    "all",
    "dry_run",
    "after",
];

/// All dead events that a filter lets pass.
#[derive(Debug, PartialEq)]
pub(in crate::http) struct Selection {
    pub(in crate::http) filter: DeadFilter,
    /// Only count them.
    pub(in crate::http) is_dry_run: bool,
    /// Only the events behind this place in the list.
    pub(in crate::http) after: DeadCursor,
}

/// Reads `{"aggregate_type","event_type","error","since","until","dry_run","after"}`, or `"all":
/// true` in place of a filter.
pub(in crate::http) fn selection(body: &[u8]) -> Result<Selection, String> {
    let fields: Map<String, Value> =
        serde_json::from_str(object(body)?).map_err(|_| NO_JSON.to_owned())?;
    let mut filter = DeadFilter::default();
    let mut is_all = false;
    let mut is_dry_run = false;
    let mut after = None;
    for (name, value) in &fields {
        match name.as_str() {
            "aggregate_type" => filter.aggregate_type = query::text(name, string(name, value)?)?,
            "event_type" => filter.event_type = query::text(name, string(name, value)?)?,
            "error" => filter.error = query::text(name, string(name, value)?)?,
            "since" => filter.since_micros = query::time(name, string(name, value)?)?,
            "until" => filter.until_micros = query::time(name, string(name, value)?)?,
            "all" => is_all = flag(name, value)?,
            "dry_run" => is_dry_run = flag(name, value)?,
            "after" => after = place(name, string(name, value)?)?,
            _ => return Err(unknown(name)),
        }
    }
    if is_dry_run && after.is_some() {
        return Err("after cannot be combined with dry_run".to_owned());
    }
    let has_filter = filter != DeadFilter::default();
    match (has_filter, is_all) {
        (true, true) => Err("all cannot be combined with a filter".to_owned()),
        (false, false) => Err(
            "a filter must be given (aggregate_type, event_type, error, since, until), or \"all\": true"
                .to_owned(),
        ),
        (true, false) | (false, true) => Ok(Selection {
            filter,
            is_dry_run,
            after: after.unwrap_or_default(),
        }),
    }
}

/// Names a field that a description must not hold.
fn unknown(name: &str) -> String {
    let misspelled = query::check_name(name, SELECTION.into_iter());
    misspelled.err().unwrap_or_else(|| {
        let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
        format!(
            "{shown} is unknown: the request body may hold {}",
            SELECTION.join(", ")
        )
    })
}

/// Null is the same as not given.
fn string<'a>(name: &str, value: &'a Value) -> Result<&'a str, String> {
    if value.is_null() {
        return Ok("");
    }
    let text = value.as_str();
    text.ok_or_else(|| format!("{name} must be a string"))
}

fn place(name: &str, value: &str) -> Result<Option<DeadCursor>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let place = value.parse().map(Some);
    place.map_err(|_| format!("{name} must be what an earlier answer gave"))
}

fn flag(name: &str, value: &Value) -> Result<bool, String> {
    let flag = value.as_bool().or(value.is_null().then_some(false));
    flag.ok_or_else(|| format!("{name} must be true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_selection_refused(body: &str, refusal: &str) {
        assert_eq!(
            selection(body.as_bytes()),
            Err(refusal.to_owned()),
            "{body}"
        );
    }

    #[test]
    fn deep_nesting_ends_nowhere_but_in_a_refusal() {
        let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
        assert!(selection(format!("{{\"error\": {deep}}}").as_bytes()).is_err());
    }

    #[test]
    fn a_selection_says_what_it_means() {
        let body = br#"{"aggregate_type": "", "event_type": "order.created", "error": null, "since": "2025-01-02T03:04:05Z", "dry_run": true}"#;
        let expected = Selection {
            filter: DeadFilter {
                event_type: Some("order.created".to_owned()),
                since_micros: Some(1_735_787_045_000_000),
                ..DeadFilter::default()
            },
            is_dry_run: true,
            after: DeadCursor::default(),
        };
        assert_eq!(selection(body), Ok(expected));
        let all = Selection {
            filter: DeadFilter::default(),
            is_dry_run: false,
            after: "1735787045000000.7".parse().expect("it is a place"),
        };
        let body = br#"{"all": true, "after": "1735787045000000.7"}"#;
        assert_eq!(selection(body), Ok(all));
    }

    #[test]
    fn everything_is_never_meant_by_accident() {
        let missing = "a filter must be given (aggregate_type, event_type, error, since, until), or \"all\": true";
        for body in [
            "{}",
            r#"{"event_type": ""}"#,
            r#"{"event_type": null, "dry_run": true}"#,
            r#"{"all": false}"#,
        ] {
            check_selection_refused(body, missing);
        }
        check_selection_refused("", "Invalid JSON in request body");
        check_selection_refused("[]", "Request body must be a JSON object");
        check_selection_refused(
            r#"{"all": true, "error": "x"}"#,
            "all cannot be combined with a filter",
        );
        for (name, refusal) in [
            ("event-type", "event_type is misspelled as event-type"),
            ("eror", "error is misspelled as eror"),
            ("dryRun", "dry_run is misspelled as dryRun"),
            (
                "limit",
                "limit is unknown: the request body may hold aggregate_type, event_type, error, since, until, all, dry_run, after",
            ),
        ] {
            check_selection_refused(&format!(r#"{{"{name}": "x", "error": "x"}}"#), refusal);
        }
        check_selection_refused(r#"{"all": "true"}"#, "all must be true or false");
        check_selection_refused(
            r#"{"all": true, "after": "7"}"#,
            "after must be what an earlier answer gave",
        );
        check_selection_refused(
            r#"{"all": true, "after": "undated.7", "dry_run": true}"#,
            "after cannot be combined with dry_run",
        );
        check_selection_refused(r#"{"error": 7}"#, "error must be a string");
        check_selection_refused(
            r#"{"error": "a\u0000b"}"#,
            "error must not contain a NUL character",
        );
        check_selection_refused(
            r#"{"since": "yesterday"}"#,
            "since must be a time such as 2025-01-02T03:04:05Z",
        );
    }
}
