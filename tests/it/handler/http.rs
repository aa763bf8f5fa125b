//! `http` with a real receiver on the loopback: the meaning of its answers, and receivers that
//! misbehave.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Barrier;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use dispatchbox::handlers::{HandlerError, Handlers, Routes, Run};
use serde_json::json;

use super::server::{Connection, Server, post_to};
use super::{Only, config, event, retry_reason, spec};
use crate::support::wait::pause;
use crate::support::wait_until;

/// A timeout that is meant to be over soon, though not before a busy machine has come as far as the
/// test needs.
const SHORT: Duration = Duration::from_millis(500);

/// Far below what any of these receivers would take, far above what giving up takes.
const PROMPT: Duration = Duration::from_secs(20);

/// Posts one event to a receiver that always answers so.
fn answered(head: &'static str, body: &'static str) -> Result<(), HandlerError> {
    let server = Server::answering(head, body);
    Only::new(server.handler()).run(&event("a"))
}

/// What a reason says after the URL.
#[track_caller]
fn after_url(reason: &str) -> &str {
    let rest = reason.strip_prefix("POST http://127.0.0.1:").unwrap();
    rest.split_once("/…: ").unwrap().1
}

#[track_caller]
fn retry_text(result: Result<(), HandlerError>) -> String {
    after_url(&retry_reason(result)).to_owned()
}

#[test]
fn the_receiver_gets_the_event_and_what_it_needs_to_recognize_it() {
    let server = Server::answering("200 OK", "");
    let only = Only::new(server.handler());
    let first = event("order.ü created");
    let mut second = first.clone();
    second.attempt += 1;

    assert_eq!(only.run(&first), Ok(()));
    assert_eq!(only.run(&second), Ok(()));

    for (request, event) in server.requests().iter().zip([first, second]) {
        assert_eq!(request.line, "POST /hook HTTP/1.1");
        assert_eq!(request.body, event.to_json());
        let agent = concat!("dispatchbox/", env!("CARGO_PKG_VERSION"));
        for (name, value) in [
            ("content-type", "application/json"),
            ("dispatchbox-event-id", "812"),
            ("dispatchbox-event-type", "order.%C3%BC%20created"),
            ("dispatchbox-attempt", &event.attempt.to_string()),
            ("user-agent", agent),
            ("host", &format!("127.0.0.1:{}", server.port())),
        ] {
            assert_eq!(request.header(name), Some(value), "{name}");
        }
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("transfer-encoding"), None);
    }
    assert_eq!(server.requests().len(), 2);
}

/// Goal: an event is delivered whatever its type is: the body has it, a header may not hold it.
#[test]
fn a_type_that_is_too_long_for_a_header_goes_in_the_body_alone() {
    for (event_type, is_header) in [
        ("o".repeat(4096), true),
        ("o".repeat(4097), false),
        ("ü".repeat(5000), false),
    ] {
        let server = Server::answering("200 OK", "");
        let event = event(&event_type);

        assert_eq!(Only::new(server.handler()).run(&event), Ok(()));

        let requests = server.requests();
        let header = requests[0].header("dispatchbox-event-type");
        assert_eq!(header, is_header.then_some(event_type.as_str()));
        assert_eq!(requests[0].body, event.to_json());
    }
}

#[test]
fn every_2xx_is_done() {
    for head in ["200 OK", "201 Created", "202 Accepted", "299 Fine"] {
        assert_eq!(answered(head, "thanks"), Ok(()), "{head}");
    }
    let server = Server::start(|mut connection| {
        connection.read_request();
        connection.write("HTTP/1.1 204 No Content\r\n\r\n");
    });
    assert_eq!(Only::new(server.handler()).run(&event("a")), Ok(()));
}

#[test]
fn the_statuses_that_blame_the_request_are_dead_at_once() {
    for head in [
        "400 Bad Request",
        "410 Gone",
        "413 Payload Too Large",
        "415 Unsupported Media Type",
        "422 Unprocessable Entity",
    ] {
        match answered(head, "no field `total`\n") {
            Err(HandlerError::Permanent(reason)) => {
                assert_eq!(after_url(&reason), format!("{head}: no field `total`"));
            }
            other => panic!("{head}: {other:?}"),
        }
    }
}

#[test]
fn every_other_status_is_worth_another_attempt() {
    for head in [
        "301 Moved Permanently",
        "304 Not Modified",
        "401 Unauthorized",
        "404 Not Found",
        "408 Request Timeout",
        "409 Conflict",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
    ] {
        let reason = retry_text(answered(head, ""));
        assert_eq!(reason, head);
    }
    assert_eq!(retry_text(answered("599 Own", "x")), "599: x");
}

#[test]
fn a_route_may_have_dead_statuses_of_its_own() {
    let check = |head, is_dead| {
        let server = Server::answering(head, "");
        let mut handler = server.handler();
        handler.settings["dead_statuses"] = json!([404, 500]);
        let result = Only::new(handler).run(&event("a"));
        assert_eq!(
            matches!(result, Err(HandlerError::Permanent(_))),
            is_dead,
            "{head}"
        );
    };

    check("404 Not Found", true);
    check("500 Internal Server Error", true);
    check("400 Bad Request", false);
}

#[test]
fn the_receivers_wish_to_wait_counts_with_429_and_503_only() {
    let check = |head: &str, expected| {
        let head = head.to_owned();
        let server = Server::start(move |connection| connection.answer_all(&head, ""));
        match Only::new(server.handler()).run(&event("a")) {
            Err(HandlerError::Retry { after, .. }) => assert_eq!(after, expected),
            other => panic!("{other:?}"),
        }
    };
    let seconds = |n| Some(Duration::from_secs(n));
    let tomorrow = SystemTime::now() + Duration::from_hours(24);
    let date = httpdate::fmt_http_date(tomorrow);
    let later = httpdate::fmt_http_date(tomorrow + Duration::from_secs(90));

    check("429 Too Many Requests\r\nRetry-After: 7", seconds(7));
    check("503 Service Unavailable\r\nretry-after: 120", seconds(120));
    check(
        &format!("503 Busy\r\nRetry-After: {later}\r\nDate: {date}"),
        seconds(90),
    );
    check("500 Internal Server Error\r\nRetry-After: 7", None);
    check("302 Found\r\nRetry-After: 7", None);
    check("429 Too Many Requests\r\nRetry-After: 0", None);
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Server::answering("200 OK", "");
    let target = elsewhere.port();

    for status in [301, 302, 303, 307, 308] {
        let head = format!("{status} Go\r\nLocation: http://127.0.0.1:{target}/hook");
        let server = Server::start(move |connection| connection.answer_all(&head, ""));
        let reason = retry_text(Only::new(server.handler()).run(&event("a")));
        assert!(reason.starts_with(&status.to_string()), "{reason}");
        assert_eq!(server.requests().len(), 1);
    }

    assert_eq!(elsewhere.n_connections(), 0);
}

#[test]
fn a_receiver_that_is_not_there_is_worth_another_attempt() {
    let port = {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };

    let refused = Only::new(post_to(&format!("http://127.0.0.1:{port}/hook"))).run(&event("a"));
    let unknown = Only::new(post_to("http://no-such-host.invalid/hook")).run(&event("a"));

    assert_eq!(retry_text(refused), "Connection refused (os error 111)");
    let unknown = retry_reason(unknown);
    assert!(
        unknown.starts_with("POST http://no-such-host.invalid/…: failed to lookup address"),
        "{unknown}"
    );
}

#[test]
fn a_connection_that_breaks_before_the_status_is_worth_another_attempt() {
    // Before the request, in the middle of the answer's head, and with something that is no HTTP.
    let resets = Server::start(Connection::reset);
    let stops = Server::start(|mut connection| {
        connection.read_request();
        connection.write("HTTP/1.1 200 O");
    });
    let babbles = Server::start(|mut connection| {
        connection.read_request();
        connection.write("220 mail.example ESMTP\r\n\r\n");
    });

    for server in [resets, stops, babbles] {
        let reason = retry_text(Only::new(server.handler()).run(&event("a")));
        assert!(!reason.is_empty());
        assert_eq!(server.n_connections(), 1);
    }
}

#[test]
fn a_receiver_that_does_not_speak_tls_is_worth_another_attempt() {
    let server = Server::start(|mut connection| {
        connection.write("HTTP/1.1 400 Bad Request\r\n\r\n");
        connection.wait_closed();
    });
    let url = format!("https://127.0.0.1:{}/hook", server.port());

    let reason = retry_reason(Only::new(post_to(&url)).run(&event("a")));

    assert_eq!(
        reason,
        format!(
            "POST https://127.0.0.1:{}/…: the receiver does not speak TLS on this port \
             (received corrupt message of type InvalidContentType)",
            server.port()
        )
    );
}

#[test]
fn the_deadline_holds_for_a_receiver_that_is_silent_or_drips() {
    let silent = Server::start(|mut connection| {
        connection.read_request();
        connection.wait_closed();
    });
    // Never silent for longer than a moment, so no time limit per read would end it.
    let dripping = Server::start(|mut connection| {
        connection.read_request();
        connection.write("HTTP/1.1 200 OK\r\nX: ");
        while connection.write("x").is_some() {
            pause(Duration::from_millis(10));
        }
    });
    let deaf = Server::start(|connection| {
        let (forever, silence) = mpsc::channel::<()>();
        let _ = (silence.recv_timeout(4 * SHORT), connection, forever);
    });
    // Goes on taking something, so no time limit per write would end it.
    let slow = Server::start(|mut connection| {
        while connection.read_some(20_000).is_some() {
            pause(Duration::from_millis(10));
        }
    });
    let mut big = event("a");
    big.payload = format!("\"{}\"", "x".repeat(50_000_000));

    for (server, event) in [
        (silent, event("a")),
        (dripping, event("a")),
        (deaf, big.clone()),
        (slow, big),
    ] {
        let started = Instant::now();
        let result = Only::within(SHORT, server.handler()).run(&event);
        assert!(started.elapsed() >= SHORT);
        assert!(started.elapsed() < PROMPT);
        assert_eq!(retry_text(result), "timed out after 500 ms");
    }
}

#[test]
fn what_follows_a_status_cannot_change_it_and_is_cut_short() {
    let check = |head: &'static str, timeout| {
        let server = Server::start(move |mut connection| {
            connection.read_request();
            connection.write(&format!(
                "HTTP/1.1 {head}\r\nContent-Length: 9999\r\n\r\nbecause"
            ));
            while connection.write(".").is_some() {
                pause(Duration::from_millis(10));
            }
        });
        let started = Instant::now();
        let result = Only::within(timeout, server.handler()).run(&event("a"));
        assert!(started.elapsed() < PROMPT);
        result
    };

    assert_eq!(check("200 OK", SHORT), Ok(()));
    let reason = retry_text(check("500 Internal Server Error", SHORT));
    assert!(
        reason.starts_with("500 Internal Server Error: because."),
        "{reason}"
    );
    // With a timeout of a minute as well.
    assert_eq!(check("200 OK", Duration::from_mins(1)), Ok(()));
}

#[test]
fn an_endless_answer_is_read_to_its_limit_only() {
    for head in ["200 OK", "500 Internal Server Error"] {
        let (tell, sent) = mpsc::channel();
        let server = Server::start(move |mut connection| {
            connection.read_request();
            connection.write(&format!(
                "HTTP/1.1 {head}\r\nContent-Length: 1000000000\r\n\r\n"
            ));
            let chunk = "x".repeat(100_000);
            let n = (0..10_000)
                .take_while(|_| connection.write(&chunk).is_some())
                .count();
            tell.send(n).unwrap();
        });

        let result = Only::new(server.handler()).run(&event("a"));

        // Some of it stands in the sockets' buffers.
        assert!(sent.recv_timeout(PROMPT).unwrap() < 1000);
        if head == "200 OK" {
            assert_eq!(result, Ok(()));
        } else {
            let reason = retry_text(result);
            assert!(reason.ends_with("xxx…"), "{reason}");
            assert!(reason.len() < 2000);
        }
    }
}

#[test]
fn an_endless_head_is_worth_another_attempt() {
    let server = Server::start(|mut connection| {
        connection.read_request();
        connection.write("HTTP/1.1 200 OK\r\n");
        while connection
            .write("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
            .is_some()
        {}
    });
    let started = Instant::now();

    let reason = retry_text(Only::new(server.handler()).run(&event("a")));

    assert!(started.elapsed() < PROMPT);
    assert!(!reason.is_empty());
}

#[test]
fn what_comes_before_the_answer_is_not_the_answer() {
    let server = Server::start(|mut connection| {
        while connection.read_request().is_some() {
            connection.write("HTTP/1.1 100 Continue\r\n\r\n");
            connection.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            connection.answer("200 OK", "");
        }
    });
    let only = Only::new(server.handler());

    for _ in 0..2 {
        assert_eq!(only.run(&event("a")), Ok(()));
    }
}

#[test]
fn a_connection_is_used_again() {
    let server = Server::answering("503 Busy", "later");
    let only = Only::new(server.handler());

    for _ in 0..10 {
        assert_eq!(
            retry_text(only.run(&event("a"))),
            "503 Service Unavailable: later"
        );
    }

    assert_eq!(server.requests().len(), 10);
    assert_eq!(server.n_connections(), 1);
}

#[test]
fn each_runner_keeps_a_connection() {
    let barrier = std::sync::Arc::new(Barrier::new(4));
    let inside = std::sync::Arc::clone(&barrier);
    // Answers only when all four are there, so each needs a connection of its own.
    let server = Server::start(move |mut connection| {
        while connection.read_request().is_some() {
            inside.wait();
            connection.answer("200 OK", "");
        }
    });
    let only = Only::new(server.handler());

    for _ in 0..5 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(only.run(&event("a")), Ok(())));
            }
        });
    }

    assert_eq!(server.requests().len(), 20);
    assert_eq!(server.n_connections(), 4);
}

#[test]
fn a_connection_that_the_receiver_closed_meanwhile_costs_no_attempt() {
    let server = Server::start(|mut connection| {
        connection.read_request();
        connection.answer("200 OK", "");
    });
    let only = Only::new(server.handler());

    for _ in 0..10 {
        assert_eq!(only.run(&event("a")), Ok(()));
        wait_until("the close has arrived", || !server.is_connected());
    }

    assert_eq!(server.n_connections(), 10);
}

#[test]
fn secrets_of_the_url_reach_the_receiver_and_no_reason() {
    let server = Server::answering("500 Internal Server Error", "");
    let url = format!(
        "http://me:p%40ss@127.0.0.1:{}/hook?token=t0k",
        server.port()
    );

    let reason = retry_text(Only::new(post_to(&url)).run(&event("a")));

    assert_eq!(reason, "500 Internal Server Error");
    let request = &server.requests()[0];
    assert_eq!(request.line, "POST /hook?token=t0k HTTP/1.1");
    assert_eq!(request.header("authorization"), Some("Basic bWU6cEBzcw=="));
    assert_eq!(
        request.header("host"),
        Some(format!("127.0.0.1:{}", server.port()).as_str())
    );
}

#[test]
fn an_answer_that_repeats_the_url_brings_no_secret_into_a_reason() {
    let server = Server::start(|mut connection| {
        let request = connection.read_request().unwrap();
        let line = request.line.replace(" HTTP/1.1", "");
        connection.answer("404 Not Found", &format!("Cannot {line}"));
    });
    let url = format!(
        "http://127.0.0.1:{}/services/T000/XyZs3cr3tXyZ?key=t0k3n-t0k3n",
        server.port()
    );

    let reason = retry_reason(Only::new(post_to(&url)).run(&event("a")));

    let port = server.port();
    assert_eq!(
        reason,
        format!("POST http://127.0.0.1:{port}/…: 404 Not Found: Cannot POST …")
    );
}

#[test]
fn a_run_may_be_given_less_time_than_its_route() {
    let server = Server::start(|mut connection| {
        connection.read_request();
        connection.wait_closed();
    });
    let routes = Routes::new(
        &config(vec![spec("*", server.handler())]),
        &Handlers::default(),
    )
    .unwrap();
    let run = Run {
        timeout: SHORT,
        on_group: &|_| (),
        worker: "test",
    };
    let started = Instant::now();

    let result = routes.get(0).run(&event("a"), &run);

    assert!(started.elapsed() < PROMPT);
    assert_eq!(retry_text(result), "timed out after 500 ms");
}

/// Method: this test runs itself again in a process whose environment names a proxy that is not
/// there.
#[test]
fn the_environments_proxy_is_not_used() {
    const INNER: &str = "DISPATCHBOX_TEST_WITH_PROXY";
    if std::env::var_os(INNER).is_some() {
        assert_eq!(answered("200 OK", ""), Ok(()));
        return;
    }

    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "handler::http::the_environments_proxy_is_not_used",
    ]);
    for name in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        again.env(name, "http://127.0.0.1:1");
    }
    let output = again
        .env(INNER, "1")
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .unwrap();

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn a_name_is_looked_up_and_its_receiver_reached() {
    let server = Server::answering("200 OK", "");
    let url = format!("http://localhost:{}/hook", server.port());
    let only = Only::new(post_to(&url));

    for _ in 0..3 {
        assert_eq!(only.run(&event("a")), Ok(()));
    }

    wait_until("all came", || server.requests().len() == 3);
    assert_eq!(server.n_connections(), 1);
}
