//! An incident is trouble that begins, changes and ends. It is logged once when each of these
//! happens, whatever number of calls meets it.
//!
//! How often the same trouble, or other trouble, is worth a further line depends on the caller,
//! which says so when it makes an incident. This module logs nothing: the caller that meets the
//! trouble knows its words.

use std::time::{Duration, Instant};

/// One kind of trouble, with its present cause.
#[derive(Debug, Clone)]
pub struct Incident<C = ()> {
    open: Option<Open<C>>,
    /// The same cause is worth a further line after this time.
    repeat_after: Option<Duration>,
    /// Another cause is worth a line only after this time since the last line.
    change_after: Duration,
    /// Meetings in a row before the trouble has begun.
    patience: u32,
    n_met: u32,
}

#[derive(Debug, Clone)]
struct Open<C> {
    cause: C,
    since: Instant,
    told: Instant,
}

impl<C> Default for Incident<C> {
    fn default() -> Incident<C> {
        Incident {
            open: None,
            repeat_after: None,
            change_after: Duration::ZERO,
            patience: 1,
            n_met: 0,
        }
    }
}

impl<C: PartialEq> Incident<C> {
    /// An incident whose cause, while it stays the same, is worth a line again after this time.
    pub fn repeated_after(time: Duration) -> Incident<C> {
        Incident {
            repeat_after: Some(time),
            ..Incident::default()
        }
    }

    /// An incident where another cause is worth a line no earlier than this after the last one:
    /// some messages hold a number that changes with every try.
    pub fn changing_after(time: Duration) -> Incident<C> {
        Incident {
            change_after: time,
            ..Incident::default()
        }
    }

    /// An incident that begins when it was met this often in a row.
    pub fn beginning_after(n_meetings: u32) -> Incident<C> {
        Incident {
            patience: n_meetings,
            ..Incident::default()
        }
    }

    /// Notes that the trouble was met now, and says whether that is worth a line.
    pub fn met(&mut self, cause: C) -> bool {
        let now = Instant::now();
        self.note(cause, now, now)
    }

    /// Notes that the trouble was met at this time, and says whether that is worth a line.
    pub fn met_at(&mut self, cause: C, now: Instant) -> bool {
        self.note(cause, now, now)
    }

    /// Notes that the trouble was met and has lasted since this time, and says whether that is
    /// worth a line.
    pub fn met_since(&mut self, cause: C, since: Instant) -> bool {
        self.note(cause, since, Instant::now())
    }

    fn note(&mut self, cause: C, since: Instant, now: Instant) -> bool {
        self.n_met = self.n_met.saturating_add(1);
        let Some(open) = &mut self.open else {
            let is_news = self.n_met >= self.patience;
            if is_news {
                self.open = Some(Open {
                    cause,
                    since,
                    told: now,
                });
            }
            return is_news;
        };
        let age = now.duration_since(open.told);
        let is_news = if open.cause == cause {
            self.repeat_after.is_some_and(|after| age >= after)
        } else {
            age >= self.change_after
        };
        if is_news {
            (open.cause, open.told) = (cause, now);
        }
        is_news
    }

    /// Notes that the trouble is over; returns how long it lasted if a line was written about it.
    pub fn over(&mut self) -> Option<Duration> {
        self.over_at(Instant::now())
    }

    /// Notes that the trouble was over at this time; returns how long it lasted if a line was
    /// written about it.
    pub fn over_at(&mut self, now: Instant) -> Option<Duration> {
        self.n_met = 0;
        let open = self.open.take();
        open.map(|open| now.duration_since(open.since))
    }

    /// The cause that was logged last, while the trouble lasts.
    pub fn cause(&self) -> Option<&C> {
        self.open.as_ref().map(|open| &open.cause)
    }

    /// Says whether the trouble was logged and lasts.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_a_change_and_an_end_are_news_once() {
        let mut incident = Incident::default();
        let news = ["locked", "locked", "away", "away", "locked"].map(|cause| incident.met(cause));
        assert_eq!(news, [true, false, true, false, true]);
        assert_eq!(incident.cause(), Some(&"locked"));
        assert!(incident.over().is_some());
        assert!(incident.over().is_none());
        assert!(incident.met("locked"));
    }

    #[test]
    fn what_lasts_is_told_again_where_that_is_asked_for() {
        let mut at_once = Incident::repeated_after(Duration::ZERO);
        assert_eq!([(); 3].map(|()| at_once.met("locked")), [true; 3]);
        let mut later = Incident::repeated_after(Duration::from_hours(1));
        assert_eq!([(); 3].map(|()| later.met("locked")), [true, false, false]);
    }

    #[test]
    fn causes_that_change_all_the_time_are_damped() {
        let mut incident = Incident::changing_after(Duration::from_hours(1));
        assert_eq!(
            ["at 1", "at 2", "at 3"].map(|cause| incident.met(cause)),
            [true, false, false]
        );
    }

    #[test]
    fn a_single_meeting_is_none_where_some_are_no_accident() {
        let mut incident = Incident::beginning_after(3);
        assert!(!incident.met(()) && !incident.met(()));
        assert!(incident.over().is_none());
        let news = [(); 4].map(|()| incident.met(()));
        assert_eq!(news, [false, false, true, false]);
        assert!(incident.over().is_some());
    }
}
