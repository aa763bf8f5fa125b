//! The head of an answer: where it ends, what it says, and how little of it the HTTP client needs
//! to see. Pure.
//!
//! The client's own parser takes 100 header lines, no headers behind a 100, and refuses an answer
//! for a length that it cannot read. The status alone decides about an event, so an answer is
//! refused here only where it has none; everything else makes the connection unfit for the next
//! request.

use std::io::Write as _;

use httparse::{EMPTY_HEADER, Error, Header, ParserConfig, Response, Status};

use crate::handlers::transport::framing::{Framing, framing, length};

/// Longest head. Receivers behind several proxies have some 10 KiB; the limit only keeps an endless
/// head from filling the memory.
pub(super) const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Header lines that are parsed without an allocation.
const USUAL_LINES: usize = 64;

/// Most header lines: as many as 256 KiB hold in practice.
const LINES_MAX: usize = 4096;

/// Longest value that is passed on: a date or a number is shorter.
const VALUE_BYTES_MAX: usize = 128;

/// How much of something that is no HTTP is quoted.
const QUOTE_BYTES_MAX: usize = 40;

/// An answer that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    /// It begins with something else.
    #[error("the answer is not HTTP/1.1: it begins with `{0}`")]
    NoHttp(String),
    /// Its first line or a later one cannot be parsed.
    #[error("the answer's head is not valid HTTP/1.1 ({problem}): it begins with `{quote}`")]
    Invalid {
        /// What the parser says.
        problem: String,
        /// The beginning.
        quote: String,
    },
    /// It is longer than the limit.
    #[error("the answer's head is longer than {} KiB", HEAD_BYTES_MAX / 1024)]
    TooLong,
}

/// What the head of a final answer says that matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    framing: Framing,
    /// Says whether the connection can carry another request once the body is read.
    pub(super) is_reusable: bool,
    retry_after: Option<Vec<u8>>,
    date: Option<Vec<u8>>,
}

/// A whole head at the beginning of some bytes, and its length.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// 1xx other than 101: the answer is still to come.
    Interim(usize),
    Final(usize, Head),
}

/// Looks for a whole head at the beginning of `bytes`. Nothing behind the blank line that ends it
/// is looked at. `seen` is how much has been searched for that line before.
pub(super) fn find(bytes: &[u8], seen: usize) -> Result<Option<Found>, BadHead> {
    let n_blank = blank_bytes(bytes);
    let bytes = &bytes[n_blank..];
    let prefix = &bytes[..bytes.len().min(5)];
    if !b"HTTP/".starts_with(prefix) {
        return Err(BadHead::NoHttp(quote(bytes)));
    }
    let Some(end) = end_of_head(bytes, seen.saturating_sub(n_blank)) else {
        return if bytes.len() > HEAD_BYTES_MAX {
            Err(BadHead::TooLong)
        } else {
            Ok(None)
        };
    };
    if end > HEAD_BYTES_MAX {
        return Err(BadHead::TooLong);
    }
    parse(&bytes[..end]).map(|head| {
        let length = n_blank + end;
        Some(head.map_or(Found::Interim(length), |head| Found::Final(length, head)))
    })
}

/// Empty lines before a status line, which some receivers leave behind the answer before.
fn blank_bytes(bytes: &[u8]) -> usize {
    let is_blank = |byte: &&u8| matches!(**byte, b'\r' | b'\n');
    bytes.iter().take_while(is_blank).count()
}

/// Finds the end of the first blank line, searching from a little before `seen`.
fn end_of_head(bytes: &[u8], seen: usize) -> Option<usize> {
    let mut at = seen.saturating_sub(3);
    while let Some(next) = bytes.get(at..)?.iter().position(|byte| *byte == b'\n') {
        at += next + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn quote(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(QUOTE_BYTES_MAX)]
        .escape_ascii()
        .to_string()
}

/// Parses a whole head; `None` for an interim one.
fn parse(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
    let mut usual = [EMPTY_HEADER; USUAL_LINES];
    let mut many = Vec::new();
    let mut lines: &mut [Header<'_>] = &mut usual;
    let mut result = parse_into(bytes, lines);
    if matches!(result, Err(Error::TooManyHeaders)) {
        many.resize(LINES_MAX, EMPTY_HEADER);
        lines = &mut many;
        result = parse_into(bytes, lines);
    }
    let invalid = |problem: String| BadHead::Invalid {
        problem,
        quote: quote(bytes),
    };
    let (status, is_http10, n_lines) = result.map_err(|error| invalid(error.to_string()))?;
    match status {
        0..100 => Err(invalid(format!("there is no status {status:03}"))),
        101 | 200.. => Ok(Some(Head::of(status, is_http10, &lines[..n_lines]))),
        100 | 102..200 => Ok(None),
    }
}

/// Parses a head and gives its status, whether it is HTTP/1.0, and the number of its header lines.
fn parse_into<'b>(bytes: &'b [u8], lines: &mut [Header<'b>]) -> Result<(u16, bool, usize), Error> {
    let mut answer = Response::new(lines);
    let parsed = ParserConfig::default()
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .ignore_invalid_headers_in_responses(true)
        .parse_response(&mut answer, bytes)?;
    match (parsed, answer.code, answer.version) {
        (Status::Complete(_), Some(code), Some(version)) => {
            Ok((code, version == 0, answer.headers.len()))
        }
        // The blank line is there, so what is missing is the status line.
        _ => Err(Error::Status),
    }
}

impl Head {
    fn of(status: u16, is_http10: bool, lines: &[Header<'_>]) -> Head {
        let values = |name: &'static str| {
            lines
                .iter()
                .filter(move |line| line.name.eq_ignore_ascii_case(name))
                .map(|line| line.value)
        };
        let first = |name| {
            values(name)
                .next()
                .filter(|value| value.len() <= VALUE_BYTES_MAX && !is_folded(value))
                .map(<[u8]>::to_vec)
        };
        let has_word = |name, word: &str| {
            values(name)
                .flat_map(|value| value.split(|byte| *byte == b','))
                .any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        let (framing, is_clear) = framing(
            status,
            is_http10,
            length(values("content-length")),
            values("transfer-encoding").next_back(),
        );
        let is_kept = if is_http10 {
            has_word("connection", "keep-alive")
        } else {
            !has_word("connection", "close")
        };
        Head {
            status,
            framing,
            is_reusable: is_clear && is_kept && status != 101,
            retry_after: first("retry-after"),
            date: first("date"),
        }
    }

    /// Says whether the status allows no body. A receiver that sends one all the same sends it
    /// behind the head.
    pub(super) fn is_bodiless(&self) -> bool {
        self.framing == Framing::NoBody
    }

    /// Writes the head with the fields that the client needs.
    pub(super) fn write(&self, buffer: &mut [u8]) -> usize {
        let size = buffer.len();
        let mut rest: &mut [u8] = buffer;
        // It has some 400 bytes; a buffer holds 16 KiB.
        let _ = write!(rest, "HTTP/1.1 {} \r\n", self.status);
        let _ = match self.framing {
            Framing::Length(length) => write!(rest, "Content-Length: {length}\r\n"),
            Framing::Chunked => write!(rest, "Transfer-Encoding: chunked\r\n"),
            Framing::NoBody => write!(rest, "Content-Length: 0\r\n"),
            Framing::UntilClose => Ok(()),
        };
        if !self.is_reusable {
            let _ = rest.write_all(b"Connection: close\r\n");
        }
        for (name, value) in [("Retry-After", &self.retry_after), ("Date", &self.date)] {
            if let Some(value) = value {
                let _ = write!(rest, "{name}: ");
                let _ = rest.write_all(value);
                let _ = rest.write_all(b"\r\n");
            }
        }
        let _ = rest.write_all(b"\r\n");
        size - rest.len()
    }
}

/// Says whether a value goes over several lines, which is obsolete, and which the client refuses.
fn is_folded(value: &[u8]) -> bool {
    value.iter().any(|byte| matches!(byte, b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head as the client sees it.
    #[track_caller]
    fn passed_on(text: &str) -> String {
        match find(text.as_bytes(), 0) {
            Ok(Some(Found::Final(_, head))) => {
                let mut buffer = [0; 1024];
                let n = head.write(&mut buffer);
                String::from_utf8_lossy(&buffer[..n]).replace("\r\n", "|")
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn only_what_the_client_needs_is_passed_on() {
        for (head, expected) in [
            (
                "HTTP/1.1 503 Busy\r\nX: y\r\nContent-Length: 7\r\nRetry-After: 3\r\nDate: x\r\n\r\nbecause",
                "HTTP/1.1 503 |Content-Length: 7|Retry-After: 3|Date: x||",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n",
                "HTTP/1.1 200 |Transfer-Encoding: chunked||",
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length : 5\n\n",
                "HTTP/1.1 200 |Content-Length: 5||",
            ),
            (
                "\r\n\r\nHTTP/1.1 204\r\n\r\n",
                "HTTP/1.1 204 |Content-Length: 0||",
            ),
            (
                "HTTP/1.1 503 x\r\nRetry-After: 5\r\n folded\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 503 |Content-Length: 0||",
            ),
            (
                "HTTP/1.1 429 x\r\nRetry-After: 5\r\nRetry-After: 99\r\nContent-Length: 3, 3\r\n\r\n",
                "HTTP/1.1 429 |Content-Length: 3|Retry-After: 5||",
            ),
        ] {
            assert_eq!(passed_on(head), expected, "{head}");
        }
    }

    #[test]
    fn an_answer_whose_end_is_uncertain_ends_its_connection() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        ] {
            assert!(passed_on(head).contains("|Connection: close|"), "{head}");
        }
        let kept = "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n";
        assert!(!passed_on(kept).contains("close"));
    }

    #[test]
    fn an_interim_answer_is_told_from_a_final_one() {
        for status in [100, 102, 103, 199] {
            let head = format!("HTTP/1.1 {status} x\r\nLink: </a>\r\n\r\nHTTP");
            let found = find(head.as_bytes(), 0);
            assert_eq!(found, Ok(Some(Found::Interim(head.len() - 4))), "{status}");
        }
    }

    #[test]
    fn a_head_is_found_wherever_it_was_cut_before() {
        let head = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(find(&head[..cut], 0), Ok(None), "{cut}");
            assert_eq!(find(head, cut), find(head, 0), "{cut}");
        }
    }

    #[test]
    fn what_is_no_answer_is_told_with_its_beginning() {
        let check = |bytes: &[u8], expected: &str| {
            let problem = find(bytes, 0).expect_err("this is refused").to_string();
            assert!(problem.contains(expected), "{problem}");
        };

        check(b"220 mail", "is not HTTP/1.1: it begins with `220 mail`");
        check(b"\0\0\x06\x04", r"begins with `\x00\x00\x06\x04`");
        check(b"HTTP/2 200 OK\r\n\r\n", "not valid HTTP/1.1");
        check(b"HTTP/1.1 000 x\r\n\r\n", "there is no status 000");
        check(b"HTTP/1.1 abc\r\n\r\n", "not valid HTTP/1.1");
        check(
            format!("HTTP/1.1 200 OK\r\n{}", "x".repeat(HEAD_BYTES_MAX)).as_bytes(),
            "longer than 256 KiB",
        );
    }

    #[test]
    fn a_head_of_many_lines_is_read_up_to_the_limit() {
        let head = |n| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(n));
        for n in [0, 64, 65, 300, 4096] {
            assert!(matches!(
                find(head(n).as_bytes(), 0),
                Ok(Some(Found::Final(..)))
            ));
        }
        assert!(find(head(4097).as_bytes(), 0).is_err());
    }
}
