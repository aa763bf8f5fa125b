//! A few connections, lent one at a time.
//!
//! What r2d2 holds are slots, and a slot connects in the thread that borrows it, at its first use. So a failure reaches the one who asks,
//! with its cause and at once, instead of a time-out after background threads have retried; waiting and trying again are the caller's
//! business, who alone knows what else there is to do. And nothing here can be used up by connections that hang.

use std::convert::Infallible;
use std::num::NonZeroU16;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::connect::{Session, Timeouts, connect};
use super::dsn::Dsn;
use super::error::{DOING_CONNECT, StoreError};

/// A few connections to one database.
#[derive(Clone)]
pub struct Pool {
    slots: r2d2::Pool<Slots>,
}

/// A borrowed connection; it returns by being dropped, and is closed instead if it is broken.
pub struct PooledSession {
    slot: r2d2::PooledConnection<Slots>,
}

impl Pool {
    /// Makes a pool of at most `size` connections; opens none yet.
    pub fn new(dsn: Dsn, timeouts: Timeouts, size: NonZeroU16, application_name: &str) -> Pool {
        let connection_timeout = timeouts.connect_all(&dsn);
        let target = Target {
            dsn,
            timeouts,
            application_name: application_name.to_owned(),
        };
        let slots = r2d2::Pool::builder()
            .max_size(u32::from(size.get()))
            .test_on_check_out(false)
            .connection_timeout(connection_timeout)
            // A connection keeps what it has learned (statements, plans, which leases stand): no reason to throw that away.
            .idle_timeout(None)
            .max_lifetime(None)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(Slots(Arc::new(target)));
        Pool { slots }
    }

    /// The most connections it opens.
    pub fn size(&self) -> u32 {
        self.slots.max_size()
    }

    /// Lends a connection, opening it if need be; waits for a free one no longer than a connection attempt may take.
    pub fn get(&self) -> Result<PooledSession, StoreError> {
        let mut slot = self.slots.get().map_err(|_| {
            let limit = self.slots.connection_timeout().as_secs_f64();
            let cause = format!("no connection of the pool was free within {limit} s");
            StoreError::timed_out(DOING_CONNECT, cause)
        })?;
        slot.open()?;
        Ok(PooledSession { slot })
    }
}

impl Deref for PooledSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.slot.session.as_ref().expect(OPEN)
    }
}

impl DerefMut for PooledSession {
    fn deref_mut(&mut self) -> &mut Session {
        self.slot.session.as_mut().expect(OPEN)
    }
}

/// Why a borrowed slot holds a session.
const OPEN: &str = "get opens a slot before it lends it";

/// Where and how to connect.
struct Target {
    dsn: Dsn,
    timeouts: Timeouts,
    application_name: String,
}

/// A place for one connection.
struct Slot {
    target: Arc<Target>,
    session: Option<Session>,
}

impl Slot {
    fn open(&mut self) -> Result<(), StoreError> {
        if self.session.is_none() {
            let target = &self.target;
            let session = connect(&target.dsn, &target.timeouts, &target.application_name)?;
            self.session = Some(session);
        }
        Ok(())
    }
}

/// Makes slots, which cannot fail.
struct Slots(Arc<Target>);

impl r2d2::ManageConnection for Slots {
    type Connection = Slot;
    type Error = Infallible;

    fn connect(&self) -> Result<Slot, Infallible> {
        Ok(Slot {
            target: Arc::clone(&self.0),
            session: None,
        })
    }

    fn is_valid(&self, _: &mut Slot) -> Result<(), Infallible> {
        Ok(())
    }

    /// Called when a slot comes back: closes a broken connection and keeps the slot, which will open another.
    fn has_broken(&self, slot: &mut Slot) -> bool {
        if slot.session.as_ref().is_some_and(Session::is_broken) {
            slot.session = None;
        }
        false
    }
}
