//! The forms of an event in a request; CloudEvents as another language's SDK reads them.

use dispatchbox::domain::event::Event;
use dispatchbox::handlers::HandlerError;
use serde_json::json;

use super::{Only, event};
use crate::support::receiver::{Receiver, Request};
use crate::support::verifier::{self, verify};

/// An event whose texts need care wherever they stand.
fn difficult() -> Event {
    Event {
        aggregate_id: "4\"2 é".to_owned(),
        event_type: "order.created ü%".to_owned(),
        payload: r#"{"total": 12345678901234567890, "name": "é\n"}"#.to_owned(),
        created_at_micros: Some(1_735_787_045_123_456),
        ..event("a")
    }
}

/// Sends one event by a route with these lines; the request that came of it.
fn sent(lines: &str, event: &Event) -> Request {
    let receiver = Receiver::start();
    Only::of_lines(&receiver.url(), lines).run(event).unwrap();
    receiver.requests().pop().unwrap()
}

#[test]
fn a_payload_is_sent_byte_for_byte() {
    let request = sent("format = 'payload'", &difficult());

    assert_eq!(request.body, difficult().payload.as_bytes());
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("dispatchbox-event-id"), Some("812"));
}

#[test]
fn the_sdk_of_another_language_reads_what_stands_in_a_cloudevent() {
    if verifier::are_left_out() {
        return;
    }
    let structured = sent("format = 'cloudevents'", &difficult());
    let binary = sent(
        "format = 'cloudevents-binary'\nsource = 'urn:shop:orders'",
        &difficult(),
    );

    assert_eq!(
        structured.header("content-type"),
        Some("application/cloudevents+json; charset=utf-8")
    );
    // The SDK takes an attribute that is missing for the usual one.
    let body = String::from_utf8_lossy(&structured.body);
    assert!(
        body.starts_with(r#"{"specversion":"1.0","id":"812","#),
        "{body}"
    );
    assert_eq!(binary.header("ce-specversion"), Some("1.0"));
    assert_eq!(binary.header("content-type"), Some("application/json"));
    assert_eq!(binary.body, difficult().payload.as_bytes());
    for (request, source) in [
        (structured, "/dispatchbox/shop"),
        (binary, "urn:shop:orders"),
    ] {
        let read = verify("cloudevent.py", &request, "").unwrap();
        for (attribute, value) in [
            ("specversion", "1.0"),
            ("id", "812"),
            ("source", source),
            ("type", "order.created ü%"),
            ("subject", "order/4\"2 é"),
            ("time", "2025-01-02T03:04:05.123456+00:00"),
            ("datacontenttype", "application/json"),
        ] {
            assert_eq!(read["attributes"][attribute], value, "{attribute}");
        }
        assert_eq!(
            read["data"],
            json!({ "total": 12_345_678_901_234_567_890_u64, "name": "é\n" })
        );
    }
    // The check itself can fail.
    let other = sent("format = 'payload'", &difficult());
    assert!(verify("cloudevent.py", &other, "").is_err());
}

#[test]
fn an_event_that_no_cloudevent_can_be_is_dead_and_not_sent() {
    if verifier::are_left_out() {
        return;
    }
    let receiver = Receiver::start();
    let reason = |format: &str, event_type: &str| {
        let only = Only::of_lines(&receiver.url(), &format!("format = '{format}'"));
        match only.run(&event(event_type)) {
            Err(HandlerError::Permanent(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };

    for format in ["cloudevents", "cloudevents-binary"] {
        assert!(reason(format, "").contains("must have a type"));
    }
    let long = "x".repeat(5000);
    assert!(reason("cloudevents-binary", &long).contains("longer than the 4096 bytes"));
    assert_eq!(receiver.requests(), []);
    // A subject that is too long is left out: it is optional.
    let event = Event {
        aggregate_id: long.clone(),
        ..difficult()
    };
    let binary = sent("format = 'cloudevents-binary'", &event);
    assert_eq!(binary.header("ce-subject"), None);
    assert_eq!(binary.header("ce-id"), Some("812"));
    let structured = sent("format = 'cloudevents'", &event);
    let read = verify("cloudevent.py", &structured, "").unwrap();
    assert_eq!(read["attributes"]["subject"], format!("order/{long}"));
}
