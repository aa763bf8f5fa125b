//! Is the database usable now? One look a second, shared by all who ask.
//!
//! A thread of its own looks, because a call to a stuck server cannot be ended by the caller: who asks waits a bounded time and
//! then gets "not connected". Nobody asks, nobody looks: an idle daemon without a load balancer costs its database nothing.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::debug;

use crate::store::dsn::Dsn;
use crate::store::{self, Session, StoreError, Timeouts};

/// An answer is shared for this long.
const FRESH: Duration = Duration::from_secs(1);

/// Bounds the connect, and again the query, of one look.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Who asks waits at most this long for a look under way.
const ASK_MAX: Duration = Duration::from_millis(4500);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Database {
    /// Connected, and everything is there.
    Usable,
    /// No answer, or a refusal.
    NotConnected,
    /// Something that the program needs is missing.
    SchemaNotUsable,
}

/// The way to ask. Cheap to clone.
#[derive(Clone)]
pub(super) struct Probe {
    shared: Arc<Shared>,
    look: Sender<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    found: Option<(Database, Instant)>,
    looking_since: Option<Instant>,
}

impl Probe {
    /// Starts the thread; it ends when the last `Probe` is dropped and its look, if it is in one, has returned.
    pub(super) fn start(dsn: Dsn) -> io::Result<Probe> {
        let shared = Arc::new(Shared::default());
        let (look, looks) = bounded(1);
        let looked = Arc::clone(&shared);
        thread::Builder::new()
            .name("probe".into())
            .spawn(move || run(&dsn, &looks, &looked))?;
        Ok(Probe { shared, look })
    }

    /// What the database is like now, or was within the last second.
    pub(super) fn ask(&self) -> Database {
        let deadline = Instant::now() + ASK_MAX;
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            if let Some((found, at)) = state.found
                && now.duration_since(at) < FRESH
            {
                return found;
            }
            match state.looking_since {
                // A look that is out this long will not become good news for this asker.
                Some(since) if now.duration_since(since) >= ASK_MAX => {
                    return Database::NotConnected;
                }
                Some(_) => {}
                None => {
                    state.looking_since = Some(now);
                    // The channel is empty: only who sets `looking_since` sends.
                    let _ = self.look.try_send(());
                }
            }
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Database::NotConnected;
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn run(dsn: &Dsn, looks: &Receiver<()>, shared: &Shared) {
    let mut session = None;
    for () in looks {
        let found = look(dsn, &mut session);
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.found = Some((found, Instant::now()));
        state.looking_since = None;
        shared.changed.notify_all();
    }
}

fn look(dsn: &Dsn, session: &mut Option<Session>) -> Database {
    // An idle connection may have died unnoticed: a second try on a fresh one tells that from a database that is away.
    for _ in 0..2 {
        let was_idle = session.is_some();
        match try_look(dsn, session) {
            Ok(found) => return found,
            Err(error) => {
                debug!("readiness: {error}");
                *session = None;
                if !was_idle {
                    break;
                }
            }
        }
    }
    Database::NotConnected
}

fn try_look(dsn: &Dsn, session: &mut Option<Session>) -> Result<Database, StoreError> {
    let timeouts = Timeouts {
        connect: LOOK_MAX,
        query: LOOK_MAX,
    };
    let session = match session {
        Some(session) => session,
        None => session.insert(store::connect(dsn, &timeouts, "dispatchbox ready")?),
    };
    let is_complete = session.missing_schema()?.is_empty();
    Ok(if is_complete {
        Database::Usable
    } else {
        Database::SchemaNotUsable
    })
}
