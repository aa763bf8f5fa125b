//! Pure: the JSON bodies of the requests that change dead events.
//!
//! A body with a list of ids may hold other keys, which are ignored, as they always were. Refused
//! beside the list are `dry_run`, which would not be obeyed, and a name that is probably a slip of
//! a known one. The description of a set is read strictly: a misspelled filter would match all
//! events, and an empty body would requeue all of them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::domain::nearest::slip_of;
use crate::http::api::query;
use crate::store::{DeadCursor, DeadFilter};

/// Ids in one request at most.
const IDS_MAX: usize = 100_000;

const NO_JSON: &str = "Invalid JSON in request body";

const NO_LIST: &str = "event_ids must be a non-empty list";

/// End of the refusal of `dry_run`; the name that was sent stands before it.
const NO_DRY_RUN: &str = "works with a filter, not with event_ids";

pub(in crate::http) const NO_ID: &str = "All event_ids must be positive integers";

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

/// Refuses a dry run of the change of one event, which would not be obeyed. All else in the body is
/// ignored, and need not even be JSON.
pub(in crate::http) fn no_dry_run(body: &[u8]) -> Result<(), String> {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let asked = fields.keys().find_map(|name| slip_of(name, ["dry_run"]));
    asked.map_or(Ok(()), |_| {
        Err("dry_run works with a filter, not with one event".to_owned())
    })
}

/// Reads `{"event_ids":[…]}`.
pub(in crate::http) fn event_ids(body: &[u8]) -> Result<Vec<i64>, String> {
    let text = object(body)?;
    let batch: Batch<'_> = serde_json::from_str(text).map_err(|_| NO_JSON.to_owned())?;
    if let Some(refusal) = batch.refusal {
        return Err(refusal);
    }
    let list = batch.event_ids.ok_or(NO_LIST)?.get();
    let list: IdList = serde_json::from_str(list).map_err(|_| NO_LIST.to_owned())?;
    if list.len == 0 {
        return Err(NO_LIST.to_owned());
    }
    if list.len > IDS_MAX {
        return Err(format!("event_ids must hold at most {IDS_MAX} ids"));
    }
    if list.ids.len() < list.len {
        return Err(NO_ID.to_owned());
    }
    Ok(list.ids)
}

/// An object with a list of ids; what else stands in it is skipped.
struct Batch<'a> {
    event_ids: Option<&'a RawValue>,
    /// Why a name beside the list must not be ignored.
    refusal: Option<String>,
}

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batch<'de>, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Batch<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Batch<'de>, A::Error> {
                let (mut event_ids, mut refusal) = (None, None);
                while let Some((name, value)) = fields.next_entry::<String, &RawValue>()? {
                    if name != "event_ids" {
                        refusal = refusal.or_else(|| refusal_beside_ids(&name));
                    } else if event_ids.replace(value).is_some() {
                        return Err(A::Error::duplicate_field("event_ids"));
                    }
                }
                Ok(Batch { event_ids, refusal })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// Says why a name may not stand beside `event_ids`: the client relies on a value that would be
/// ignored.
fn refusal_beside_ids(name: &str) -> Option<String> {
    match slip_of(name, ["dry_run", "event_ids"])? {
        "dry_run" if name == "dry_run" => Some(format!("dry_run {NO_DRY_RUN}")),
        "dry_run" => Some(format!("dry_run is misspelled as {name}, and {NO_DRY_RUN}")),
        meant => Some(format!("{meant} is misspelled as {name}")),
    }
}

/// A list whose items need not be ids; it takes no more memory than the ids of one request may.
struct IdList {
    /// The ids up to the first item that is no id, and no more of them than one request may hold.
    ids: Vec<i64>,
    /// Number of items, ids or not.
    len: usize,
}

impl<'de> Deserialize<'de> for IdList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IdList, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = IdList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<IdList, A::Error> {
                let (mut ids, mut len) = (Vec::new(), 0);
                // The id is read from its text, so that neither 1.0 nor 1e3 is an id, and no number
                // is rounded.
                while let Some(item) = items.next_element::<&RawValue>()? {
                    // Only the table knows which numbers below one are ids.
                    let id = item.get().parse().ok();
                    if let Some(id) = id.filter(|_| ids.len() == len && len < IDS_MAX) {
                        ids.push(id);
                    }
                    len += 1;
                }
                Ok(IdList { ids, len })
            }
        }

        deserializer.deserialize_seq(Items)
    }
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

/// The text of a body that can only be an object.
fn object(body: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(body).map_err(|_| NO_JSON.to_owned())?;
    let is_object = text.trim_start().starts_with('{');
    if is_object {
        return Ok(text);
    }
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    Err(if is_json {
        "Request body must be a JSON object".to_owned()
    } else {
        NO_JSON.to_owned()
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
    fn check_ids_refused(body: impl AsRef<[u8]>, refusal: &str) {
        let body = body.as_ref();
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(event_ids(body), Err(refusal.to_owned()), "{shown}");
    }

    #[track_caller]
    fn check_selection_refused(body: &str, refusal: &str) {
        assert_eq!(
            selection(body.as_bytes()),
            Err(refusal.to_owned()),
            "{body}"
        );
    }

    #[test]
    fn ids_are_integers_as_they_are_written() {
        let body = br#" {"event_ids": [3, 1,1, 9223372036854775807], "reason": {"a": []}} "#;
        assert_eq!(event_ids(body), Ok(vec![3, 1, 1, i64::MAX]));
        for body in [
            "",
            "{",
            "[1",
            "{\"event_ids\": [1,]}",
            "{\"event_ids\": [1]} x",
            "{'event_ids': [1]}",
        ] {
            check_ids_refused(body, "Invalid JSON in request body");
        }
        check_ids_refused(
            b"{\"event_ids\": [1], \"x\": \"\xff\"}",
            "Invalid JSON in request body",
        );
        check_ids_refused(
            br#"{"event_ids": [1], "event_ids": [2]}"#,
            "Invalid JSON in request body",
        );
        for body in [
            "[]",
            "[[1]]",
            "null",
            "7",
            "\"{}\"",
            "[{\"event_ids\": [1]}]",
        ] {
            check_ids_refused(body, "Request body must be a JSON object");
        }
        for value in ["[]", "null", "7", "\"7\"", "{\"1\": 1}", "true"] {
            check_ids_refused(
                format!("{{\"event_ids\": {value}}}"),
                "event_ids must be a non-empty list",
            );
        }
        check_ids_refused("{}", "event_ids must be a non-empty list");
        assert_eq!(
            event_ids(b"{\"event_ids\": [-5, 0, 1]}"),
            Ok(vec![-5, 0, 1])
        );
        for id in [
            "-1.0",
            "1.0",
            "1e3",
            "\"1\"",
            "true",
            "null",
            "[]",
            "{}",
            "9223372036854775808",
        ] {
            for list in [format!("[1, {id}]"), format!("[{id}, 1]")] {
                check_ids_refused(
                    format!("{{\"event_ids\": {list}}}"),
                    "All event_ids must be positive integers",
                );
            }
        }
    }

    #[test]
    fn beside_ids_a_dry_run_and_slips_are_refused_and_all_else_is_ignored() {
        let body = |name: &str| format!(r#"{{"event_ids": [1], "{name}": true}}"#);
        for (name, refusal) in [
            ("dry_run", "dry_run works with a filter, not with event_ids"),
            (
                "dryRun",
                "dry_run is misspelled as dryRun, and works with a filter, not with event_ids",
            ),
            (
                "dry_rum",
                "dry_run is misspelled as dry_rum, and works with a filter, not with event_ids",
            ),
            ("evnt_ids", "event_ids is misspelled as evnt_ids"),
            ("EventIds", "event_ids is misspelled as EventIds"),
        ] {
            check_ids_refused(body(name), refusal);
        }
        check_ids_refused(
            r#"{"eventIds": [1]}"#,
            "event_ids is misspelled as eventIds",
        );
        for name in ["reason", "id", "event_type", "limit", ""] {
            assert_eq!(event_ids(body(name).as_bytes()), Ok(vec![1]), "{name}");
        }
    }

    #[test]
    fn one_event_has_no_dry_run_and_no_other_body() {
        for body in [r#"{"dry_run": true}"#, r#"{"x": [1], "dryRun": 1}"#] {
            let refusal = "dry_run works with a filter, not with one event".to_owned();
            assert_eq!(no_dry_run(body.as_bytes()), Err(refusal), "{body}");
        }
        for body in ["", "x", "[\"dry_run\"]", r#"{"reason": {"dry_run": true}}"#] {
            assert_eq!(no_dry_run(body.as_bytes()), Ok(()), "{body}");
        }
    }

    #[test]
    fn a_hundred_thousand_ids_are_taken_and_no_more() {
        let body = |n: usize| format!("{{\"event_ids\": [{}1]}}", "1,".repeat(n - 1));
        assert_eq!(
            event_ids(body(100_000).as_bytes()).map(|ids| ids.len()),
            Ok(100_000)
        );
        check_ids_refused(body(100_001), "event_ids must hold at most 100000 ids");
    }

    #[test]
    fn deep_nesting_ends_nowhere_but_in_a_refusal() {
        let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
        check_ids_refused(&deep, "Request body must be a JSON object");
        check_ids_refused(
            format!("{{\"event_ids\": {deep}}}"),
            "All event_ids must be positive integers",
        );
        check_ids_refused(
            "{\"event_ids\":".repeat(100_000),
            "Invalid JSON in request body",
        );
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
