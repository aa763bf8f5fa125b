//! Requests that are to be taken for something else than they seem: none gets behind the guard, and
//! each is told why.

use super::client::{send_and_end, status};
use super::siege::Siege;

/// A dead event, the request that would requeue it, and the daemon that must not see it.
struct Marker {
    siege: Siege,
    id: i64,
}

impl Marker {
    fn new() -> Marker {
        let siege = Siege::begin();
        siege.db.execute(
            "insert into outbox_event (aggregate_type, aggregate_id, event_type, payload, status) \
             values ('a', 'a', 'marker', '{}', 'dead')",
        );
        let id = siege
            .db
            .number("select id from outbox_event where status = 'dead'", &[]);
        Marker { siege, id }
    }

    /// The request itself.
    fn request(&self) -> String {
        let id = self.id;
        format!(
            "POST /api/dead-events/{id}/retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// Sends these bytes, with the marker behind them: one answer, with this status, and the event
    /// stays dead.
    #[track_caller]
    fn check(&self, before: &[u8], expected: u16) {
        let bytes = [before, self.request().as_bytes()].concat();
        let answer = send_and_end(self.siege.daemon.http_port(), &bytes).unwrap();
        let shown = String::from_utf8_lossy(before);
        assert_eq!(status(&answer), Some(expected), "{shown:?}: {answer}");
        assert_eq!(
            answer.matches("Content-Length:").count(),
            1,
            "{shown:?}: {answer}"
        );
        if expected != 200 {
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
            assert!(answer.contains("\r\n\r\n{\"error\":\""), "{answer}");
        }
        assert_eq!(self.siege.db.count("dead"), 1, "{shown:?}");
    }
}

#[test]
fn nothing_is_smuggled_behind_a_request() {
    let marker = Marker::new();
    let length = marker.request().len();
    let post = "POST /api/dead-events/9/retry HTTP/1.1\r\nHost: localhost\r\n";

    for (headers, expected) in [
        // Two lengths, and two readings of one.
        (
            format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
            400,
        ),
        (
            format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
            400,
        ),
        ("Content-Length: 0\r\nContent-Length: 0\r\n".to_owned(), 400),
        (format!("Content-Length: 0, {length}\r\n"), 400),
        ("Content-Length: +0\r\n".to_owned(), 400),
        ("Content-Length: -0\r\n".to_owned(), 400),
        ("Content-Length: 0x0\r\n".to_owned(), 400),
        ("Content-Length: 0 0\r\n".to_owned(), 400),
        ("Content-Length:\r\n".to_owned(), 400),
        ("Content-Length : 0\r\n".to_owned(), 400),
        ("Content-Length\t: 0\r\n".to_owned(), 400),
        // A length and chunks.
        (
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
            411,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n".to_owned(),
            411,
        ),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), 411),
        ("Transfer-Encoding: identity\r\n".to_owned(), 411),
        ("Transfer-Encoding : chunked\r\n".to_owned(), 400),
        ("X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(), 400),
        ("X: y\nTransfer-Encoding: chunked\r\n".to_owned(), 400),
        ("X: y\rTransfer-Encoding: chunked\r\n".to_owned(), 400),
        ("\u{b}Transfer-Encoding: chunked\r\n".to_owned(), 400),
        // Folded, bare and strange lines.
        ("X: a\r\n b\r\n".to_owned(), 400),
        ("X: a\n".to_owned(), 400),
        ("X: a\0\r\n".to_owned(), 400),
        ("X: é\r\n".to_owned(), 400),
        ("é: a\r\n".to_owned(), 400),
        ("Host: other\r\n".to_owned(), 400),
        // An upgrade, after which the rest would be no HTTP at all.
        (
            "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n".to_owned(),
            404,
        ),
        (
            "Connection: keep-alive\r\nContent-Length: 0\r\n".to_owned(),
            404,
        ),
    ] {
        marker.check(format!("{post}{headers}\r\n").as_bytes(), expected);
    }
    for (line, expected) in [
        ("GET /health HTTP/1.1\nHost: h\n\n", 400),
        ("\r\nGET /health HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\n\r\n", 400),
        ("GET  /health HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /hea lth HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /health\r\n\r\n", 400),
        (
            "GET http://localhost/health HTTP/1.1\r\nHost: h\r\n\r\n",
            400,
        ),
        ("GET /health HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        ("GET /h\u{e9}alth HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n", 417),
    ] {
        marker.check(line.as_bytes(), expected);
    }
    marker.check(b"\xff\xfe GET", 400);
    // Exactly as many bytes as the body is long, and the rest for nobody.
    marker.check(
        b"POST /api/dead-events/retry-batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
        400,
    );
    marker.check(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", 200);
    marker.check(b"GET /health HTTP/1.0\r\n\r\n", 200);

    marker.siege.check_recovery("smuggling");
    // The marker would have been seen: sent for itself, it is.
    let answer = send_and_end(marker.siege.daemon.http_port(), marker.request()).unwrap();
    assert_eq!(status(&answer), Some(200), "{answer}");
    assert_eq!(marker.siege.db.count("dead"), 0);
}

#[test]
fn nobody_says_for_himself_where_he_comes_from() {
    let marker = Marker::new();
    let forged = |header: &str| {
        let request =
            format!("GET /api/dead-events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
        status(&send_and_end(marker.siege.daemon.http_port(), request).unwrap())
    };

    assert_eq!(forged("X-Dispatchbox-Peer: 192.0.2.1"), Some(200));
    assert_eq!(forged("X-Forwarded-For: 192.0.2.1"), Some(403));
    // A proxy's client cannot have the proxy's word removed.
    assert_eq!(
        forged("Connection: X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.1"),
        Some(403)
    );
}

#[test]
fn an_expected_word_is_said_once_and_the_body_read_after_it() {
    use super::client::{connect, read_all};
    use std::io::{Read as _, Write as _};

    let siege = Siege::begin();
    let mut stream = connect(siege.daemon.http_port()).unwrap();
    let body = r#"{"event_ids":[1]}"#;
    let head = format!(
        "POST /api/dead-events/retry-batch HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut word = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");

    stream.write_all(body.as_bytes()).unwrap();

    let answer = read_all(&mut stream);
    assert_eq!(status(&answer), Some(200), "{answer}");
    assert!(
        answer.contains(r#""requested":1,"processed":0"#),
        "{answer}"
    );
}
