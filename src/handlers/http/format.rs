//! The form of an event in a request: our own JSON, its payload alone, or CloudEvents 1.0.
//!
//! *Structured* CloudEvents hold attributes and payload in one JSON object; in *binary* ones the
//! attributes are headers `ce-…` and the body is the payload. `id` is the event's id, `source` the
//! route's, `type` the event's, `subject` aggregate type and id with a slash, `time` when the
//! producer wrote the row.

use std::borrow::Cow;
use std::fmt::Write as _;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use ureq::http::{HeaderName, HeaderValue};

use crate::domain::event::{Event, json_text, timestamp};
use crate::domain::nearest::did_you_mean;
use crate::handlers::keys::Keys;
use crate::system::logging::quoted;

/// The longest event type, or other attribute, that goes as a header. Many receivers take 8 KiB in
/// a line, or in all headers.
pub(super) const ATTRIBUTE_BYTES_MAX: usize = 4 * 1024;

/// What a body is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Format {
    /// The JSON object of the event, as all handlers get it.
    #[default]
    Event,
    /// The payload alone.
    Payload,
    /// A structured CloudEvent.
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// A binary CloudEvent.
    #[serde(rename = "cloudevents-binary")]
    CloudEventsBinary,
}

impl Format {
    const ALL: [Format; 4] = [
        Format::Event,
        Format::Payload,
        Format::CloudEvents,
        Format::CloudEventsBinary,
    ];

    /// Reads the key `format`.
    pub(super) fn read(keys: Keys<'_>) -> Result<Format, String> {
        if keys.get("format").is_none() {
            return Ok(Format::default());
        }
        let word = keys.text("format")?;
        let names = || Format::ALL.iter().map(|format| format.name());
        let format = Format::ALL.into_iter().find(|format| format.name() == word);
        format.ok_or_else(|| {
            format!(
                "has `format`, which must be {}, not {}{}",
                names().collect::<Vec<_>>().join(", "),
                quoted(word),
                did_you_mean(word, names())
            )
        })
    }

    /// Its word in the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Event => "event",
            Format::Payload => "payload",
            Format::CloudEvents => "cloudevents",
            Format::CloudEventsBinary => "cloudevents-binary",
        }
    }

    /// Says whether it is a CloudEvent, which has a source.
    pub(super) fn has_source(self) -> bool {
        matches!(self, Format::CloudEvents | Format::CloudEventsBinary)
    }

    /// The type of the body, unless the route says another.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Event | Format::Payload | Format::CloudEventsBinary => "application/json",
            Format::CloudEvents => "application/cloudevents+json; charset=utf-8",
        })
    }

    /// The body.
    pub(super) fn body<'a>(self, event: &'a Event, source: &str) -> Cow<'a, str> {
        match self {
            Format::Event => Cow::Owned(event.to_json()),
            Format::Payload | Format::CloudEventsBinary => Cow::Borrowed(&event.payload),
            Format::CloudEvents => Cow::Owned(structured(event, source)),
        }
    }

    /// Says whether the format itself brings a header of this name, in lower case.
    pub(super) fn is_header(self, name: &str) -> bool {
        self == Format::CloudEventsBinary && name.starts_with("ce-")
    }

    /// Adds the headers that the format brings along. Refuses an event that has no form in it.
    pub(super) fn add_headers(
        self,
        event: &Event,
        source: &str,
        headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(), String> {
        if self.has_source() && event.event_type.is_empty() {
            return Err(
                "a CloudEvent must have a type, and that of this event is empty".to_owned(),
            );
        }
        if self != Format::CloudEventsBinary {
            return Ok(());
        }
        let event_type = header_text(&event.event_type);
        if event_type.len() > ATTRIBUTE_BYTES_MAX {
            return Err(format!(
                "the event type is longer than the {ATTRIBUTE_BYTES_MAX} bytes that go as the header `ce-type`; \
                 `format = \"cloudevents\"` has room for it"
            ));
        }
        // The subject is optional.
        let subject = header_text(&subject(event));
        let subject = (subject.len() <= ATTRIBUTE_BYTES_MAX).then_some(subject);
        let attributes = [
            ("ce-specversion", Some("1.0".to_owned())),
            ("ce-id", Some(event.id.to_string())),
            ("ce-source", Some(header_text(source))),
            ("ce-type", Some(event_type)),
            ("ce-subject", subject),
            ("ce-time", time(event)),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                let value = HeaderValue::try_from(value).expect("what is no ASCII is encoded");
                headers.push((HeaderName::from_static(name), value));
            }
        }
        Ok(())
    }
}

fn structured(event: &Event, source: &str) -> String {
    let mut json = String::with_capacity(event.payload.len() + 256);
    // Writing to a String cannot fail.
    let _ = write!(
        json,
        r#"{{"specversion":"1.0","id":"{}","source":{},"type":{},"subject":{}"#,
        event.id,
        json_text(source),
        json_text(&event.event_type),
        json_text(&subject(event)),
    );
    if let Some(time) = time(event) {
        let _ = write!(json, r#","time":"{time}""#);
    }
    let _ = write!(
        json,
        r#","datacontenttype":"application/json","data":{}}}"#,
        event.payload
    );
    json
}

fn subject(event: &Event) -> String {
    format!("{}/{}", event.aggregate_type, event.aggregate_id)
}

fn time(event: &Event) -> Option<String> {
    event.created_at_micros.and_then(timestamp)
}

/// An attribute as a header carries it: blank, `"`, `%` and all that is not visible ASCII are
/// percent-encoded, as the HTTP binding of CloudEvents has it.
pub(super) fn header_text(text: &str) -> String {
    const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The source of a route's CloudEvents that names none: this program, and the database.
pub(super) fn usual_source(database: &str) -> String {
    format!(
        "/dispatchbox/{}",
        utf8_percent_encode(database, percent_encoding::NON_ALPHANUMERIC)
    )
}

/// Reads the key `source`, which must be a URI reference: visible ASCII.
pub(super) fn source(keys: Keys<'_>, format: Format) -> Result<Option<String>, String> {
    if keys.get("source").is_none() {
        return Ok(None);
    }
    let source = keys.text("source")?;
    if !format.has_source() {
        return Err("has `source`, which only a CloudEvent has".to_owned());
    }
    let is_uri = |byte: u8| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte);
    if source.is_empty() || !source.bytes().all(is_uri) {
        return Err(format!(
            "has `source`, which must be a URI or a part of one such as `/shop/orders`, not {}",
            quoted(source)
        ));
    }
    Ok(Some(source.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_cannot_add_a_header() {
        assert_eq!(header_text("order.created"), "order.created");
        assert_eq!(header_text("a\r\nX: y%ü\""), "a%0D%0AX:%20y%25%C3%BC%22");
    }
}
