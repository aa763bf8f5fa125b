//! The surveyor counts now and then what waits and what is dead in the table, for the gauges, the page and `status`.
//!
//! One thread of the supervisor with a connection of its own, so that a daemon asks once however many workers it has. It never costs the
//! database more than it is worth: counting ends at a cap, and a survey follows the last one when [`SHARE`] times its duration has passed,
//! which is a moment on most tables: whoever looks at a page or at `status` takes a count for what is there now, whatever its age is said
//! to be. Nothing is decided by what it finds, so it gives up quickly and says little: while
//! the database is away the workers have told the log, and what was published last grows old and is shown no more.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{debug, warn};

use crate::handler::Routes;
use crate::health::{Published, Survey};
use crate::incident::Incident;
use crate::metrics::{OTHER, TableGauges};
use crate::store::dsn::Dsn;
use crate::store::{Backlog, Pool, Position, StoreError, Timeouts};
use crate::threads::{self, Thread};

/// Counting ends here: whether 100,000 or a million events wait makes no difference to what has to be done.
const COUNT_MAX: u32 = 100_000;

/// Time between two surveys that cost next to nothing: a few milliseconds on most tables.
const EVERY: Duration = Duration::from_secs(2);

/// A survey is repeated when this many times its duration has passed: it takes up to 1 % of one back end.
const SHARE: u32 = 100;

/// From the begin of a survey to that of the next at most: whatever they cost, the last is fresh until then.
const WAIT_MAX: Duration = Duration::from_secs(45);

/// Scans from the front of the due index may take 1 % of the time: they find only what committed late or lies in the past.
const FRONT_SHARE: u32 = 100;

/// When nothing is due, what an application commits within this time of its insert is still found without a scan of the front.
const LATE_COMMIT: Duration = Duration::from_mins(1);

/// Bounds the connect, and again each statement: a number for a gauge is not worth a longer one.
const CALL_MAX: Duration = Duration::from_secs(5);

/// A survey under way is not waited for.
const STOP_MAX: Duration = Duration::from_millis(20);

/// The running surveyor.
pub(super) struct Surveyor {
    control: Sender<()>,
    thread: Thread,
}

impl Surveyor {
    /// Starts the thread, which waits for [`Surveyor::begin`].
    pub(super) fn start(
        dsn: Dsn,
        timeouts: Timeouts,
        routes: Arc<Routes>,
        published: Published,
    ) -> io::Result<Surveyor> {
        let (control, controlled) = bounded(1);
        let thread = threads::start("surveyor", move || {
            let timeouts = Timeouts {
                connect: timeouts.connect.min(CALL_MAX),
                query: timeouts.query.min(CALL_MAX),
            };
            let mut surveys = Surveys {
                pool: Pool::new(dsn, timeouts, NonZeroU16::MIN, "dispatchbox surveyor"),
                asked: Instant::now(),
                front: Front::default(),
                incident: Incident::default(),
            };
            surveys.run(&controlled, &routes, &published);
        })?;
        Ok(Surveyor { control, thread })
    }

    /// The database is usable: the first survey is due.
    pub(super) fn begin(&self) {
        // A full channel says the same.
        let _ = self.control.try_send(());
    }

    /// Ends the thread between two surveys; one in the middle of a survey is left to the end of the process.
    pub(super) fn stop(self) {
        drop(self.control);
        if let Some(Err(_)) = self.thread.join_within(STOP_MAX) {
            warn!("the surveyor had died");
        }
    }
}

struct Surveys {
    pool: Pool,
    /// When the survey under way began; what it took to connect says nothing about the table.
    asked: Instant,
    front: Front,
    incident: Incident,
}

impl Surveys {
    /// Surveys after the first word of its control, until that is disconnected.
    fn run(&mut self, control: &Receiver<()>, routes: &Routes, published: &Published) {
        if control.recv().is_err() {
            return;
        }
        loop {
            self.asked = Instant::now();
            match self.take() {
                Ok(survey) => {
                    self.incident.over();
                    publish(survey, routes, published);
                }
                Err(error) => self.failed(&error),
            }
            let took = self.asked.elapsed();
            let longest = WAIT_MAX.saturating_sub(took).max(EVERY);
            let wait = (took * SHARE).clamp(EVERY, longest);
            if control.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn take(&mut self) -> Result<Survey, StoreError> {
        let mut session = self.pool.get()?;
        session.set_up_surveys()?;
        self.asked = Instant::now();
        let from = self.front.start();
        let began = Instant::now();
        let counted = session.survey_backlog(&from, COUNT_MAX);
        self.front
            .scanned(&from, began.elapsed(), counted.as_ref().ok());
        let backlog = counted?;
        let not_due = match session.survey_not_due(COUNT_MAX) {
            Ok(not_due) => Some(not_due),
            Err(error) if error.is_statement_timeout() => {
                // As with the dead below.
                debug!("{error}");
                None
            }
            Err(error) => return Err(error),
        };
        let (dead, is_dead_capped) = match session.survey_dead(COUNT_MAX) {
            Ok(dead) => (Some(dead.counts), dead.is_capped),
            Err(error) if error.is_statement_timeout() => {
                // Cold pages, most likely: the next look finds some of them warm. What waits is known all the same.
                debug!("{error}");
                (None, true)
            }
            Err(error) => return Err(error),
        };
        Ok(Survey {
            backlog: backlog.n_events,
            unreadable: backlog.n_unreadable,
            is_backlog_capped: backlog.is_capped,
            oldest_due_age: backlog.oldest_due_age,
            not_due: not_due.as_ref().map(|found| found.n_events),
            is_not_due_capped: not_due.as_ref().is_none_or(|found| found.is_capped),
            first_due_in: not_due.and_then(|found| found.first_in),
            dead,
            is_dead_capped,
            taken_at: Instant::now(),
        })
    }

    /// Says it where nobody else does: workers tell of a database that is away, but not of a right that only the surveyor lacks.
    fn failed(&mut self, error: &StoreError) {
        if error.is_transient() || !self.incident.met(()) {
            debug!("{error}");
        } else {
            warn!("{error}; the metrics say nothing about backlog and dead events");
        }
    }
}

fn publish(survey: Survey, routes: &Routes, published: &Published) {
    let label = |index| routes.get(index).pattern.clone();
    let mut dead: BTreeMap<String, u64> = (0..routes.len())
        .map(label)
        .chain([OTHER.to_owned()])
        .map(|label| (label, 0))
        .collect();
    for (event_type, n_events) in survey.dead.iter().flatten() {
        let label = routes.find(event_type).map_or(OTHER.to_owned(), label);
        *dead.entry(label).or_default() += n_events;
    }
    let gauges = TableGauges {
        backlog: survey.backlog,
        unreadable: survey.unreadable,
        is_backlog_capped: survey.is_backlog_capped,
        oldest_due_age: survey.oldest_due_age,
        dead: survey.dead.is_some().then_some(dead),
        is_dead_capped: survey.is_dead_capped,
        valid_until: survey.taken_at + Survey::FRESH,
    };
    published.fleet().surveyed(gauges);
    published.surveyed(survey);
}

/// Where the next look at the due index starts.
///
/// A scan from its front wades through the dead entries of all that is done, which pile up while a long transaction holds vacuum back. So
/// most looks start at the first due event of the last one; everything before that was not due or not there, and only an event that
/// committed late or lies in the past can be there since.
#[derive(Default)]
struct Front {
    hint: Option<Position>,
    scan: Option<(Instant, Duration)>,
}

impl Front {
    fn start(&self) -> Position {
        let is_due = self
            .scan
            .is_none_or(|(ended, took)| ended.elapsed() >= took * FRONT_SHARE);
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
            let late = i64::try_from(LATE_COMMIT.as_micros()).unwrap_or(i64::MAX);
            let horizon = Position::at(found.now_micros.saturating_sub(late));
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
