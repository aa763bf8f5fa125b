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
//! The way there, with its certificates, is in `way`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ureq::http::uri::Scheme;
use ureq::http::{HeaderName, HeaderValue, Response};
use ureq::{Agent, Body, Error, Timeout};

use crate::domain::event::Event;
use crate::handlers::http::answer::Statuses;
use crate::handlers::http::format;
use crate::handlers::http::lookup::Lookup;
use crate::handlers::http::masks::Masks;
use crate::handlers::http::receiver::Receiver;
use crate::handlers::http::request::{Message, Method, Request, RequestSettings};
use crate::handlers::http::secret::{Live, Secret};
use crate::handlers::http::sign::SigningKeys;
use crate::handlers::http::way::{Way, WaySettings};
use crate::handlers::kind::{Build, Deliver};
use crate::handlers::transport::Stale;
use crate::handlers::{HandlerError, Run, in_words};

/// A receiver that does not answer the handshake in this time is away; the rest of the timeout is
/// for its work.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// How long the rest of an answer may take once its status is there.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Idle time after which a connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// Buffers of a connection: an event goes in pieces of this size.
const BUFFER_BYTES: usize = 16 * 1024;

/// An http route.
pub(super) struct Post {
    destination: RwLock<Arc<Destination>>,
    url: Live,
    request: Request,
    method: Method,
    settings: Settings,
    statuses: Statuses,
}

/// What the connections of a route need to know.
struct Settings {
    timeout: Duration,
    n_idle: usize,
    way: Way,
}

/// Where a route's events go, the connections there, and what is sent with each event.
struct Destination {
    agent: Agent,
    receiver: Receiver,
    method: Method,
    /// The same with each event.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What signs.
    keys: SigningKeys,
    /// What is to be shown nowhere.
    masks: Masks,
    /// The beginning of a reason: `POST http://host/…`.
    shown: String,
}

impl Destination {
    /// The way to `receiver`, with the `agent` that leads there already, or with a new one.
    fn new(mut receiver: Receiver, method: Method, request: &Request, agent: Agent) -> Destination {
        let fixed = request.now(receiver.authorization.as_deref());
        let mut masks = std::mem::take(&mut receiver.masks);
        masks.extend(fixed.masks);
        Destination {
            agent,
            shown: format!("{} {}", method.name(), receiver.shown),
            receiver,
            method,
            headers: fixed.headers,
            keys: fixed.keys,
            masks,
        }
    }

    /// The connections of a route.
    fn agent(settings: &Settings) -> Agent {
        let Settings {
            timeout,
            n_idle,
            ref way,
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
        Agent::with_parts(config, way.connections(), Lookup::default())
    }

    /// Sends a message within `timeout`, and once more where the connection was stale.
    fn post(
        &self,
        message: &Message<'_>,
        timeout: Duration,
        usual: Duration,
    ) -> Result<Response<Body>, Error> {
        let began = Instant::now();
        match self.post_once(message, (timeout != usual).then_some(timeout), false) {
            Err(Error::Other(error)) if error.is::<Stale>() => {
                ::log::debug!("event {} is sent once more: {error}", message.event.id);
                let left = timeout.saturating_sub(began.elapsed());
                self.post_once(message, Some(left), true)
            }
            result => result,
        }
    }

    /// Sends a message, within another time than the route's, or on a connection of its own.
    fn post_once(
        &self,
        message: &Message<'_>,
        timeout: Option<Duration>,
        is_fresh: bool,
    ) -> Result<Response<Body>, Error> {
        let event = message.event;
        let mut request = self
            .method
            .begin(&self.agent, self.receiver.url.clone())
            .header("Dispatchbox-Event-Id", event.id)
            .header("Dispatchbox-Attempt", event.attempt);
        let event_type = format::header_text(&event.event_type);
        if event_type.len() <= format::ATTRIBUTE_BYTES_MAX {
            request = request.header("Dispatchbox-Event-Type", event_type);
        }
        for (name, value) in self.headers.iter().chain(&message.headers) {
            request = request.header(name, value);
        }
        if let Some(timeout) = timeout {
            request = request.config().timeout_global(Some(timeout)).build();
        }
        if is_fresh {
            // The others that lie idle are most probably as stale.
            request = request.config().max_idle_age(Duration::ZERO).build();
        }
        request.send(&*message.body)
    }
}

impl Post {
    /// Prepares requests to `url`, which is read again whenever it changes, as are all secrets.
    pub(super) fn new(
        url: &Secret,
        request: &RequestSettings,
        way: &WaySettings,
        statuses: Statuses,
        build: Build<'_>,
    ) -> Result<Post, String> {
        let receiver = Receiver::parse(&url.value)?;
        let url = Live::new("url", url, |text| Receiver::parse(text).map(drop))?;
        let method = request.method;
        let request = Request::new(request, build.database)?;
        if receiver.authorization.is_some() && request.is_authorized() {
            return Err("has a user in its URL and another word of who it is".to_owned());
        }
        // A file may name an https receiver later on.
        let is_https = receiver.url.scheme() == Some(&Scheme::HTTPS) || url.may_change();
        let settings = Settings {
            timeout: build.timeout,
            n_idle: usize::from(build.runners.get()),
            way: way.build(&receiver.url, is_https, build.roots)?,
        };
        let agent = Destination::agent(&settings);
        let destination = Destination::new(receiver, method, &request, agent);
        Ok(Post {
            destination: RwLock::new(Arc::new(destination)),
            url,
            request,
            method,
            settings,
            statuses,
        })
    }
}

impl Deliver for Post {
    /// Sends `event` once.
    fn deliver(&self, event: &Event, run: &Run<'_>) -> Result<(), HandlerError> {
        let destination = self.destination();
        let message = self
            .request
            .message(event, &destination.keys)
            .map_err(HandlerError::Permanent)?;
        match destination.post(&message, run.timeout, self.settings.timeout) {
            Ok(answer) => self
                .statuses
                .result(answer, &destination.shown, &destination.masks),
            Err(error) => Err(HandlerError::retry(format!(
                "{}: {}",
                destination.shown,
                text_of(&error, run.timeout)
            ))),
        }
    }
}

impl Post {
    /// Where events go now.
    fn destination(&self) -> Arc<Destination> {
        let is_other_url = self.url.look();
        if self.request.look() || is_other_url {
            self.renew();
        }
        let destination = self
            .destination
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&destination)
    }

    /// Takes the secrets as they are now. Connections to the same receiver stay.
    fn renew(&self) {
        // The values are read under the lock: of two runners that renew at once the later one has
        // what both have seen.
        let mut destination = self
            .destination
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let receiver = Receiver::parse(&self.url.value()).expect("each url was checked");
        let agent = if receiver.url == destination.receiver.url {
            destination.agent.clone()
        } else {
            Destination::agent(&self.settings)
        };
        *destination = Arc::new(Destination::new(
            receiver,
            self.method,
            &self.request,
            agent,
        ));
    }
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
