//! What an http route sends beside the event, from the lines of its file to the receiver.

use std::fs;

use dispatchbox::domain::event::Event;
use dispatchbox::handlers::HandlerError;

use super::{Only, event, retry_reason, routes_of};
use crate::support::receiver::{Receiver, Request};
use crate::support::{Cli, Daemon, TestDb, TestDir, wait_until};

/// Sends one event by a route with these lines; the request that came of it.
fn sent(lines: &str, event: &Event) -> Request {
    let receiver = Receiver::start();
    let only = Only::of_lines(&receiver.url(), lines);
    only.run(event).unwrap();
    receiver.requests().pop().unwrap()
}

/// Answers one event with a status, by a route with these lines.
fn answered(lines: &str, status: u16) -> Result<(), HandlerError> {
    let receiver = Receiver::start();
    receiver.set_status(status);
    Only::of_lines(&receiver.url(), lines).run(&event("a"))
}

/// What is said of a route with these lines.
#[track_caller]
fn refusal(lines: &str) -> String {
    let table =
        format!("[[route]]\nevent_type = '*'\nhandler = 'http'\nurl = 'http://h/'\n{lines}\n");
    routes_of(&table, &[("BAD", "s3cr3t \u{1} s3cr3t")])
        .err()
        .expect("this is refused")
}

#[test]
fn a_method_a_type_and_headers_are_sent_as_they_are_configured() {
    let lines = "method = 'PUT'
        content_type = 'application/vnd.acme+json'
        headers = { X-Tenant = 'acme', User-Agent = 'acme/1', X-Key = { env = 'SECRET' } }";
    let request = sent(lines, &event("a"));

    assert_eq!(request.line, "PUT /hook HTTP/1.1");
    for (name, value) in [
        ("content-type", "application/vnd.acme+json"),
        ("x-tenant", "acme"),
        ("user-agent", "acme/1"),
        ("x-key", "from-the-3nvironment"),
        ("dispatchbox-event-id", "812"),
    ] {
        let values = request.headers.iter().filter(|(known, _)| known == name);
        let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, [value], "{name}");
    }
    for method in ["POST", "PATCH", "DELETE"] {
        let request = sent(&format!("method = '{method}'"), &event("a"));
        assert_eq!(request.line, format!("{method} /hook HTTP/1.1"));
        assert_eq!(request.body, event("a").to_json().as_bytes());
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
}

#[test]
fn a_receiver_is_told_who_we_are() {
    let directory = TestDir::new();
    let path = directory.file("secret");
    fs::write(&path, "open sesame\n").unwrap();
    let basic =
        format!("auth = {{ basic = {{ user = 'Aladdin', password = {{ file = '{path}' }} }} }}");

    let bearer = sent("auth = { bearer = { env = 'SECRET' } }", &event("a"));
    let basic = sent(&basic, &event("a"));

    assert_eq!(
        bearer.header("authorization"),
        Some("Bearer from-the-3nvironment")
    );
    assert_eq!(
        basic.header("authorization"),
        Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    );
}

#[test]
fn a_changed_secret_is_sent_over_the_same_connection_and_a_broken_one_is_not() {
    let directory = TestDir::new();
    let path = directory.file("secret");
    fs::write(&path, "0ld-s3cr3t").unwrap();
    let receiver = Receiver::start();
    let lines = format!("headers = {{ X-Key = {{ file = '{path}' }} }}");
    let only = Only::of_lines(&receiver.url(), &lines);
    let run = || {
        only.run(&event("a")).unwrap();
        receiver
            .requests()
            .pop()
            .unwrap()
            .header("x-key")
            .unwrap()
            .to_owned()
    };
    assert_eq!(run(), "0ld-s3cr3t");

    for broken in ["", "two\nlines"] {
        fs::write(&path, broken).unwrap();
        assert_eq!(run(), "0ld-s3cr3t");
    }
    fs::write(&path, "n3w-s3cr3t\n").unwrap();
    wait_until("the new secret is sent", || run() == "n3w-s3cr3t");

    // As the old secret was, the new one is not repeated.
    receiver.set_status(500);
    receiver.set_body("no n3w-s3cr3t");
    let reason = retry_reason(only.run(&event("a")));
    assert!(
        reason.ends_with("500 Internal Server Error: no …"),
        "{reason}"
    );
    assert_eq!(receiver.n_connections(), 1);
}

#[test]
fn the_statuses_of_a_route_say_what_is_done_and_dead() {
    assert_eq!(answered("done_statuses = [409]", 409), Ok(()));
    assert!(matches!(answered("", 409), Err(HandlerError::Retry { .. })));
    // What is said to be done stands before what is usually dead.
    assert_eq!(answered("done_statuses = [410]", 410), Ok(()));
    assert!(matches!(
        answered("done_statuses = [410]", 422),
        Err(HandlerError::Permanent(_))
    ));
    assert!(matches!(
        answered("dead_statuses = [409]", 409),
        Err(HandlerError::Permanent(_))
    ));
    let reason = retry_reason(answered("method = 'PATCH'", 500));
    assert!(reason.starts_with("PATCH http://127.0.0.1:"), "{reason}");
}

#[test]
fn the_trace_of_an_event_is_passed_on() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = Event {
        headers: Some(format!(
            r#"{{"traceparent": "{parent}", "tracestate": "a=1", "x": 1}}"#
        )),
        ..event("a")
    };
    let request = sent("", &traced);

    assert_eq!(request.header("traceparent"), Some(parent));
    assert_eq!(request.header("tracestate"), Some("a=1"));
    assert_eq!(request.header("x"), None);
    assert_eq!(sent("", &event("a")).header("traceparent"), None);
}

#[track_caller]
fn check_refused(lines: &str, expected: &str) {
    let refusal = refusal(lines);
    assert!(refusal.contains(expected), "{lines}: {refusal}");
    assert!(!refusal.contains("s3cr3t"), "{refusal}");
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_key_and_no_secret() {
    check_refused(
        "method = 'GET'",
        "`method`, which must be POST, PUT, PATCH, DELETE, not `GET`",
    );
    check_refused(
        "format = 'cloudevent'",
        "`format`, which must be event, payload, cloudevents, cloudevents-binary, not `cloudevent`; did you mean `cloudevents`?",
    );
    check_refused("source = '/x'", "`source`, which only a CloudEvent has");
    check_refused(
        "format = 'cloudevents'\nsource = 'a b'",
        "`source`, which must be a URI or a part of one",
    );
    check_refused(
        "format = 'cloudevents-binary'\nheaders = { CE-Id = '7' }",
        "the header `ce-id`, which comes from `format = \"cloudevents-binary\"`",
    );
    check_refused("method = 'post'", "did you mean `POST`?");
    check_refused(
        "content_type = 'json'",
        "`content_type`, which must be a type such as `text/plain`, not `json`",
    );
    check_refused(
        "done_statuses = [200]",
        "needs a list of statuses from 300 to 599 in done_statuses",
    );
    check_refused(
        "done_statuses = [409]\ndead_statuses = [409]",
        "409 in `done_statuses` and in `dead_statuses`",
    );
    check_refused(
        "headers = 'X-A: b'",
        "`headers`, which must be a table, not of the type string",
    );
    check_refused(
        "headers = { X-A = 1 }",
        "`headers.X-A`, which must be a text, { file = \"…\" } or { env = \"…\" }",
    );
    check_refused(
        "headers = { X-A = { fiel = 'x' } }",
        "`headers.X-A`, which must be { file = \"…\" }",
    );
    check_refused(
        "headers = { X-A = 'b', x-a = 'c' }",
        "the header `x-a` twice",
    );
    check_refused(
        "headers = { Host = 'other' }",
        "the header `Host`, which follows from the URL",
    );
    check_refused(
        "headers = { X-A = { env = 'BAD' } }",
        "the header `X-A`, whose value must be visible ASCII",
    );
    check_refused(
        "headers = { X-A = { env = 'NONE' } }",
        "`headers.X-A`, but the variable `NONE` is not set",
    );
    check_refused(
        "headers = { X-A = { file = '/none' } }",
        "`headers.X-A`, but `/none` cannot be used",
    );
}

#[test]
fn a_word_of_who_we_are_that_cannot_be_meant_is_refused() {
    check_refused(
        "auth = { bearer = 's3cr3t' }",
        "`auth.bearer`, which must be { file = \"…\" } or { env = \"…\" }",
    );
    check_refused(
        "auth = { baerer = { env = 'BAD' } }",
        "`auth`, which has the unknown key `baerer`; did you mean `bearer`?",
    );
    check_refused(
        "auth = { bearer = { env = 'BAD' } }",
        "`auth.bearer`, whose value must be the token alone",
    );
    check_refused(
        "auth = {}",
        "`auth`, which must have either `bearer` or `basic`",
    );
    check_refused(
        "auth = { basic = { user = 'a:b' } }",
        "`auth.basic`, which has `user`, which must be a text without `:`",
    );
    check_refused(
        "auth = { basic = { user = 'a' } }",
        "`auth.basic.password`, which must be",
    );
    check_refused(
        "sign = { standard_webhooks = [] }",
        "`sign.standard_webhooks`, which must be a list of 1 to 8 secrets",
    );
    check_refused(
        "sign = { standard_webhooks = ['s3cr3t'] }",
        "`sign.standard_webhooks`, which must be a list of 1 to 8 secrets",
    );
    check_refused(
        "sign = { standard_webhooks = [{ env = 'BAD' }] }",
        "`sign.standard_webhooks`, whose values must be `whsec_` and the base64 of 24 to 64 bytes",
    );
    check_refused(
        "sign = { standard_webhook = [] }",
        "`sign`, which has the unknown key `standard_webhook`; did you mean `standard_webhooks`?",
    );
    let both = "auth = { bearer = { env = 'HOME' } }\nheaders = { authorization = 'x' }";
    let home = [("HOME", "x")];
    let table = |url: &str, lines| {
        format!("[[route]]\nevent_type = '*'\nhandler = 'http'\nurl = '{url}'\n{lines}\n")
    };
    let refused = |text: &str| routes_of(text, &home).err().expect("this is refused");
    assert!(refused(&table("http://h/", both)).contains("`auth` and the header `Authorization`"));
    let user = table("http://me:x@h/", "headers = { authorization = 'x' }");
    assert!(refused(&user).contains("a user in its URL"));
}

/// From the file to the receiver and the row, with the check beside it: the secrets stand in the
/// requests alone.
#[test]
fn a_daemon_delivers_with_secrets_that_nothing_shows() {
    const SECRETS: [&str; 3] = ["t0ken-of-a-file", "k3y-of-a-variable", "plain-t3xt"];
    let db = TestDb::with_events(1);
    let receiver = Receiver::start();
    receiver.set_status(500);
    receiver.set_body(&SECRETS.join(" "));
    let directory = TestDir::new();
    let (config, token) = (directory.file("c.toml"), directory.file("token"));
    fs::write(&token, SECRETS[0]).unwrap();
    let text = format!(
        "[[route]]
        event_type = '*'
        handler = 'http'
        url = '{}'
        method = 'PUT'
        auth = {{ bearer = {{ file = '{token}' }} }}
        done_statuses = [409]
        [route.headers]
        X-Api-Key = {{ env = 'KEY' }}
        X-Plain-Token = '{}'
        [route.retry]
        backoff_seconds = 0",
        receiver.url(),
        SECRETS[2]
    );
    fs::write(&config, text).unwrap();

    let checked = Cli::new(["config", "check", "--config", &config, "--dsn", &db.dsn()])
        .env("KEY", SECRETS[1])
        .run();
    let daemon = Daemon::new(&db)
        .args(["--config", &config, "--log-level=DEBUG"])
        .env("KEY", SECRETS[1])
        .start();
    wait_until("an attempt has failed", || {
        db.count_where("last_error is not null") == 1
    });
    receiver.set_status(409);
    wait_until("the event is done", || db.count("done") == 1);

    let request = receiver.requests().pop().unwrap();
    assert_eq!(
        request.header("authorization").unwrap(),
        format!("Bearer {}", SECRETS[0])
    );
    assert_eq!(request.header("x-api-key"), Some(SECRETS[1]));
    assert_eq!(request.header("x-plain-token"), Some(SECRETS[2]));
    assert_eq!(checked.status, 0, "{}", checked.stderr);
    let shown = "method PUT, headers X-Api-Key from the environment and X-Plain-Token, \
                 auth bearer, done_statuses [409]";
    assert!(checked.stdout.contains(shown), "{}", checked.stdout);
    assert_eq!(
        db.count_where("last_error like 'PUT %: 500 Internal Server Error: … … …'"),
        1
    );
    for secret in SECRETS {
        for text in [&checked.stdout, &checked.stderr, &daemon.log()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
