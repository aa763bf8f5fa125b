//! Clients that send much, or fast, or nonsense.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::client::{connect, read_all, send, send_and_end, status};
use super::siege::Siege;
use crate::support::wait::pause;
use crate::support::wait_until;

#[test]
fn large_requests_keep_nobody_out() {
    let siege = Siege::begin();
    siege.flood("a huge header", |target| {
        let header = "a".repeat(100_000);
        let _ = send(
            target.port,
            format!("GET / HTTP/1.1\r\nHost: h\r\nX: {header}\r\n\r\n"),
        );
    });
    siege.flood("a hundred thousand headers", |target| {
        let headers = "X: y\r\n".repeat(100_000);
        let _ = send(
            target.port,
            format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"),
        );
    });
    siege.flood("whole bodies of 4 MiB", |target| {
        let body = vec![b' '; 4 * 1024 * 1024];
        let head = format!(
            "POST /api/dead-events/retry-batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let _ = send(target.port, [head.as_bytes(), &body].concat());
    });
    siege.flood("chunked bodies", |target| {
        let chunks = "5\r\nhello\r\n".repeat(1000);
        let head = "POST /api/dead-events/1/retry HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = send(target.port, format!("{head}{chunks}0\r\n\r\n")).unwrap_or_default();
        // What could not be sent any more may have cost the answer.
        assert!(matches!(status(&answer), Some(411) | None), "{answer}");
    });
}

#[test]
fn other_versions_keep_nobody_out() {
    let siege = Siege::begin();
    siege.flood("the preface of HTTP/2", |target| {
        let _ = send(
            target.port,
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        );
    });
    siege.flood("HTTP/2.0 in the request line", |target| {
        let answer =
            send(target.port, "GET /health HTTP/2.0\r\nHost: h\r\n\r\n").unwrap_or_default();
        assert!(matches!(status(&answer), Some(505) | None), "{answer}");
    });
    siege.flood("TLS", |target| {
        let _ = send(target.port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    });
}

#[test]
fn requests_in_a_row_are_one_request() {
    let siege = Siege::begin();
    siege.flood("pipelining without reading", |target| {
        let Ok(mut stream) = connect(target.port) else {
            return;
        };
        let requests = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
        while !target.is_over() && stream.write_all(requests.as_bytes()).is_ok() {}
    });

    let answers = send(
        siege.daemon.http_port(),
        "GET /health HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3),
    )
    .unwrap();
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
}

#[test]
fn connections_that_are_reset_keep_nobody_out() {
    let siege = Siege::begin();
    for (what, begin) in [
        ("resets on connect", ""),
        ("resets within a request", "GET /met"),
        (
            "resets before the answer",
            "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
    ] {
        siege.flood(what, |target| {
            let Ok(mut stream) = connect(target.port) else {
                return;
            };
            let _ = stream.write_all(begin.as_bytes());
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        });
    }
}

/// Goal: nothing that a client may think of does more than cost it its connection. Method: requests
/// that are put together from right and wrong pieces, by a seed that is printed.
#[test]
fn ten_thousand_random_requests_are_answered_or_ended() {
    const REQUESTS: usize = 10_000;
    let seed = std::env::var("DISPATCHBOX_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    eprintln!("random requests: DISPATCHBOX_TEST_SEED={seed}");
    let siege = Siege::begin();
    let port = siege.daemon.http_port();
    let random = Mutex::new(fastrand::Rng::with_seed(seed));
    let (sent, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));

    siege.flood("random requests", |_| {
        while sent.fetch_add(1, Ordering::Relaxed) < REQUESTS {
            let request = random_request(&mut random.lock().unwrap());
            let answer = send_and_end(port, &request).unwrap_or_default();
            let shown = String::from_utf8_lossy(&request).into_owned();
            if !answer.is_empty() {
                assert!(status(&answer).is_some(), "{shown:?}: {answer:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    });

    let answered = answered.into_inner();
    eprintln!("random requests: {answered} of {REQUESTS} were answered");
    assert!(answered > REQUESTS / 4, "{answered}");
}

fn random_request(random: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&str; 28] = [
        "GET ",
        "POST ",
        "HEAD ",
        "PUT ",
        "OPTIONS ",
        "/health",
        "/ready",
        "/metrics",
        "/",
        "/api/dead-events",
        "/%00",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        " HTTP/2.0\r\n",
        "\r\n",
        "\n",
        "Host: localhost\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Connection: keep-alive\r\n",
        "X-A: b\r\n",
        " ",
        ":",
        "{}",
        "0\r\n\r\n",
    ];
    let mut request = Vec::new();
    if random.bool() {
        let method = random
            .choice(["GET", "POST", "HEAD", "DELETE"])
            .unwrap_or_default();
        let path = random
            .choice([
                "/health",
                "/ready",
                "/metrics",
                "/x",
                "/api/dead-events?limit=x",
            ])
            .unwrap_or_default();
        request.extend(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").bytes());
    }
    for _ in 0..random.usize(0..10) {
        if random.u8(0..10) == 0 {
            request.extend((0..random.usize(0..20)).map(|_| random.u8(..)));
        } else {
            request.extend(random.choice(PIECES).unwrap_or_default().bytes());
        }
    }
    if random.bool() {
        request.extend(b"\r\n\r\n");
    }
    request
}

#[test]
fn who_sends_too_much_is_told_so_and_not_cut_off() {
    let siege = Siege::begin();
    let head = "POST /api/dead-events/1/retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n";
    for _ in 0..10 {
        let mut stream = connect(siege.daemon.http_port()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        // The answer is there before the body is, and a close at this point would be a reset.
        stream.peek(&mut [0]).unwrap();
        for _ in 0..300 {
            stream.write_all(&[b'x'; 10_000]).unwrap();
        }

        let answer = read_all(&mut stream);

        assert_eq!(status(&answer), Some(413), "{answer}");
        assert!(answer.ends_with("allows\"}"), "{answer}");
    }
}

/// Goal: a client that looks for the answer only when all is sent reads it, however much that is
/// and wherever the refusal stood. Method: each refusal that the guard gives with a body under way,
/// sixteen times what a request may hold, in one go and in slow pieces.
#[test]
fn a_refusal_is_read_by_a_client_that_sends_all_first() {
    let siege = Siege::begin();
    let mib = 1024 * 1024;
    let long = format!("X-Long: {}", "a".repeat(9000));
    for (line, header, expected) in [
        ("POST /api/dead-events/1/retry", "X-A: b", 413),
        ("POST /api/dead-events/retry-batch", "X-A: b", 413),
        ("PUT /health", "X-A: b", 413),
        (
            "POST /api/dead-events/1/retry",
            "Transfer-Encoding: chunked",
            411,
        ),
        ("POST /api/dead-events/1/retry", long.as_str(), 431),
        ("POST api", "X-A: b", 400),
    ] {
        for n_bytes in [16 * mib, 2 * mib] {
            let head = format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Length: {}\r\n\r\n",
                16 * mib
            );
            let mut stream = connect(siege.daemon.http_port()).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let piece = vec![b'x'; mib];
            for _ in 0..n_bytes / mib {
                stream.write_all(&piece).unwrap();
                if n_bytes < 16 * mib {
                    pause(Duration::from_millis(700));
                }
            }

            let answer = read_all(&mut stream);

            assert_eq!(status(&answer), Some(expected), "{line} {answer}");
            assert!(answer.ends_with("\"}"), "{answer}");
        }
    }
}

#[test]
fn unfinished_bodies_take_so_much_memory_and_no_more() {
    let siege = Siege::begin();
    let begin = format!(
        "POST /api/dead-events/retry-batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        4 * 1024 * 1024
    );
    let unfinished = [begin.as_bytes(), &vec![b' '; 4 * 1024 * 1024 - 1]].concat();
    let clients: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut client = connect(siege.daemon.http_port()).unwrap();
            // Who is sent away meanwhile cannot send it all.
            let _ = client.write_all(&unfinished);
            client
        })
        .collect();

    wait_until("there are no more than thirty-two MiB of them", || {
        let is_open = |client: &&TcpStream| {
            client.set_nonblocking(true).unwrap();
            let seen = client.peek(&mut [0]);
            seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        clients.iter().filter(is_open).count() <= 8
    });
    drop(clients);

    siege.check_recovery("unfinished bodies");
}
