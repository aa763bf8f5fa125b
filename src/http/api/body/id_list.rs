//! Pure: the body with a list of ids.
//!
//! It may hold other keys, which are ignored, as they always were. Refused beside the list are
//! `dry_run`, which would not be obeyed, and a name that is probably a slip of a known one.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::nearest::slip_of;
use crate::http::api::body::{NO_JSON, object};

/// Ids in one request at most.
const IDS_MAX: usize = 100_000;

const NO_LIST: &str = "event_ids must be a non-empty list";

/// End of the refusal of `dry_run`; the name that was sent stands before it.
const NO_DRY_RUN: &str = "works with a filter, not with event_ids";

pub(in crate::http) const NO_ID: &str = "All event_ids must be positive integers";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ids_refused(body: impl AsRef<[u8]>, refusal: &str) {
        let body = body.as_ref();
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(event_ids(body), Err(refusal.to_owned()), "{shown}");
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
    }

    /// Goal: neither depth nor length of a body overflows the stack or takes more than one pass.
    #[test]
    fn a_body_of_any_depth_is_read() {
        for piece in [
            "[",
            "{\"a\":",
            "{\"event_ids\":",
            "[1,",
            "\"",
            "1,",
            "{\"event_ids\":1,",
            "-",
        ] {
            let text = piece.repeat((1 << 20) / piece.len());
            for body in [
                text.clone(),
                format!("{{\"event_ids\":[{text}"),
                format!("{{\"a\":{text}"),
            ] {
                assert!(event_ids(body.as_bytes()).is_err(), "{piece}");
            }
        }
    }
}
