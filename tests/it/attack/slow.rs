//! Clients that take a place and then take their time.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::client::{self, connect};
use super::siege::{Siege, Target};
use crate::support::wait::pause;

/// Sends a beginning, then a byte now and then, until the other side has had enough.
fn dribble(target: &Target, begin: &str, byte: u8) {
    let Ok(mut stream) = connect(target.port) else {
        return;
    };
    let mut sent = stream.write_all(begin.as_bytes());
    while sent.is_ok() && !target.is_over() {
        pause(Duration::from_millis(20));
        sent = stream.write_all(&[byte]);
    }
}

/// Sends this and waits for the other side to end it.
fn hang(target: &Target, begin: &str) {
    let Ok(mut stream) = connect(target.port) else {
        return;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    let _ = stream.write_all(begin.as_bytes());
    let mut chunk = [0; 1024];
    while !target.is_over() {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[test]
fn slow_requests_keep_nobody_out() {
    let siege = Siege::begin();
    siege.attack("slow headers", |target| {
        dribble(target, "GET /health HTTP/1.1\r\nHost: h\r\nX-A: ", b'a');
    });
    siege.attack("slow bodies", |target| {
        let post = "POST /api/dead-events/retry-batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n{";
        dribble(target, post, b' ');
    });
    siege.attack("Expect without a body", |target| {
        let post = "POST /api/dead-events/retry-batch HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                    Content-Length: 4000\r\n\r\n";
        hang(target, post);
    });
}

#[test]
fn silent_connections_keep_nobody_out() {
    let siege = Siege::begin();
    siege.attack("silent connections", |target| hang(target, ""));
    siege.attack("idle keep-alive", |target| {
        hang(
            target,
            "GET /health HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
        );
    });
}

#[test]
fn lengths_that_are_only_promised_take_nothing() {
    let siege = Siege::begin();
    for length in [1_000_000_000_000_000_u64, 1_000_000_000, 1_048_576] {
        siege.attack(&format!("Content-Length: {length} and no body"), |target| {
            let post = format!(
                "POST /api/dead-events/1/retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            );
            hang(target, &post);
        });
    }
}

#[test]
fn clients_that_never_read_their_answer_keep_nobody_out() {
    let siege = Siege::begin();
    // More than all buffers on the way take.
    siege.db.execute(
        "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status) \
         select 'a', 'a', 'big', to_jsonb(repeat('x', 8000000)), 'dead'",
    );
    let paths = ["/metrics", "/", "/api/dead-events"];
    for path in paths {
        siege.attack(&format!("{path} never read"), |target| {
            let Ok(mut stream) = connect(target.port) else {
                return;
            };
            let _ = stream
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            while !target.is_over() {
                pause(Duration::from_millis(50));
            }
        });
    }
}

#[test]
fn a_request_is_given_so_long_and_no_longer() {
    let siege = Siege::begin();
    let port = siege.daemon.http_port();

    let answer = client::send(port, "GET / HTTP/1.1\r\n").unwrap();

    assert_eq!(client::status(&answer), Some(408), "{answer}");
    siege.check_recovery("a request that was never finished");
}
