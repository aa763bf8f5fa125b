//! What receivers do and no attempt may be charged for: answers in odd forms and at odd times,
//! connections that end at odd times.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dispatchbox::domain::event::Event;
use dispatchbox::handlers::HandlerError;

use super::server::{Connection, Server};
use super::{Only, event, retry_reason};
use crate::support::wait::pause;
use crate::support::wait_until;

/// Far below any timeout of these routes, far above what a busy machine takes.
const PROMPT: Duration = Duration::from_secs(20);

/// More than all buffers between two sockets hold.
const BIG: usize = 16_000_000;

/// An answer that says from the head alone that the body is not wanted.
const TOO_LARGE: &str = "HTTP/1.1 413 Too Large\r\nContent-Length: 12\r\n\r\nat most 1 MB";

fn big_event() -> Event {
    Event {
        payload: format!("\"{}\"", "x".repeat(BIG)),
        ..event("a")
    }
}

#[track_caller]
fn dead_reason(result: Result<(), HandlerError>) -> String {
    match result {
        Err(HandlerError::Permanent(reason)) => reason,
        other => panic!("expected dead, got {other:?}"),
    }
}

/// Runs one event through a receiver that answers so, byte for byte, and closes when the client
/// does.
fn answered(answer: &str) -> Result<(), HandlerError> {
    let answer = answer.to_owned();
    let server = Server::start(move |mut connection| {
        connection.read_request();
        connection.write(&answer);
        connection.wait_closed();
    });
    Only::new(server.handler()).run(&event("a"))
}

#[test]
fn an_answer_that_comes_before_the_body_was_sent_decides() {
    let check = |serve: fn(Connection)| {
        let server = Server::start(serve);
        let started = Instant::now();
        let result = Only::new(server.handler()).run(&big_event());
        assert!(started.elapsed() < PROMPT);
        assert_eq!(server.n_connections(), 1);
        result
    };

    let closed = check(|mut connection| {
        connection.read_head();
        connection.write(TOO_LARGE);
    });
    let held_open = check(|mut connection| {
        connection.read_head();
        connection.write(TOO_LARGE);
        connection.wait_shut();
    });
    // Answers when the sender has long been blocked.
    let late = check(|mut connection| {
        connection.read_head();
        pause(Duration::from_millis(200));
        connection.write(TOO_LARGE);
        connection.wait_shut();
    });
    let read_on = check(|mut connection| {
        connection.read_head();
        connection.write(TOO_LARGE);
        connection.wait_closed();
    });
    for result in [closed, held_open, late, read_on] {
        let reason = dead_reason(result);
        assert!(
            reason.ends_with("/…: 413 Payload Too Large: at most 1 MB"),
            "{reason}"
        );
    }
    let busy = check(|mut connection| {
        connection.read_head();
        connection.write("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
        connection.wait_shut();
    });
    match busy {
        Err(HandlerError::Retry { reason, after }) => {
            assert!(reason.ends_with(": 503 Service Unavailable"), "{reason}");
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
        other => panic!("{other:?}"),
    }
}

/// Goal: an event that a receiver has not got whole is never taken for delivered.
#[test]
fn a_success_that_comes_before_the_body_was_sent_does_not_end_the_sending() {
    let (tell, got) = mpsc::channel();
    let server = Server::start(move |mut connection| {
        while let Some(request) = connection.read_head() {
            connection.answer("200 OK", "ok");
            tell.send(connection.echo(&request, 0)).unwrap();
        }
    });
    let only = Only::new(server.handler());
    for _ in 0..2 {
        assert_eq!(only.run(&big_event()), Ok(()));
        let n_bytes = got.recv_timeout(PROMPT).unwrap();
        assert!(n_bytes > BIG, "{n_bytes}");
    }
    assert_eq!(server.n_connections(), 1);

    // One whose answer's end is the end of what it sends, and not of what it reads.
    let (tell, got) = mpsc::channel();
    let server = Server::start(move |mut connection| {
        let request = connection.read_head().unwrap();
        connection.write("HTTP/1.1 200 OK\r\n\r\nok");
        connection.end_output();
        tell.send(connection.echo(&request, 0)).unwrap();
    });
    assert_eq!(Only::new(server.handler()).run(&big_event()), Ok(()));
    let n_bytes = got.recv_timeout(PROMPT).unwrap();
    assert!(n_bytes > BIG, "{n_bytes}");

    // One that writes as it reads, and more than all buffers hold.
    let server = Server::start(|mut connection| {
        while let Some(request) = connection.read_head() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n");
            connection.write(&head);
            connection.echo(&request, BIG);
        }
    });
    let started = Instant::now();
    assert_eq!(Only::new(server.handler()).run(&big_event()), Ok(()));
    assert!(started.elapsed() < PROMPT);
}

#[test]
fn an_interim_answer_does_not_end_the_sending() {
    let server = Server::start(|mut connection| {
        while let Some(request) = connection.read_head() {
            for interim in [
                "100 Continue\r\nServer: x",
                "102 Processing",
                "103 Early Hints",
            ] {
                connection.write(&format!("HTTP/1.1 {interim}\r\n\r\n"));
                // Long enough for the sender to be blocked, with this to be read.
                pause(Duration::from_millis(50));
            }
            let n = connection.read_body(&request).unwrap();
            connection.answer("200 OK", &n.to_string());
        }
    });
    let only = Only::new(server.handler());

    assert_eq!(only.run(&big_event()), Ok(()));
    assert_eq!(only.run(&event("a")), Ok(()));
    assert_eq!(server.n_connections(), 1);
}

#[test]
fn interim_answers_are_not_the_answer_whatever_stands_in_them() {
    for interim in [
        "HTTP/1.1 100 Continue\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: x\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n\r\n",
        "HTTP/1.1 199 Mine\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
    ] {
        let server = Server::start(move |mut connection| {
            while connection.read_request().is_some() {
                connection.write(interim);
                connection.answer("200 OK", "ok");
            }
        });
        let only = Only::new(server.handler());
        for _ in 0..3 {
            assert_eq!(only.run(&event("a")), Ok(()), "{interim}");
        }
        assert_eq!(server.n_connections(), 1, "{interim}");
    }
}

#[test]
fn endless_interim_answers_end_with_the_time() {
    let server = Server::start(|mut connection| {
        connection.read_request();
        while connection
            .write("HTTP/1.1 102 Processing\r\n\r\n")
            .is_some()
        {}
    });
    let started = Instant::now();

    let reason =
        retry_reason(Only::within(Duration::from_millis(500), server.handler()).run(&event("a")));

    assert!(started.elapsed() < PROMPT);
    assert!(reason.ends_with("timed out after 500 ms"), "{reason}");
}

#[test]
fn a_long_head_is_read() {
    let lines = |n: usize, length: usize| {
        let value = "y".repeat(length);
        (0..n).fold(String::new(), |all, i| all + &format!("X-{i}: {value}\r\n"))
    };
    for head in [lines(1, 100_000), lines(300, 10), lines(3, 80_000)] {
        let server = Server::start(move |mut connection| {
            while connection.read_request().is_some() {
                connection.write(&format!(
                    "HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nok"
                ));
            }
        });
        let only = Only::new(server.handler());
        assert_eq!(only.run(&event("a")), Ok(()));
        assert_eq!(only.run(&event("a")), Ok(()));
        assert_eq!(server.n_connections(), 1);
    }
    let endless = format!("HTTP/1.1 200 OK\r\n{}\r\n", lines(4, 80_000));
    let reason = retry_reason(answered(&endless));
    assert!(reason.contains("longer than 256 KiB"), "{reason}");
}

#[test]
fn a_body_behind_an_answer_without_one_does_not_spoil_the_next() {
    for (head, delay) in [
        ("204 No Content\r\nContent-Length: 5", 0),
        ("204 No Content\r\nContent-Length: 5", 20),
        ("204 No Content\r\nTransfer-Encoding: chunked", 20),
        ("204 No Content", 0),
        ("204 No Content", 5),
        ("204 No Content", 20),
    ] {
        let server = Server::start(move |mut connection| {
            while connection.read_request().is_some() {
                connection.write(&format!("HTTP/1.1 {head}\r\n\r\n"));
                pause(Duration::from_millis(delay));
                connection.write("hello");
            }
        });
        let only = Only::new(server.handler());
        for n in 0..20 {
            assert_eq!(only.run(&event("a")), Ok(()), "{head} {delay} {n}");
        }
    }
    let server = Server::start(|mut connection| {
        while connection.read_request().is_some() {
            connection.write("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n");
            pause(Duration::from_millis(20));
            connection.write("hello");
        }
    });
    let only = Only::new(server.handler());
    for _ in 0..20 {
        let reason = retry_reason(only.run(&event("a")));
        assert!(reason.ends_with("304 Not Modified"), "{reason}");
    }
}

#[test]
fn a_plain_answer_without_a_body_keeps_its_connection() {
    for head in ["204 No Content", "204 No Content\r\nContent-Length: 0"] {
        let server = Server::start(move |mut connection| {
            while connection.read_request().is_some() {
                connection.write(&format!("HTTP/1.1 {head}\r\n\r\n"));
            }
        });
        let only = Only::new(server.handler());
        for _ in 0..5 {
            assert_eq!(only.run(&event("a")), Ok(()));
        }
        assert_eq!(server.n_connections(), 1, "{head}");
    }
}

/// Method: a receiver that reads a request on a used connection and closes without a byte; from
/// outside, that is what a close in the moment of use looks like.
#[test]
fn a_connection_closed_in_the_moment_of_its_next_use_costs_no_attempt() {
    let server = Server::start(|mut connection| {
        for _ in 0..2 {
            connection.read_request();
            connection.answer("200 OK", "");
        }
        connection.read_request();
    });
    let only = Only::new(server.handler());

    for _ in 0..30 {
        assert_eq!(only.run(&event("a")), Ok(()));
    }

    // 30 and one repetition for each connection but the last.
    let n = server.requests().len();
    assert!((44..=45).contains(&n), "{n}");
}

#[test]
fn events_of_several_runners_lose_no_attempt_to_closing_connections() {
    let server = Server::start(|mut connection| {
        for n in 1.. {
            if connection.read_request().is_none() || connection.answer("200 OK", "ok").is_none() {
                return;
            }
            if n % 10 == 0 {
                return;
            }
        }
    });
    let only = Only::new(server.handler());
    let n_failed = AtomicUsize::new(0);

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    if only.run(&event("a")).is_err() {
                        n_failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });

    assert_eq!(n_failed.into_inner(), 0);
}

#[test]
fn a_request_is_repeated_once_and_only_where_no_answer_can_have_begun() {
    // A used connection breaks with the request unanswered, and the new one does, too.
    let twice = Server::start(|mut connection| {
        connection.read_request();
        if connection.n == 0 {
            connection.answer("200 OK", "");
            connection.read_request();
        }
    });
    // A new connection breaks.
    let new = Server::start(|mut connection| {
        connection.read_request();
    });
    // A used connection breaks within the answer, or behind an interim one.
    let breaks_behind = |bytes: &'static str| {
        Server::start(move |mut connection| {
            connection.read_request();
            connection.answer("200 OK", "");
            connection.read_request();
            connection.write(bytes);
        })
    };

    let check = |server: &Server, n_good: usize, n_requests: usize| {
        let only = Only::new(server.handler());
        for _ in 0..n_good {
            assert_eq!(only.run(&event("a")), Ok(()));
        }
        let reason = retry_reason(only.run(&event("b")));
        assert!(reason.contains("closed the connection"), "{reason}");
        assert_eq!(server.requests().len(), n_requests);
    };
    check(&twice, 1, 3);
    check(&new, 0, 1);
    check(&breaks_behind("HTTP/1.1 2"), 1, 2);
    check(&breaks_behind("HTTP/1.1 102 Processing\r\n\r\n"), 1, 2);
}

/// Goal: a repetition has what is left of the time, not all of it again.
#[test]
fn the_time_counts_for_a_request_and_its_repetition_together() {
    let server = Server::start(|mut connection| {
        connection.read_request();
        if connection.n == 0 {
            connection.answer("200 OK", "");
            connection.read_request();
            pause(Duration::from_millis(400));
        } else {
            connection.wait_closed();
        }
    });
    let only = Only::within(Duration::from_millis(800), server.handler());
    assert_eq!(only.run(&event("a")), Ok(()));
    let started = Instant::now();

    let reason = retry_reason(only.run(&event("b")));

    assert!(reason.ends_with("timed out after 800 ms"), "{reason}");
    assert!(started.elapsed() < PROMPT);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_word_about_an_idle_connection_is_not_the_answer_to_the_next_request() {
    let server = Server::start(|mut connection| {
        connection.read_request();
        connection.answer("200 OK", "");
        // The next request comes together with this.
        connection.read_request();
        connection.answer("408 Request Time-out\r\nConnection: close", "");
    });
    let only = Only::new(server.handler());

    for _ in 0..6 {
        assert_eq!(only.run(&event("a")), Ok(()));
    }
}

#[test]
fn the_status_decides_however_the_body_is_framed() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nX y z\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: today\r\n or so\r\nContent-Length: 0\r\n\r\n",
        "\r\nHTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_eq!(answered(answer), Ok(()), "{answer:?}");
    }
}

#[test]
fn an_endless_chunked_answer_is_cut_short() {
    for piece in ["5\r\nhello\r\n", "0\r\nX: y\r\n", "5;x=y"] {
        let (tell, ended) = mpsc::channel();
        let server = Server::start(move |mut connection| {
            connection.read_request();
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while connection.write(piece).is_some() {}
            let _ = tell.send(());
        });
        let started = Instant::now();

        assert_eq!(Only::new(server.handler()).run(&event("a")), Ok(()));

        assert!(started.elapsed() < PROMPT, "{piece}");
        ended.recv_timeout(PROMPT).unwrap();
    }
}

#[test]
fn what_is_no_answer_is_told_in_words() {
    for (answer, expected) in [
        (
            "220 mail.example ESMTP\r\n",
            "the answer is not HTTP/1.1: it begins with `220 mail.example",
        ),
        (
            "\0\0\u{6}\u{4}\0\0\0\0\0",
            r"the answer is not HTTP/1.1: it begins with `\x00\x00\x06\x04",
        ),
        ("HTTP/2 200 OK\r\n\r\n", "not valid HTTP/1.1"),
        ("HTTP/1.1 000 Nothing\r\n\r\n", "there is no status 000"),
        ("HTTP/1.1 abc\r\n\r\n", "not valid HTTP/1.1"),
        ("HTTP/1.1 999 Own\r\nContent-Length: 1\r\n\r\nx", ": 999: x"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
            ": 101 Switching Protocols",
        ),
    ] {
        let reason = retry_reason(answered(answer));
        assert!(reason.contains(expected), "{answer:?}: {reason}");
    }
}

#[test]
fn a_receiver_that_comes_back_is_met_on_new_connections() {
    let server = Server::start(|connection| connection.answer_all("200 OK", ""));
    let only = Arc::new(Only::new(server.handler()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(only.run(&event("a")), Ok(())));
        }
    });

    server.close_connections();
    wait_until("all are closed", || !server.is_connected());

    for _ in 0..8 {
        assert_eq!(only.run(&event("a")), Ok(()));
    }
}
