//! Pure: the bytes of a request's head → its parts, or the reason to refuse it.
//!
//! A head that can be read in two ways is refused. A proxy before the guard and the server behind
//! it might each choose another reading: that is how a request is smuggled inside the body of
//! another. httparse reads the grammar. What httparse tolerates beyond the grammar (a bare line
//! feed, empty lines before the request, bytes beyond ASCII) is refused before httparse reads the
//! head.

use httparse::{EMPTY_HEADER, Error, Request, Status};

use crate::http::guard::head::Head;
use crate::http::guard::refusal::Refusal;

/// Most bytes of a head, its request line included. Browsers and balancers stay below 4 KiB.
pub(super) const HEAD_MAX: usize = 8 * 1024;

const HEADERS_MAX: usize = 64;

/// Reads a head from the beginning of `bytes`: `None` when it is not complete yet, else with its
/// length.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    let Some(length) = end_of_head(bytes)? else {
        if bytes.len() < HEAD_MAX {
            return Ok(None);
        }
        let has_line = bytes.contains(&b'\n');
        return Err(if has_line {
            Refusal::HEAD_TOO_LARGE
        } else {
            Refusal::TARGET_TOO_LONG
        });
    };
    if length > HEAD_MAX {
        return Err(Refusal::HEAD_TOO_LARGE);
    }
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(&bytes[..length]) {
        Ok(Status::Complete(read)) if read == length => {}
        Ok(Status::Complete(_) | Status::Partial) => {
            return Err(Refusal::malformed("the request head has no clear end"));
        }
        Err(Error::TooManyHeaders) => return Err(Refusal::HEAD_TOO_LARGE),
        Err(Error::Version) if names_a_version(&bytes[..length]) => return Err(Refusal::VERSION),
        Err(_) => return Err(Refusal::malformed("the request head is not HTTP")),
    }
    Head::understand(&request).map(|head| Some((head, length)))
}

/// Finds the first empty line, which ends the head, and refuses bytes that have no place in one.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    const NOT_ALLOWED: Refusal =
        Refusal::malformed("a byte in the request head is neither visible ASCII nor blank");
    const BARE_LINE_FEED: Refusal =
        Refusal::malformed("a line of the request head does not end with CR LF");
    let mut line_begin = 0;
    let mut previous = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if previous == b'\r' => {
                if at == line_begin + 1 {
                    return Ok(Some(at + 1));
                }
                line_begin = at + 1;
            }
            b'\n' => return Err(BARE_LINE_FEED),
            b'\r' | b'\t' | b' '..=b'~' => {}
            _ => return Err(NOT_ALLOWED),
        }
        previous = byte;
    }
    Ok(None)
}

/// Says whether the request line is whole, with some version of HTTP.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [_, _, version] = words[..] else {
        return false;
    };
    version
        .strip_prefix(b"HTTP/")
        .is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const REQUEST: &str =
        "POST /api/x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A:  b c \r\n\r\nabc";

    const MIB: u64 = 1024 * 1024;

    fn status_of(request: &str) -> u16 {
        match parse(request.as_bytes()) {
            Ok(Some(_)) => 200,
            Ok(None) => 0,
            Err(refusal) => refusal.status(),
        }
    }

    fn head_of(request: &[u8]) -> (Head, usize) {
        parse(request).ok().flatten().expect("a whole request")
    }

    fn rewritten(head: &Head, peer: [u8; 4]) -> String {
        let peer = IpAddr::from(peer);
        String::from_utf8_lossy(&head.rewrite(peer)).into_owned()
    }

    /// A GET with these header lines.
    fn with(headers: &str) -> u16 {
        status_of(&format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    }

    fn line(line: &str) -> u16 {
        status_of(&format!("{line}\r\nHost: h\r\n\r\n"))
    }

    #[test]
    fn a_head_is_complete_at_its_last_byte_and_not_before() {
        let length = REQUEST.len() - "abc".len();
        for end in 0..length {
            assert_eq!(parse(&REQUEST.as_bytes()[..end]), Ok(None), "{end}");
        }
        assert_eq!(head_of(&REQUEST.as_bytes()[..length]).1, length);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for headers in [
            "A: b\r\n folded\r\n",
            "A: b\r\n\tfolded\r\n",
            " A: b\r\n",
            "A : b\r\n",
            "A\t: b\r\n",
            ": b\r\n",
            "A\r\n",
            "A: b\n",
            "A: b\rB: c\r\n",
            "A: \0\r\n",
            "A: \x0b\r\n",
            "A: \x7f\r\n",
            "A: é\r\n",
            "é: b\r\n",
            "Host: other\r\n",
            "(A): b\r\n",
        ] {
            assert_eq!(with(headers), 400, "{headers:?}");
        }
        for request in [
            "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}",
        ] {
            assert_eq!(status_of(request), 400, "{request:?}");
        }
    }

    #[test]
    fn a_request_line_is_a_method_a_path_and_a_known_version() {
        assert_eq!(line("GET /a?b=/../%00 HTTP/1.1"), 200);
        assert_eq!(status_of("GET / HTTP/1.0\r\n\r\n"), 200);
        for unclear in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /",
            "GET / http/1.1",
            "GET / HTTP/x",
            "GET / x HTTP/1.1",
            " GET / HTTP/1.1",
            "GET http://h/ HTTP/1.1",
            "GET h HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET /# HTTP/1.1",
            "G(T / HTTP/1.1",
        ] {
            assert_eq!(line(unclear), 400, "{unclear}");
        }
        for version in ["2.0", "3.0", "1.2", "0.9"] {
            assert_eq!(line(&format!("GET / HTTP/{version}")), 505, "{version}");
        }
        assert_eq!(status_of("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
        for method in ["get", "BREW", "PRI", "PROPFIND", "M-SEARCH"] {
            assert_eq!(line(&format!("{method} / HTTP/1.1")), 200, "{method}");
        }
        assert_eq!(line("CONNECT / HTTP/1.1"), 405);
        assert_eq!(line("CONNECT h:80 HTTP/1.1"), 405);
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_complete() {
        let long = "a".repeat(HEAD_MAX);
        assert_eq!(line(&format!("GET /{} HTTP/1.1", &long[..4096])), 414);
        assert_eq!(status_of(&format!("GET /{long}")), 414);
        assert_eq!(with(&format!("A: {long}\r\n")), 431);
        assert_eq!(
            status_of(&format!("GET / HTTP/1.1\r\nHost: h\r\nA: {long}")),
            431
        );
        assert_eq!(with(&"A: b\r\n".repeat(HEADERS_MAX - 1)), 200);
        assert_eq!(with(&"A: b\r\n".repeat(HEADERS_MAX)), 431);
    }

    #[test]
    fn a_request_is_written_anew_from_what_was_understood() {
        let (head, length) = head_of(REQUEST.as_bytes());

        let text = rewritten(&head, [10, 0, 0, 1]);

        assert_eq!(&REQUEST[length..], "abc");
        assert_eq!(
            text,
            "POST /api/x?y=1 HTTP/1.1\r\nHost: h\r\nX-A: b c\r\nConnection: close\r\n\
             Content-Length: 3\r\nX-Dispatchbox-Peer: 10.0.0.1\r\n\r\n"
        );
    }

    #[test]
    fn nobody_else_says_who_the_peer_is_or_what_becomes_of_the_connection() {
        let request = "GET / HTTP/1.1\r\nHost: h\r\nx-dispatchbox-peer: 127.0.0.1\r\nConnection: upgrade, X-Forwarded-For\r\n\
                       Upgrade: h2c\r\nTE: trailers\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n";
        let (head, _) = head_of(request.as_bytes());

        let text = rewritten(&head, [10, 0, 0, 1]);

        assert_eq!(
            text,
            "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.9\r\nConnection: close\r\n\
             Content-Length: 0\r\nX-Dispatchbox-Peer: 10.0.0.1\r\n\r\n"
        );
    }

    #[test]
    fn a_length_is_one_number_and_nothing_else() {
        assert_eq!(with("Content-Length: 0\r\n"), 200);
        assert_eq!(with("content-length:\t7 \r\n"), 200);
        assert_eq!(with("Content-Length: 1048576\r\n"), 200);
        assert_eq!(with("Content-Length: 1048577\r\n"), 413);
        assert_eq!(with("Content-Length: 1000000000000000\r\n"), 413);
        assert_eq!(with("Content-Length: 99999999999999999999999\r\n"), 413);
        for value in ["+1", "-1", "1, 1", "1,", "0x1", "1 1", "", " ", "1.0", "1;"] {
            assert_eq!(
                with(&format!("Content-Length: {value}\r\n")),
                400,
                "{value}"
            );
        }
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 1\r\n"), 400);
        assert_eq!(with("Content-Length: 1\r\ncontent-length: 2\r\n"), 400);
        for coding in ["chunked", "identity", "", "xchunked", "gzip, chunked"] {
            assert_eq!(with(&format!("Transfer-Encoding: {coding}\r\n")), 411);
        }
        assert_eq!(
            with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            411
        );
    }

    #[test]
    fn a_batch_may_be_larger_where_batches_are_taken() {
        let post = |path: &str, length: u64| {
            status_of(&format!(
                "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
            ))
        };
        assert_eq!(post("/api/dead-events/retry-batch", 4 * MIB), 200);
        assert_eq!(post("/api/dead-events/discard-batch?x", 4 * MIB), 200);
        assert_eq!(post("/api/dead-events/retry-batch", 4 * MIB + 1), 413);
        assert_eq!(post("/api/dead-events/1/retry", MIB + 1), 413);
    }

    #[test]
    fn an_expectation_is_the_known_one_and_needs_a_body() {
        let expects = |headers: &str| {
            let request = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            parse(request.as_bytes())
                .map(|found| found.is_some_and(|(head, _)| head.expects_continue))
        };
        assert_eq!(
            expects("Expect: 100-Continue\r\nContent-Length: 1\r\n"),
            Ok(true)
        );
        assert_eq!(expects("Expect: 100-continue\r\n"), Ok(false));
        assert_eq!(expects("Expect: payment\r\n"), Err(Refusal::EXPECTATION));
        assert_eq!(
            expects("Expect: 100-continue\r\nExpect: x\r\n"),
            Err(Refusal::EXPECTATION)
        );
    }
}
