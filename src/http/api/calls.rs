//! Database calls of the API: few at a time, each with an end.
//!
//! A call has a thread of its own, since a call to a stuck server cannot be ended by its caller:
//! the request is answered in time, and the thread keeps its place until its call has ended. So
//! however long a table is locked or a server stuck, the API holds `CALLS_MAX` threads and
//! connections, a further call waits for a place, `PLACE_MAX` at most, and no thread that answers
//! `/health` ever waits here.
//!
//! Connections are borrowed from a pool, which keeps them open for a while for the next request. A
//! connection that has died meanwhile is replaced before it is lent: otherwise a change that must
//! not be made twice would learn it in the middle.

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{debug, info, warn};
use serde_json::{Value, json};

use crate::http::api::exchange::Reply;
use crate::store::dsn::Dsn;
use crate::store::{Pool, Session, StoreError, StoreErrorKind, Timeouts};
use crate::system::incident::Incident;
use crate::system::threads::{self, Unfinished};

/// Calls under way at most.
pub(in crate::http) const CALLS_MAX: usize = 4;

/// A connection that was unused for this long is closed: an open page asks again within seconds.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// How long a request may wait for a place, from its arrival on. So a page that asks for ten things
/// at once is served in turns, and a client of a stuck database soon gets its refusal.
const PLACE_MAX: Duration = Duration::from_secs(2);

/// How long each part of a call may take.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    query: Duration::from_secs(5),
};

/// A change of many events starts no further batch after this time. A change of a hundred thousand
/// events took half of this time on two busy cores.
pub(in crate::http) const BATCHES_MAX: Duration = Duration::from_secs(10);

/// A change whose batches were too slow, so that it has changed nothing yet, tries a smaller batch
/// until this time: so repetitions of the same request come to an end.
pub(in crate::http) const FIRST_BATCH_MAX: Duration = Duration::from_secs(12);

/// A request waits no longer than this for its call: to connect, for the batches, and for a batch
/// that began at their end.
const ANSWER_MAX: Duration = Duration::from_secs(19);

/// Seconds after which a client may ask again.
const RETRY_AFTER: &str = "1";

/// The way to make calls. Cheap to clone: all clones share the places.
#[derive(Clone)]
pub(in crate::http) struct Calls {
    pool: Pool,
    places: Places,
    /// When the request arrived that the call is for.
    arrived: Instant,
    /// Why the last call failed, so that an outage is logged once.
    incident: Arc<Mutex<Incident<&'static str>>>,
}

impl Calls {
    pub(in crate::http) fn new(dsn: Dsn) -> Calls {
        let size = u16::try_from(CALLS_MAX).ok().and_then(NonZeroU16::new);
        let size = size.unwrap_or(NonZeroU16::MIN);
        Calls {
            pool: Pool::for_seldom(dsn, TIMEOUTS, size, "dispatchbox api", IDLE_MAX),
            places: Places::new(),
            arrived: Instant::now(),
            incident: Arc::default(),
        }
    }

    /// The calls of a request that arrived at this time; they share the places.
    pub(in crate::http) fn of_request(&self, arrived: Instant) -> Calls {
        Calls {
            arrived,
            ..self.clone()
        }
    }

    /// Makes a call and waits for it.
    pub(in crate::http) fn make<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Session) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, CallError> {
        let place = self.places.take_until(self.arrived + PLACE_MAX);
        let place = place.ok_or(CallError::TooMany)?;
        let pool = self.pool.clone();
        let result = threads::within("api", ANSWER_MAX, move || {
            let result = pool.get().and_then(|mut session| call(&mut session));
            // The place is given back before the answer is sent: the client may send its next
            // request at once.
            drop(place);
            result
        });
        match result {
            Ok(Ok(value)) => {
                self.tell(None);
                Ok(value)
            }
            Ok(Err(error)) => Err(self.judge(&error)),
            Err(Unfinished::NotStarted(error)) => {
                debug!("an API call found no thread: {error}");
                Err(CallError::TooMany)
            }
            Err(Unfinished::TooSlow | Unfinished::Panicked) => {
                self.tell(Some(("timeout", "the database does not answer")));
                Err(CallError::TooSlow)
            }
        }
    }

    /// The error that the client gets for a failure. The failure itself is logged, where no
    /// stranger reads it.
    pub(in crate::http) fn judge(&self, error: &StoreError) -> CallError {
        self.tell(Some((error.reason(), &error.to_string())));
        if error.is_schema() {
            CallError::SchemaNotUsable
        } else if error.is_connecting() || error.is_configuration() {
            CallError::Unavailable
        } else if matches!(
            error.kind(),
            StoreErrorKind::TimedOut | StoreErrorKind::Unanswered
        ) || error.is_lock_timeout()
        {
            CallError::TooSlow
        } else if error.is_transient() {
            CallError::Unavailable
        } else {
            CallError::Refused
        }
    }

    /// Logs when an incident begins, changes and ends.
    fn tell(&self, now: Option<(&'static str, &str)>) {
        let mut incident = self.incident.lock().unwrap_or_else(PoisonError::into_inner);
        match now {
            Some((reason, text)) if incident.met(reason) => warn!("an API call failed: {text}"),
            Some((_, text)) => debug!("an API call failed: {text}"),
            None if incident.over().is_some() => info!("API calls succeed again"),
            None => {}
        }
    }
}

/// Why a call has no result, in the fixed words that a client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum CallError {
    /// All places are taken, and none became free in time.
    TooMany,
    /// The database is away, or refuses the connection.
    Unavailable,
    /// The call met a lock or a slow server, or asked for too much.
    TooSlow,
    /// A table, column or function that the program needs is missing.
    SchemaNotUsable,
    /// The server refuses, and waiting does not help: a privilege, a trigger.
    Refused,
}

impl CallError {
    /// The words for it.
    pub(in crate::http) fn text(self) -> &'static str {
        match self {
            CallError::TooMany => "too many API calls at the same time",
            CallError::Unavailable => "database unavailable",
            CallError::TooSlow => "database did not answer in time",
            CallError::SchemaNotUsable => "schema not usable",
            CallError::Refused => "the database refused the call",
        }
    }
}

impl From<CallError> for Reply {
    fn from(error: CallError) -> Reply {
        match error {
            CallError::Refused => Reply::error(500, error.text()),
            CallError::TooMany
            | CallError::Unavailable
            | CallError::TooSlow
            | CallError::SchemaNotUsable => come_again(json!({ "error": error.text() })),
        }
    }
}

/// 503, with the time after which to ask again.
pub(in crate::http) fn come_again(body: Value) -> Reply {
    Reply::of(503, &body).with("Retry-After", RETRY_AFTER)
}

/// The places for calls: a message in the channel is a call under way.
#[derive(Clone)]
struct Places {
    taken: Sender<()>,
    left: Receiver<()>,
}

impl Places {
    fn new() -> Places {
        let (taken, left) = bounded(CALLS_MAX);
        Places { taken, left }
    }

    /// Takes a place, or gives up at the deadline.
    fn take_until(&self, deadline: Instant) -> Option<Place> {
        let taken = self.taken.send_deadline((), deadline);
        taken.ok().map(|()| Place(self.left.clone()))
    }
}

/// One of the places for calls, taken while this lives.
struct Place(Receiver<()>);

impl Drop for Place {
    fn drop(&mut self) {
        // The message is that of this call or that of another one: they are equal.
        let _ = self.0.try_recv();
    }
}
