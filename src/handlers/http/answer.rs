//! The meaning of an answer: its status decides, its body is quoted.

use std::io::Read as _;
use std::time::{Duration, SystemTime};

use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode, header};

use crate::domain::text::{ellipsis, first_bytes};
use crate::handlers::HandlerError;
use crate::handlers::http::masks::Masks;

/// How much of an answer is read. More would only be thrown away; the connection is closed instead.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// How much of an answer is quoted in a reason.
const QUOTE_BYTES_MAX: usize = 1024;

/// What statuses mean beyond 2xx, which is done, and the rest, which is worth another attempt.
pub(super) struct Statuses {
    /// The event is done.
    pub(super) done: Vec<u16>,
    /// The event is dead at once.
    pub(super) dead: Vec<u16>,
}

impl Statuses {
    /// Turns an answer to `request`, such as `POST http://host/…`, into the result of the run.
    pub(super) fn result(
        &self,
        mut answer: Response<Body>,
        request: &str,
        masks: &Masks,
    ) -> Result<(), HandlerError> {
        let status = answer.status();
        let body = read(answer.body_mut());
        if status.is_success() || self.done.contains(&status.as_u16()) {
            return Ok(());
        }
        // Masked before it is cut: half a secret would stay.
        let body = masks.apply(&String::from_utf8_lossy(&body));
        let reason = reason(request, status, &body);
        if self.dead.contains(&status.as_u16()) {
            return Err(HandlerError::Permanent(reason));
        }
        let after = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        )
        .then(|| retry_after(answer.headers(), SystemTime::now()))
        .flatten();
        Err(HandlerError::Retry { reason, after })
    }
}

fn reason(request: &str, status: StatusCode, body: &str) -> String {
    let name = status
        .canonical_reason()
        .map_or_else(String::new, |name| format!(" {name}"));
    let body = body.trim();
    let quote = first_bytes(body, QUOTE_BYTES_MAX);
    let colon = if quote.is_empty() { "" } else { ": " };
    let cut = ellipsis(body, quote);
    format!("{request}: {}{name}{colon}{quote}{cut}", status.as_u16())
}

/// Reads an answer up to the limits; what came before an error counts.
fn read(body: &mut Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Reading to the end is what lets the connection be used again; short of it, dropping the
    // answer closes the connection.
    let _ = body
        .as_reader()
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut bytes);
    bytes
}

/// How long the receiver wants to be left alone: a number of seconds, or a date.
///
/// A date is counted from the answer's own `Date`, so that the receiver's clock cancels out;
/// without one, from the local clock, which is the only other witness of when the answer came.
/// Neither decides about anything but this wait. No time at all is no wish: taken at its word it
/// would use up all attempts within a moment.
pub(in crate::handlers) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let wish = text(header::RETRY_AFTER)?;
    let after = if !wish.is_empty() && wish.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only too many digits fail; the route's cap makes sense of it.
        wish.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(wish).ok()?;
        let from = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        until.duration_since(from.unwrap_or(now)).ok()?
    };
    (!after.is_zero()).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_wish_is_seconds_or_a_date_counted_from_its_own_clock() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let check = |wish: &str, date: Option<SystemTime>, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, wish.parse().expect("a header's value"));
            if let Some(date) = date {
                let date = httpdate::fmt_http_date(date);
                headers.insert(header::DATE, date.parse().expect("a header's value"));
            }
            assert_eq!(retry_after(&headers, now), expected, "{wish}");
        };
        let seconds = |n| Some(Duration::from_secs(n));
        let date = |n| httpdate::fmt_http_date(now + Duration::from_secs(n));

        check("120", None, seconds(120));
        check(" 7 ", None, seconds(7));
        check("99999999999999999999999", None, Some(Duration::MAX));
        check(&date(90), None, seconds(90));
        // A receiver whose clock is a day ahead still means 90 seconds.
        let tomorrow = now + Duration::from_hours(24);
        check(&date(24 * 3600 + 90), Some(tomorrow), seconds(90));
        for no_wish in ["0", "", "-1", "1.5", "soon", &date(0)] {
            check(no_wish, None, None);
        }
        check(&date(90), Some(tomorrow), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
