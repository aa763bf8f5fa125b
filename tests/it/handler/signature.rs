//! Standard Webhooks signatures, verified by the reference libraries of two languages.

use std::fs;

use dispatchbox::domain::event::Event;
use serde_json::json;

use super::{Only, event, retry_reason};
use crate::support::receiver::{Receiver, Request};
use crate::support::verifier::{self, verify};
use crate::support::{TestDir, wait_until};

const OLD: &str = super::WEBHOOK;
const NEW: &str = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldw==";
const OTHER: &str = "whsec_b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC0=";

/// Says whether the libraries accept a request that was signed with a secret; they agree.
#[track_caller]
fn is_genuine(request: &Request, secret: &str) -> bool {
    let read = ["webhook.py", "webhook.cjs"].map(|program| verify(program, request, secret));
    for refusal in read.iter().filter_map(|read| read.as_ref().err()) {
        assert!(refusal.contains("No matching signature found"), "{refusal}");
    }
    let [python, javascript] = read.map(Result::ok);
    assert_eq!(python, javascript);
    python.is_some_and(|body| body == json!({ "total": 7, "name": "é" }))
}

#[test]
fn the_reference_libraries_verify_each_attempt_and_notice_a_change() {
    if verifier::are_left_out() {
        return;
    }
    let directory = TestDir::new();
    let path = directory.file("new");
    fs::write(&path, format!("{NEW}\n")).unwrap();
    let receiver = Receiver::start();
    receiver.set_status(500);
    receiver.set_body(OLD);
    let lines = format!(
        "format = 'payload'\nsign = {{ standard_webhooks = [{{ file = '{path}' }}, {{ env = 'WEBHOOK' }}] }}"
    );
    let only = Only::of_lines(&receiver.url(), &lines);
    let event = |attempt| Event {
        payload: r#"{"total": 7, "name": "é"}"#.to_owned(),
        attempt,
        ..event("a")
    };

    for attempt in [1, 2] {
        let reason = retry_reason(only.run(&event(attempt)));
        assert!(reason.ends_with("500 Internal Server Error: …"), "{reason}");
    }

    let requests = receiver.requests();
    for request in &requests {
        assert!(is_genuine(request, NEW) && is_genuine(request, OLD));
        assert!(!is_genuine(request, OTHER));
        assert_eq!(request.header("webhook-id"), Some("msg_812"));
        let mut changed = request.clone();
        changed.body = br#"{"total": 8, "name": "x"}"#.to_vec();
        assert!(!is_genuine(&changed, OLD));
    }
    assert_eq!(requests.len(), 2);

    // The rotation goes on without a restart.
    fs::write(&path, OTHER).unwrap();
    wait_until("the secret of the file signs", || {
        let _ = only.run(&event(3));
        let request = receiver.requests().pop().unwrap();
        let n_signatures = request
            .header("webhook-signature")
            .unwrap()
            .split(' ')
            .count();
        assert_eq!(n_signatures, 2);
        is_genuine(&request, OTHER)
    });
}
