//! The trace that an event belongs to, as W3C Trace Context has it: `traceparent` and `tracestate`
//! in the event's headers are passed on to the receiver.

use serde::Deserialize;
use ureq::http::{HeaderName, HeaderValue};

/// The longest `tracestate` that is passed on: common receivers take 8 KiB in a line.
const STATE_BYTES_MAX: usize = 4 * 1024;

#[derive(Deserialize)]
struct Trace {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

/// The headers of the trace in the headers of an event, which are JSON.
///
/// A `traceparent` that is none is left out, and a `tracestate` with it: the receiver then begins a
/// trace of its own, as the standard wants.
pub(super) fn headers(event_headers: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    // Most events have no trace, and are not parsed for it.
    let Some(trace) = event_headers
        .filter(|headers| headers.contains("traceparent"))
        .and_then(|headers| serde_json::from_str::<Trace>(headers).ok())
    else {
        return Vec::new();
    };
    let Some(parent) = trace.traceparent.filter(|parent| is_parent(parent)) else {
        return Vec::new();
    };
    let state = trace
        .tracestate
        .filter(|state| !state.is_empty() && state.len() <= STATE_BYTES_MAX);
    [("traceparent", Some(parent)), ("tracestate", state)]
        .into_iter()
        .filter_map(|(name, value)| {
            let value = HeaderValue::try_from(value?).ok()?;
            Some((HeaderName::from_static(name), value))
        })
        .collect()
}

/// Says whether this is `version-trace-parent-flags` in lower-case hexadecimal digits, where
/// neither trace nor parent is zero, and, in later versions, more behind another dash.
fn is_parent(text: &str) -> bool {
    let is_hex = |part: &str, n_bytes: usize| {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        part.len() == n_bytes && part.bytes().all(is_digit)
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    match parts.as_slice() {
        [version, trace, parent, flags, more @ ..] => {
            is_hex(version, 2)
                && *version != "ff"
                && (more.is_empty() || *version != "00")
                && is_hex(trace, 32)
                && !is_zero(trace)
                && is_hex(parent, 16)
                && !is_zero(parent)
                && is_hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_is_passed_on_and_what_is_none_is_left_out() {
        let check = |event_headers: Option<String>, expected: &[(&str, &str)]| {
            let headers = headers(event_headers.as_deref());
            let shown: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().expect("visible ASCII")))
                .collect();
            assert_eq!(shown, expected, "{event_headers:?}");
        };
        let only = |parent: &str| Some(format!(r#"{{"traceparent": "{parent}"}}"#));
        let with = |rest: &str| {
            Some(format!(
                r#"{{"a": 1e400, "traceparent": "{PARENT}"{rest}}}"#
            ))
        };

        check(None, &[]);
        check(Some("{}".to_owned()), &[]);
        check(only(PARENT), &[("traceparent", PARENT)]);
        let both = [("traceparent", PARENT), ("tracestate", "a=1,b=2")];
        check(with(r#", "tracestate": "a=1,b=2""#), &both);
        check(with(r#", "tracestate": "a=1\r\nX: y""#), &both[..1]);
        check(with(r#", "tracestate": null"#), &both[..1]);
        let later = format!("01{}-more", &PARENT[2..]);
        check(only(&later), &[("traceparent", &later)]);
        for none in [
            "",
            "x",
            &format!("{PARENT}-more"),
            &PARENT.to_uppercase(),
            &PARENT.replace("00f067aa0ba902b7", "0000000000000000"),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replace("-01", "-01 "),
        ] {
            check(only(none), &[]);
        }
        check(Some(r#"{"tracestate": "traceparent"}"#.to_owned()), &[]);
        check(Some(r#"{"traceparent": 7}"#.to_owned()), &[]);
        check(Some(r#"["traceparent"]"#.to_owned()), &[]);
    }
}
