//! Laws of the list of ids in a request's body, on generated JSON. Only tests are built with it.

use proptest::prelude::*;

use crate::domain::nearest::slip_of;
use crate::http::api::body::event_ids;
use crate::system::fuzz;

/// A piece of JSON with the id that it is, if it is one.
fn item() -> impl Strategy<Value = (String, Option<i64>)> {
    prop_oneof![
        8 => any::<i64>().prop_map(|id| (id.to_string(), Some(id))),
        4 => (0..9_i64).prop_map(|id| (id.to_string(), Some(id))),
        1 => "[1-9][0-9]{0,3}(\\.[0-9]|[eE][+-]?[0-9]|\\.0)".prop_map(|text| (text, None)),
        1 => "-?[1-9][0-9]{19,30}".prop_map(|text| (text, None)),
        1 => prop_oneof![Just("null"), Just("\"7\""), Just("true"), Just("[1]"), Just("{\"a\":1}")]
            .prop_map(|text| (text.to_owned(), None)),
    ]
}

fn list() -> impl Strategy<Value = Vec<(String, Option<i64>)>> {
    let good = any::<i64>().prop_map(|id| (id.to_string(), Some(id)));
    prop_oneof![
        prop::collection::vec(item(), 0..6),
        prop::collection::vec(good, 0..6)
    ]
}

proptest! {
    #![proptest_config(fuzz::cases(2000))]

    #[test]
    fn ids_are_those_of_the_list_or_none(
        items in list(),
        further in prop::collection::vec(("[a-z_]{1,9}|[^\"\\\\\u{0}-\u{1f}]{0,4}", item()), 0..3),
        blank in "[ \t\r\n]{0,2}",
        place: prop::sample::Index,
    ) {
        let texts: Vec<&str> = items.iter().map(|(text, _)| text.as_str()).collect();
        let list = format!("[{blank}{}{blank}]", texts.join(&format!("{blank},{blank}")));
        let mut fields: Vec<String> = further.iter()
            .map(|(name, (text, _))| format!("{}{blank}:{text}", serde_json::Value::from(name.as_str())))
            .collect();
        fields.insert(place.index(fields.len() + 1), format!("\"event_ids\":{blank}{list}"));
        let body = format!("{blank}{{{}}}{blank}", fields.join(","));

        let found = event_ids(body.as_bytes());

        let ids: Option<Vec<i64>> = items.iter().map(|(_, id)| *id).collect();
        let is_slip = further.iter().any(|(name, _)| slip_of(name, ["dry_run", "event_ids"]).is_some());
        let expected = ids.filter(|ids| !ids.is_empty() && !is_slip);
        prop_assert_eq!(found.ok(), expected, "{}", body);
    }

    #[test]
    fn what_is_no_json_object_is_refused(body in prop_oneof![
        any::<Vec<u8>>(),
        "[ \\[\\]{}\"a-z0-9:,_-]{0,20}".prop_map(String::into_bytes),
        "\\{\"event_ids\":\\[[0-9,. -]{0,8}\\]?\\}? ?[x}]?".prop_map(String::into_bytes),
    ]) {
        let reference: Result<serde_json::Value, _> = serde_json::from_slice(&body);
        let list = reference.ok().and_then(|value| value.get("event_ids")?.as_array().cloned());
        if let Ok(ids) = event_ids(&body) {
            let same = list.is_some_and(|list| {
                let read = list.iter().map(|id| id.as_i64().or_else(|| (id.as_f64() == Some(0.0)).then_some(0)));
                read.collect::<Option<Vec<i64>>>() == Some(ids)
            });
            prop_assert!(same, "{}", String::from_utf8_lossy(&body));
        }
    }
}
