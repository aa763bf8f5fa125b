//! The POST of an event: its connection, its time, and the meaning of the answer.
//!
//! **Time.** The timeout bounds the whole run, from the name's lookup to the last byte of the
//! answer that is read, however slowly it drips. Once the status is there the receiver has spoken,
//! so what follows can no longer change the outcome: at most 64 KiB of it, and at most 2 s, are
//! read, to quote its beginning and to keep the connection.
//!
//! **Connections** are kept and used again, for a minute at most: then the name is asked anew. One
//! that lies idle for 2 s is closed, before common receivers close theirs (5 s and more), and an
//! idle one is looked at before it is used. What is left is a receiver that closes in the very
//! moment of the next request. The request is then sent once more on a new connection, within the
//! same attempt, and only if it was sent on a connection that had been used before and no byte of
//! an answer came: a receiver that took the event and died of it looks the same, so this is no more
//! than one repetition, which at least once allows. What else connections do is in
//! [`crate::handlers::transport`].
//!
//! **TLS** trusts the certificates that the host trusts ([`Trust`]), because receivers are often
//! internal.

use std::io::Read as _;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use ureq::http::uri::Scheme;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body, Error, Timeout};

use crate::domain::event::Event;
use crate::domain::text::{ellipsis, first_bytes};
use crate::handlers::http::lookup::Lookup;
use crate::handlers::http::receiver::Receiver;
use crate::handlers::http::url_file::UrlFile;
use crate::handlers::kind::{Build, Deliver};
use crate::handlers::transport::{Connections, LIFE, Stale, Trust};
use crate::handlers::{HandlerError, Run, in_words};

/// A receiver that does not answer the handshake in this time is away; the rest of the timeout is
/// for its work.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// How much of an answer is read. More would only be thrown away; the connection is closed instead.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// How long the rest of an answer may take once its status is there.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// How much of an answer is quoted in a reason.
const QUOTE_BYTES_MAX: usize = 1024;

/// The longest event type that goes as a header. Many receivers take 8 KiB in a line, or in all
/// headers; the body has the type in any case.
const EVENT_TYPE_BYTES_MAX: usize = 4 * 1024;

/// Idle time after which a connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// Buffers of a connection: an event goes in pieces of this size.
const BUFFER_BYTES: usize = 16 * 1024;

/// An http route.
pub(super) struct Post {
    destination: RwLock<Arc<Destination>>,
    file: Option<UrlFile>,
    settings: Settings,
    dead_statuses: Vec<u16>,
}

/// What the connections of a route need to know.
struct Settings {
    timeout: Duration,
    n_idle: usize,
    trust: Option<Arc<Trust>>,
}

/// Where a route's events go, and the connections there.
struct Destination {
    agent: Agent,
    receiver: Receiver,
}

impl Destination {
    fn new(receiver: Receiver, settings: &Settings) -> Destination {
        let Settings {
            timeout,
            n_idle,
            ref trust,
        } = *settings;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("dispatchbox/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(n_idle)
            .max_idle_connections_per_host(n_idle)
            .max_idle_age(IDLE_MAX)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .timeout_global(Some(timeout))
            .timeout_resolve(Some(timeout.min(CONNECT_TIMEOUT_MAX)))
            .timeout_connect(Some(timeout.min(CONNECT_TIMEOUT_MAX)))
            .timeout_recv_body(Some(timeout.min(ANSWER_TIME_MAX)))
            .build();
        let connections = Connections::new(trust.clone(), LIFE);
        Destination {
            agent: Agent::with_parts(config, connections, Lookup::default()),
            receiver,
        }
    }

    /// Sends `event` within `timeout`, and once more where the connection was stale.
    fn post(
        &self,
        event: &Event,
        timeout: Duration,
        usual: Duration,
    ) -> Result<Response<Body>, Error> {
        let body = event.to_json();
        let began = Instant::now();
        match self.post_once(event, &body, (timeout != usual).then_some(timeout), false) {
            Err(Error::Other(error)) if error.is::<Stale>() => {
                ::log::debug!("event {} is sent once more: {error}", event.id);
                let left = timeout.saturating_sub(began.elapsed());
                self.post_once(event, &body, Some(left), true)
            }
            result => result,
        }
    }

    /// Sends `event`, within another time than the route's, or on a connection of its own.
    fn post_once(
        &self,
        event: &Event,
        body: &str,
        timeout: Option<Duration>,
        is_fresh: bool,
    ) -> Result<Response<Body>, Error> {
        let mut request = self
            .agent
            .post(self.receiver.url.clone())
            .content_type("application/json")
            .header("Dispatchbox-Event-Id", event.id)
            .header("Dispatchbox-Attempt", event.attempt);
        let event_type = header_text(&event.event_type);
        if event_type.len() <= EVENT_TYPE_BYTES_MAX {
            request = request.header("Dispatchbox-Event-Type", event_type);
        }
        if let Some(authorization) = &self.receiver.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(timeout) = timeout {
            request = request.config().timeout_global(Some(timeout)).build();
        }
        if is_fresh {
            // The others that lie idle are most probably as stale.
            request = request.config().max_idle_age(Duration::ZERO).build();
        }
        request.send(body)
    }
}

impl Post {
    /// Prepares POSTs to `url`, which is read again from `file` whenever that changes.
    pub(super) fn new(
        url: &str,
        file: Option<&str>,
        dead_statuses: &[u16],
        build: Build<'_>,
    ) -> Result<Post, String> {
        let receiver = Receiver::parse(url)?;
        let file = file.map(UrlFile::new);
        // A file may name an https receiver later on.
        let is_https = receiver.url.scheme() == Some(&Scheme::HTTPS);
        let trust = (is_https || file.is_some())
            .then(|| build.roots.get())
            .transpose()?;
        let settings = Settings {
            timeout: build.timeout,
            n_idle: usize::from(build.runners.get()),
            trust,
        };
        Ok(Post {
            destination: RwLock::new(Arc::new(Destination::new(receiver, &settings))),
            file,
            settings,
            dead_statuses: dead_statuses.to_vec(),
        })
    }
}

impl Deliver for Post {
    /// Sends `event` once.
    fn deliver(&self, event: &Event, run: &Run<'_>) -> Result<(), HandlerError> {
        let destination = self.destination();
        let receiver = &destination.receiver;
        match destination.post(event, run.timeout, self.settings.timeout) {
            Ok(answer) => self.result_of_answer(receiver, answer),
            Err(error) => Err(HandlerError::retry(format!(
                "POST {}: {}",
                receiver.shown,
                text_of(&error, run.timeout)
            ))),
        }
    }
}

impl Post {
    /// Where events go now.
    fn destination(&self) -> Arc<Destination> {
        if let Some(file) = &self.file {
            file.look(|url| {
                let destination = Destination::new(Receiver::parse(url)?, &self.settings);
                *self
                    .destination
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = Arc::new(destination);
                Ok(())
            });
        }
        let destination = self
            .destination
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&destination)
    }

    fn result_of_answer(
        &self,
        receiver: &Receiver,
        mut answer: Response<Body>,
    ) -> Result<(), HandlerError> {
        let status = answer.status();
        let body = read(answer.body_mut());
        if status.is_success() {
            return Ok(());
        }
        let reason = reason(receiver, status, &body);
        if self.dead_statuses.contains(&status.as_u16()) {
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

fn reason(receiver: &Receiver, status: StatusCode, body: &[u8]) -> String {
    let name = status
        .canonical_reason()
        .map_or_else(String::new, |name| format!(" {name}"));
    // Masked before it is cut: half a secret would stay.
    let body = receiver.masked(&String::from_utf8_lossy(body));
    let body = body.trim();
    let quote = first_bytes(body, QUOTE_BYTES_MAX);
    let colon = if quote.is_empty() { "" } else { ": " };
    let cut = ellipsis(body, quote);
    format!(
        "POST {}: {}{name}{colon}{quote}{cut}",
        receiver.shown,
        status.as_u16()
    )
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

/// An event type as a header can carry it: what is not visible ASCII, and `%` itself, is
/// percent-encoded.
fn header_text(event_type: &str) -> String {
    const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
    utf8_percent_encode(event_type, ENCODED).to_string()
}

/// How long the receiver wants to be left alone: a number of seconds, or a date.
///
/// A date is counted from the answer's own `Date`, so that the receiver's clock cancels out;
/// without one, from the local clock, which is the only other witness of when the answer came.
/// Neither decides about anything but this wait. No time at all is no wish: taken at its word it
/// would use up all attempts within a moment.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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

/// The client's error in the words of the other handlers.
fn text_of(error: &Error, timeout: Duration) -> String {
    let connecting = in_words(timeout.min(CONNECT_TIMEOUT_MAX));
    if let Error::Timeout(Timeout::Resolve) = error {
        format!("could not look up the host within {connecting}")
    } else if let Error::Timeout(Timeout::Connect) = error {
        format!("could not connect within {connecting}")
    } else if let Error::Timeout(_) = error {
        format!("timed out after {}", in_words(timeout))
    } else if let Error::Io(error) = error {
        error.to_string()
    } else if let Error::Other(error) = error {
        error.to_string()
    } else if let Error::BadUri(_) = error {
        // Its text repeats the URL.
        "the URL is not valid".to_owned()
    } else {
        error.to_string()
    }
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

    #[test]
    fn an_event_type_cannot_add_a_header() {
        assert_eq!(header_text("order.created"), "order.created");
        assert_eq!(header_text("a\r\nX: y%ü"), "a%0D%0AX:%20y%25%C3%BC");
    }
}
