//! The events of the last minutes, in steps of a few seconds, for `dispatchbox status` and the
//! page. Pure.
//!
//! The supervisor passes the counters about once a second. Counters never run backwards. The step
//! in which a worker is replaced lacks that worker's last second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Length of a step.
pub const STEP: Duration = Duration::from_secs(5);

/// How far back the history goes.
pub const SPAN: Duration = Duration::from_mins(15);

/// A rate is the mean over this time.
pub const RATE_SPAN: Duration = Duration::from_secs(10);

/// Shortest time between two samples of the counters.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Counters since the start of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events claimed.
    pub claimed: u64,
    /// Events done.
    pub done: u64,
    /// Failed attempts that are tried again.
    pub retry: u64,
    /// Events that became dead.
    pub dead: u64,
    /// Events given back unstarted.
    pub released: u64,
}

/// Events per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Claimed.
    pub claimed: f64,
    /// Done.
    pub done: f64,
    /// Failed and to be tried again.
    pub retry: f64,
    /// Became dead.
    pub dead: f64,
}

impl Rates {
    fn between(earlier: &(Instant, Totals), later: &(Instant, Totals)) -> Rates {
        let seconds = later.0.saturating_duration_since(earlier.0).as_secs_f64();
        let rate = |before: u64, after: u64| {
            if seconds > 0.0 {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a rate is shown with three digits"
                )]
                let n_events = after.saturating_sub(before) as f64;
                n_events / seconds
            } else {
                0.0
            }
        };
        Rates {
            claimed: rate(earlier.1.claimed, later.1.claimed),
            done: rate(earlier.1.done, later.1.done),
            retry: rate(earlier.1.retry, later.1.retry),
            dead: rate(earlier.1.dead, later.1.dead),
        }
    }
}

/// Values at one moment that are no counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels {
    /// Events claimed and not settled.
    pub in_flight: u64,
    /// Due events, where they were counted lately.
    pub backlog: Option<u64>,
    /// How long the oldest of them has been due.
    pub oldest_due_age: Option<Duration>,
}

/// One step of the history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// When it ended.
    pub ended: Instant,
    /// What was done in it.
    pub rates: Rates,
    /// What stood at its end.
    pub levels: Levels,
}

/// The steps of the last minutes.
#[derive(Debug)]
pub struct History {
    /// The counters of the last seconds, oldest first; never empty.
    recent: VecDeque<(Instant, Totals)>,
    /// The counters at the end of the last step.
    boundary: (Instant, Totals),
    steps: VecDeque<Step>,
}

impl History {
    /// Begins now, with nothing done.
    pub fn new(now: Instant) -> History {
        let boundary = (now, Totals::default());
        History {
            recent: VecDeque::from([boundary]),
            boundary,
            steps: VecDeque::new(),
        }
    }

    /// Says whether it is time to pass the counters again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.recent
            .back()
            .is_none_or(|(at, _)| now.saturating_duration_since(*at) >= SAMPLE_EVERY)
    }

    /// Takes in the counters and levels of this moment.
    pub fn observe(&mut self, now: Instant, totals: Totals, levels: Levels) {
        let sample = (now, totals);
        self.recent.push_back(sample);
        // The oldest sample that is kept lies just before the span, so that the rate covers the
        // whole span.
        while self
            .recent
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_SPAN)
        {
            self.recent.pop_front();
        }
        if now.saturating_duration_since(self.boundary.0) >= STEP {
            self.steps.push_back(Step {
                ended: now,
                rates: Rates::between(&self.boundary, &sample),
                levels,
            });
            self.boundary = sample;
        }
        while self
            .steps
            .front()
            .is_some_and(|step| now.saturating_duration_since(step.ended) >= SPAN)
        {
            self.steps.pop_front();
        }
    }

    /// The counters of the last sample.
    pub fn totals(&self) -> Totals {
        self.recent
            .back()
            .map_or_else(Totals::default, |(_, totals)| *totals)
    }

    /// The rates over the last [`RATE_SPAN`].
    pub fn rates(&self) -> Rates {
        match (self.recent.front(), self.recent.back()) {
            (Some(first), Some(last)) => Rates::between(first, last),
            _ => Rates::default(),
        }
    }

    /// The steps, oldest first.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(n: u64) -> Totals {
        Totals {
            claimed: n,
            done: n,
            ..Totals::default()
        }
    }

    /// A history of a daemon that does 7 events a second, told once a second.
    fn after(seconds: u64) -> (History, Instant) {
        let start = Instant::now();
        let mut history = History::new(start);
        for second in 1..=seconds {
            let levels = Levels {
                in_flight: second,
                ..Levels::default()
            };
            history.observe(
                start + Duration::from_secs(second),
                done(7 * second),
                levels,
            );
        }
        (history, start)
    }

    #[track_caller]
    fn assert_close(rate: f64, expected: f64) {
        assert!((rate - expected).abs() < 1e-9, "{rate} is not {expected}");
    }

    #[test]
    fn a_step_ends_every_five_seconds_and_holds_its_own_rate() {
        let (history, start) = after(17);

        let steps: Vec<&Step> = history.steps().collect();

        let ends: Vec<u64> = steps
            .iter()
            .map(|step| step.ended.duration_since(start).as_secs())
            .collect();
        assert_eq!(ends, [5, 10, 15]);
        for step in &steps {
            assert_close(step.rates.done, 7.0);
            assert_close(step.rates.dead, 0.0);
        }
        assert_eq!(steps[2].levels.in_flight, 15);
    }

    #[test]
    fn the_history_is_bounded_to_its_span() {
        let (history, start) = after(2000);

        assert_eq!(history.steps().count(), 180);
        let first = history.steps().next().map(|step| step.ended);
        assert_eq!(first, Some(start + Duration::from_secs(2000 - 895)));
        assert_eq!(history.totals(), done(14_000));
        assert!(history.recent.len() <= 12, "{}", history.recent.len());
    }

    #[test]
    fn rates_are_those_of_the_last_ten_seconds() {
        let (mut history, start) = after(30);
        for second in 31..=40 {
            history.observe(
                start + Duration::from_secs(second),
                done(210),
                Levels::default(),
            );
        }
        assert_close(history.rates().done, 0.0);

        history.observe(
            start + Duration::from_secs(41),
            done(230),
            Levels::default(),
        );
        assert_close(history.rates().done, 2.0);
    }

    #[test]
    fn it_is_told_once_a_second() {
        let (history, start) = after(3);

        assert!(!history.is_due(start + Duration::from_millis(3900)));
        assert!(history.is_due(start + Duration::from_secs(4)));
    }
}
