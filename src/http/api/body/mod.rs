//! Pure: the JSON bodies of the requests that change dead events.

#[cfg(test)]
mod fuzz;
mod id_list;
mod selection;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::domain::nearest::slip_of;
pub(in crate::http) use id_list::{NO_ID, event_ids};
pub(in crate::http) use selection::{Selection, selection};

const NO_JSON: &str = "Invalid JSON in request body";

/// Refuses a dry run of the change of one event, which would not be obeyed. All else in the body is
/// ignored, and need not even be JSON.
pub(in crate::http) fn no_dry_run(body: &[u8]) -> Result<(), String> {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let asked = fields.keys().find_map(|name| slip_of(name, ["dry_run"]));
    asked.map_or(Ok(()), |_| {
        Err("dry_run works with a filter, not with one event".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
