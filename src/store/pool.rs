//! A few connections, lent one at a time and kept warm between two calls.
//!
//! r2d2 holds the connections and opens them in threads of its own. Three of its properties would
//! be harmful. It repeats a failed connect by itself, with growing waits, and the caller gets only
//! a timeout. A connect that hangs takes up a place of the pool for ever. A connect that panics
//! does so, too.
//!
//! Therefore the manager hands r2d2 the result of an attempt, a session or the reason why there is
//! none, and no attempt fails as r2d2 sees it. Each attempt ends within the connect timeout
//! ([`connect`] runs it in a thread of its own). The caller gets the reason at once, and the place
//! is free again. The caller decides whether it waits and tries again, since only it knows what
//! else there is to do.
//!
//! A connection that the server has closed while it was in the pool, because it was idle for too
//! long for instance, is replaced before it is lent. That is no failure, and it is not reported.
//!
//! What makes more than one call over time borrows from a pool, a session for each call. A caller
//! that needs the same session each time, because a session remembers something, has a pool of one
//! connection to itself. What connects once and ends with its work opens a session by [`connect`].

use std::convert::Infallible;
use std::num::NonZeroU16;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scheduled_thread_pool::ScheduledThreadPool;

use crate::store::connect::connect;
use crate::store::dsn::Dsn;
use crate::store::error::{DOING_CONNECT, StoreError};
use crate::store::session::{IDLE, Session, Timeouts};
use crate::system::pause::sleep_uninterruptibly;

/// The interval at which a waiting caller looks for a free place: a place that becomes free by the
/// loss of its connection wakes no caller.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The interval at which a waiting caller checks whether a connect under way has ended.
const CONNECT_LOOK: Duration = Duration::from_millis(10);

/// Connects under way at once: each pool waits for its own alone.
const THREADS_MAX: usize = 3;

/// A connect ends this much late at most: its thread has to come to it.
const SLACK: Duration = Duration::from_secs(1);

/// A few connections to one database.
#[derive(Clone)]
pub struct Pool {
    places: r2d2::Pool<Manager>,
    demand: Arc<Demand>,
    /// Longest wait for a connection.
    wait_max: Duration,
    /// The idle time after which the server is asked whether a connection still works.
    ask_after: Duration,
}

/// A borrowed connection; it returns by being dropped, and is closed instead if it is broken.
pub struct PooledSession {
    place: r2d2::PooledConnection<Manager>,
}

/// The number of waiting callers and of connects under way. r2d2 begins a connect for each request
/// that it cannot serve. Therefore it is asked only while fewer connects are under way than callers
/// wait, or a slow connect would fill the pool.
#[derive(Debug, Default)]
struct Demand {
    waiting: AtomicUsize,
    connecting: AtomicUsize,
}

/// Counts itself while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn begin(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Makes a pool of at most `size` connections; opens none yet, and none that is not asked for.
    pub fn new(dsn: Dsn, timeouts: Timeouts, size: NonZeroU16, application_name: &str) -> Pool {
        Pool::with_idle_limit(dsn, timeouts, size, application_name, None)
    }

    /// Makes a pool for rare calls: a connection that was not borrowed for this long is closed, and
    /// so is one whose buffer has grown with a large answer.
    pub fn for_seldom(
        dsn: Dsn,
        timeouts: Timeouts,
        size: NonZeroU16,
        application_name: &str,
        idle_max: Duration,
    ) -> Pool {
        Pool::with_idle_limit(dsn, timeouts, size, application_name, Some(idle_max))
    }

    fn with_idle_limit(
        dsn: Dsn,
        timeouts: Timeouts,
        size: NonZeroU16,
        application_name: &str,
        idle_max: Option<Duration>,
    ) -> Pool {
        // A connect that ends just in time is still worth waiting for.
        let wait_max = timeouts.connect_all(&dsn) + SLACK;
        let demand = Arc::new(Demand::default());
        let manager = Manager {
            dsn,
            timeouts,
            application_name: application_name.to_owned(),
            is_for_seldom: idle_max.is_some(),
            demand: Arc::clone(&demand),
        };
        let threads = ScheduledThreadPool::builder()
            .num_threads(usize::from(size.get()).min(THREADS_MAX))
            .thread_name_pattern("pool-{}")
            .build();
        let places = r2d2::Pool::builder()
            .max_size(u32::from(size.get()))
            .thread_pool(Arc::new(threads))
            .min_idle(Some(0))
            .test_on_check_out(false)
            .idle_timeout(idle_max)
            // A connection keeps what it has learned (statements, plans, which leases stand): no
            // reason to throw that away.
            .max_lifetime(None)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager);
        Pool {
            places,
            demand,
            wait_max,
            ask_after: IDLE,
        }
    }

    /// Sets the idle time after which the server is asked whether a connection still works, for
    /// what borrows from this pool or from a clone of it.
    #[must_use]
    pub fn asked_after(self, idle: Duration) -> Pool {
        Pool {
            ask_after: idle,
            ..self
        }
    }

    /// Lends a connection, opening it if need be; waits for a free one no longer than a connection
    /// attempt may take.
    pub fn get(&self) -> Result<PooledSession, StoreError> {
        self.get_since(&mut Instant::now())
    }

    /// Lends a connection as [`Pool::get`] does; after an error `began` says when the attempt began
    /// that failed, which may have been for another borrower.
    pub fn get_since(&self, began: &mut Instant) -> Result<PooledSession, StoreError> {
        let asked = Instant::now();
        let _waiting = Counted::begin(&self.demand.waiting);
        loop {
            let left = self.wait_max.saturating_sub(asked.elapsed());
            let Some(mut place) = self.ask(left) else {
                if left > LOOK_EVERY {
                    continue;
                }
                let limit = self.wait_max.saturating_sub(SLACK).as_secs_f64();
                let cause = format!("no connection of the pool was free within {limit} s");
                return Err(StoreError::timed_out(DOING_CONNECT, cause));
            };
            match &mut place.opened {
                Ok(session) => {
                    if session.is_open(self.ask_after) {
                        return Ok(PooledSession { place });
                    }
                    // The server has closed the connection while it was in the pool.
                }
                Err(error) => {
                    let error = error.clone();
                    if place.ended >= asked {
                        *began = place.began;
                        return Err(error);
                    }
                    // The attempt failed for a caller that had stopped waiting, so it says nothing
                    // about the present.
                }
            }
        }
    }
}

impl Pool {
    /// Asks for a place; waits for a moment where there is none.
    fn ask(&self, left: Duration) -> Option<r2d2::PooledConnection<Manager>> {
        let demand = &self.demand;
        if demand.connecting.load(Ordering::Relaxed) < demand.waiting.load(Ordering::Relaxed) {
            return self.places.get_timeout(left.min(LOOK_EVERY)).ok();
        }
        let place = self.places.try_get();
        if place.is_none() {
            sleep_uninterruptibly(left.min(CONNECT_LOOK));
        }
        place
    }
}

impl Deref for PooledSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.place.opened.as_ref().expect(OPEN)
    }
}

impl DerefMut for PooledSession {
    fn deref_mut(&mut self) -> &mut Session {
        self.place.opened.as_mut().expect(OPEN)
    }
}

/// Guarantees that a borrowed place holds a session.
const OPEN: &str = "get looks before it lends";

/// Makes the connections.
struct Manager {
    dsn: Dsn,
    timeouts: Timeouts,
    application_name: String,
    /// A connection whose buffer has grown is not kept.
    is_for_seldom: bool,
    demand: Arc<Demand>,
}

/// The result of an attempt to connect.
struct Attempt {
    opened: Result<Session, StoreError>,
    began: Instant,
    ended: Instant,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Attempt;
    type Error = Infallible;

    fn connect(&self) -> Result<Attempt, Infallible> {
        let _connecting = Counted::begin(&self.demand.connecting);
        let began = Instant::now();
        let opened = connect(&self.dsn, &self.timeouts, &self.application_name);
        Ok(Attempt {
            opened,
            began,
            ended: Instant::now(),
        })
    }

    /// Never asked: what is lent was looked at, without a way to the server.
    fn is_valid(&self, _: &mut Attempt) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, attempt: &mut Attempt) -> bool {
        attempt.opened.as_mut().map_or(true, |session| {
            session.has_broken() || self.is_for_seldom && session.is_swollen()
        })
    }
}
