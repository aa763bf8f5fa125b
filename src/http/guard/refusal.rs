//! The answers that the guard itself gives to requests that it refuses.

use serde_json::json;

/// Why a request is not passed on to the server behind the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    reason: &'static str,
    error: &'static str,
}

impl Refusal {
    pub(super) const TARGET_TOO_LONG: Refusal =
        Refusal::new(414, "URI Too Long", "the URL is longer than 4 KiB");
    pub(super) const HEAD_TOO_LARGE: Refusal = Refusal::new(
        431,
        "Request Header Fields Too Large",
        "the request head is larger than 8 KiB, or has more than 64 headers",
    );
    pub(super) const BODY_TOO_LARGE: Refusal = Refusal::new(
        413,
        "Content Too Large",
        "the request body is larger than this path allows",
    );
    pub(super) const TRANSFER_ENCODING: Refusal = Refusal::new(
        411,
        "Length Required",
        "a body needs a Content-Length; Transfer-Encoding is not supported",
    );
    pub(super) const EXPECTATION: Refusal = Refusal::new(
        417,
        "Expectation Failed",
        "the only expectation supported is 100-continue",
    );
    pub(super) const METHOD: Refusal = Refusal::new(
        405,
        "Method Not Allowed",
        "the HTTP method is not allowed for this resource",
    );
    pub(super) const VERSION: Refusal = Refusal::new(
        505,
        "HTTP Version Not Supported",
        "only HTTP/1.0 and HTTP/1.1 are supported",
    );
    pub(super) const TOO_SLOW: Refusal = Refusal::new(
        408,
        "Request Timeout",
        "the request was not complete in time",
    );
    pub(super) const BUSY: Refusal = Refusal::new(
        503,
        "Service Unavailable",
        "too many large requests at once",
    );
    pub(super) const NO_ANSWER: Refusal = Refusal::new(
        500,
        "Internal Server Error",
        "the request could not be answered",
    );

    /// A request that is not HTTP, or can be read in more than one way.
    pub(super) const fn malformed(error: &'static str) -> Refusal {
        Refusal::new(400, "Bad Request", error)
    }

    const fn new(status: u16, reason: &'static str, error: &'static str) -> Refusal {
        Refusal {
            status,
            reason,
            error,
        }
    }

    /// The whole answer. `is_head` leaves the body out, as the answer to HEAD must.
    pub(super) fn answer(&self, is_head: bool) -> Vec<u8> {
        let Refusal {
            status,
            reason,
            error,
        } = self;
        let body = json!({ "error": error }).to_string();
        let length = body.len();
        let more = match status {
            405 => "Allow: GET, HEAD, POST\r\n",
            503 => "Retry-After: 1\r\n",
            _ => "",
        };
        let mut answer = format!(
            "HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{more}Content-Length: {length}\r\n\r\n"
        );
        if !is_head {
            answer.push_str(&body);
        }
        answer.into_bytes()
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// For the log.
    pub(super) fn text(&self) -> &'static str {
        self.error
    }
}
