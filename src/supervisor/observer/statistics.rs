//! The statistics of the table: counts the waiting and the dead events from time to time, for the
//! gauges, the page and `status`.
//!
//! A daemon counts once however many workers it has. Its cost for the database is bounded: counting
//! ends at a cap, and a collection follows the last one when [`SHARE`] times its duration has
//! passed. On most tables that is a moment, because a reader of the page or of `status` takes a
//! count for the present number, even if its age is shown.
//!
//! No decision depends on the statistics. Therefore the collection gives up quickly and logs
//! little. While the looks for /ready do not reach the database, nothing is collected and no
//! connection is held: workers log that, and the last statistics grow old and are shown no more.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{debug, warn};

use crate::handlers::Routes;
use crate::status::metrics::{OTHER, TableStatistics};
use crate::status::published::Published;
use crate::store::dsn::Dsn;
use crate::store::{Backlog, Pool, Position, Share, StoreError, Timeouts};
use crate::system::incident::Incident;

/// Counting ends here: whether 100,000 or a million events wait makes no difference to what has to
/// be done.
const COUNT_MAX: u32 = 100_000;

/// Time between two collections that are cheap, as on most tables, where one takes a few
/// milliseconds.
const EVERY: Duration = Duration::from_secs(2);

/// A collection is repeated when this many times its duration has passed, so collecting takes up to
/// 1 % of one back end.
const SHARE: u32 = 100;

/// The longest time from the beginning of a collection to that of the next. The last statistics
/// stay fresh until then, whatever a collection costs.
const WAIT_MAX: Duration = Duration::from_secs(45);

/// Scans from the front of the due index may take 1 % of the time: they find only what committed
/// late or lies in the past. The longest pause is longer than that of any scan that ends in time.
const FRONT: Share = Share::one_in(100, Duration::from_hours(1));

/// When nothing is due, what an application commits within this time of its insert is still found
/// without a scan of the front.
const LATE_COMMIT: Duration = Duration::from_mins(1);

/// Bounds the connect, and again each statement: a number for a gauge is not worth a longer one.
const CALL_MAX: Duration = Duration::from_secs(5);

/// The collections of a daemon, one after the other on one connection.
pub(super) struct Collection {
    dsn: Dsn,
    timeouts: Timeouts,
    /// `None` while the database is away.
    pool: Option<Pool>,
    /// When the collection under way began. The time to connect does not count, because it says
    /// nothing about the table.
    asked: Instant,
    front: Front,
    incident: Incident,
}

impl Collection {
    /// Prepares collections, whose calls take no longer than these timeouts.
    pub(super) fn new(dsn: Dsn, timeouts: Timeouts) -> Collection {
        Collection {
            dsn,
            timeouts: Timeouts {
                connect: timeouts.connect.min(CALL_MAX),
                query: timeouts.query.min(CALL_MAX),
            },
            pool: None,
            asked: Instant::now(),
            front: Front::default(),
            incident: Incident::default(),
        }
    }

    /// Collects until `stopped` is disconnected.
    pub(super) fn run(&mut self, stopped: &Receiver<()>, routes: &Routes, published: &Published) {
        loop {
            self.asked = Instant::now();
            if is_away(published) {
                // A role that may hold no further connection needs this one for /ready.
                self.pool = None;
                self.asked = Instant::now();
            } else {
                match self.take(routes) {
                    Ok(statistics) => {
                        self.incident.over();
                        published.fleet().set_table(statistics);
                    }
                    Err(error) => self.failed(&error),
                }
            }
            let took = self.asked.elapsed();
            let longest = WAIT_MAX.saturating_sub(took).max(EVERY);
            let wait = (took * SHARE).clamp(EVERY, longest);
            if stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn take(&mut self, routes: &Routes) -> Result<TableStatistics, StoreError> {
        let (one, name) = (NonZeroU16::MIN, "dispatchbox statistics");
        let pool = self
            .pool
            .get_or_insert_with(|| Pool::new(self.dsn.clone(), self.timeouts, one, name));
        let mut session = pool.get()?;
        session.set_up_statistics()?;
        self.asked = Instant::now();
        let from = self.front.start();
        let began = Instant::now();
        let counted = session.count_backlog(&from, COUNT_MAX);
        self.front
            .scanned(&from, began.elapsed(), counted.as_ref().ok());
        let backlog = counted?;
        let not_due = in_time(session.count_not_due(COUNT_MAX))?;
        let dead = in_time(session.count_dead_by_type(COUNT_MAX))?;
        let is_dead_capped = dead.as_ref().is_none_or(|found| found.is_capped);
        let dead = dead.map(|found| found.counts);
        Ok(TableStatistics {
            backlog: backlog.n_events,
            unreadable: backlog.n_unreadable,
            is_backlog_capped: backlog.is_capped,
            oldest_due_age: backlog.oldest_due_age,
            not_due: not_due.as_ref().map(|found| found.n_events),
            is_not_due_capped: not_due.as_ref().is_none_or(|found| found.is_capped),
            first_due_in: not_due.and_then(|found| found.first_in),
            dead_by_route: dead.as_deref().map(|dead| by_route(dead, routes)),
            dead,
            is_dead_capped,
            taken_at: Instant::now(),
        })
    }

    /// Logs a failure that no worker logs: workers log that the database is away, but not that the
    /// role lacks a privilege that only counting needs.
    fn failed(&mut self, error: &StoreError) {
        if error.is_transient() || !self.incident.met(()) {
            debug!("{error}");
        } else {
            warn!("{error}; the metrics say nothing about backlog and dead events");
        }
    }
}

/// The result of a count; `None` if it took too long. The statement has probably met cold pages,
/// and the next collection finds some of them warm. The other numbers are known all the same.
fn in_time<T>(counted: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match counted {
        Err(error) if error.is_statement_timeout() => {
            debug!("{error}");
            Ok(None)
        }
        counted => counted.map(Some),
    }
}

/// Says whether the looks for /ready do not reach the database.
fn is_away(published: &Published) -> bool {
    let finding = published.health.state().database;
    finding.is_some_and(|finding| finding.is_away())
}

/// Adds up dead events by the name of their route; each name stands there, `other` included.
fn by_route(dead: &[(String, u64)], routes: &Routes) -> BTreeMap<String, u64> {
    let label = |index| routes.get(index).name.clone();
    let mut by_route: BTreeMap<String, u64> = (0..routes.len())
        .map(label)
        .chain([OTHER.to_owned()])
        .map(|label| (label, 0))
        .collect();
    for (event_type, n_events) in dead {
        let label = routes.find(event_type).map_or(OTHER.to_owned(), label);
        *by_route.entry(label).or_default() += n_events;
    }
    by_route
}

/// The position from which the next scan of the due index starts.
///
/// A scan from the front of the index reads the dead entries of all settled events, which pile up
/// while a long transaction holds vacuum back. Therefore most scans start at the first due event of
/// the last one. No due event stood before that position then, and since then only an event that
/// committed late or whose time lies in the past can have appeared there.
#[derive(Default)]
struct Front {
    hint: Option<Position>,
    scan: Option<(Instant, Duration)>,
}

impl Front {
    fn start(&self) -> Position {
        let is_due = self
            .scan
            .is_none_or(|(ended, took)| ended.elapsed() >= FRONT.pause(took));
        match self.hint {
            Some(hint) if !is_due => hint,
            _ => Position::FRONT,
        }
    }

    fn scanned(&mut self, from: &Position, took: Duration, found: Option<&Backlog>) {
        if *from == Position::FRONT {
            self.scan = Some((Instant::now(), took));
        }
        if let Some(found) = found {
            let horizon = Position::recent(found.now_micros, LATE_COMMIT);
            self.hint = Some(found.first.unwrap_or(horizon));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAR: Duration = Duration::from_hours(1);

    fn found(first: Option<Position>) -> Backlog {
        Backlog {
            n_events: 0,
            is_capped: false,
            oldest_due_age: Duration::ZERO,
            first,
            now_micros: 100_000_000,
            n_unreadable: 0,
        }
    }

    #[test]
    fn a_cheap_front_is_scanned_each_time() {
        let mut front = Front::default();
        assert_eq!(front.start(), Position::FRONT);

        front.scanned(
            &Position::FRONT,
            Duration::ZERO,
            Some(&found(Some(Position::at(5)))),
        );

        assert_eq!(front.start(), Position::FRONT);
    }

    #[test]
    fn after_a_dear_scan_of_the_front_the_next_look_starts_at_the_first_due_event() {
        let mut front = Front::default();

        front.scanned(&Position::FRONT, DEAR, Some(&found(Some(Position::at(5)))));
        assert_eq!(front.start(), Position::at(5));
        front.scanned(&Position::at(5), DEAR, Some(&found(None)));

        assert_eq!(
            front.start(),
            Position::at(40_000_000),
            "nothing is due: what commits late is still found"
        );
    }

    #[test]
    fn a_scan_of_the_front_that_was_given_up_is_not_repeated_at_once() {
        let mut front = Front::default();
        front.scanned(
            &Position::FRONT,
            Duration::ZERO,
            Some(&found(Some(Position::at(5)))),
        );

        front.scanned(&Position::FRONT, DEAR, None);

        assert_eq!(front.start(), Position::at(5));
    }
}
