//! What a failed attempt comes to: another attempt after a delay, or none. Pure: the random part is
//! handed in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::event::Outcome;

/// When failed events are tried again, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts before an event is dead; at least 1.
    pub max_attempts: u32,
    /// Delay after the first failed attempt.
    pub backoff: Duration,
    /// Each further delay is this many times the one before; at least 1.
    pub multiplier: f64,
    /// Longest delay; it also caps the delay that a receiver asks for by Retry-After.
    pub max: Duration,
    /// Part of the delay, 0 to 1, up to which it is shortened at random, so that events that failed
    /// together do not return together.
    pub jitter: f64,
}

impl RetryPolicy {
    /// Computes the delay after the failed attempt number `attempt` (from 1), with `random` in 0..1
    /// choosing the jitter.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let exponent = f64::from(attempt.saturating_sub(1));
        let grown = self.backoff.as_secs_f64() * self.multiplier.powf(exponent);
        // `min` also turns an overflow to infinity, or 0 * infinity, into the cap.
        let capped = grown.min(self.max.as_secs_f64());
        Duration::try_from_secs_f64(capped * (1.0 - self.jitter * random.clamp(0.0, 1.0)))
            .unwrap_or(self.max)
    }

    /// The outcome of the failed attempt number `attempt`, of a handler's run as of a worker that
    /// is gone: dead if it was the last, otherwise another attempt after the backoff. A delay
    /// `after` that the receiver asked for takes the place of the backoff. It is capped, but never
    /// jittered, because it is kept to the moment.
    pub fn failed(
        &self,
        attempt: u32,
        reason: &str,
        after: Option<Duration>,
        random: f64,
    ) -> Outcome {
        if self.is_last(attempt) {
            return Outcome::dead(reason);
        }
        let delay = after.map_or_else(|| self.delay(attempt, random), |after| after.min(self.max));
        Outcome::retry(delay, reason)
    }

    /// Says whether the failed attempt number `attempt` was the last one.
    pub fn is_last(&self, attempt: u32) -> bool {
        attempt >= self.max_attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 5,
        backoff: Duration::from_secs(30),
        multiplier: 2.0,
        max: Duration::from_hours(1),
        jitter: 0.1,
    };

    #[test]
    fn delays_double_up_to_the_cap() {
        let seconds: Vec<u64> = (1..=9).map(|n| POLICY.delay(n, 0.0).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
    }

    #[test]
    fn multiplier_one_without_jitter_is_the_predecessors_fixed_delay() {
        let fixed = RetryPolicy {
            multiplier: 1.0,
            jitter: 0.0,
            ..POLICY
        };
        assert!(
            [1, 2, 1000, u32::MAX]
                .iter()
                .all(|&n| fixed.delay(n, 0.7).as_secs() == 30)
        );
    }

    #[test]
    fn no_attempt_number_overflows() {
        assert_eq!(POLICY.delay(u32::MAX, 0.0), POLICY.max);
        let none = RetryPolicy {
            backoff: Duration::ZERO,
            ..POLICY
        };
        assert!(none.delay(u32::MAX, 0.5) <= none.max);
    }

    #[test]
    fn the_last_attempt_is_the_maximum_or_any_above() {
        assert!(!POLICY.is_last(4));
        assert!(POLICY.is_last(5));
        assert!(POLICY.is_last(6));
    }

    #[test]
    fn a_failed_attempt_is_tried_again_after_its_delay_unless_it_was_the_last() {
        let second = |after| POLICY.failed(2, "no\0", after, 0.0);

        let reason = "no\u{fffd}";
        let minute = Duration::from_mins(1);
        assert_eq!(second(None), Outcome::retry(minute, reason));
        let wish = Duration::from_secs(7);
        assert_eq!(second(Some(wish)), Outcome::retry(wish, reason));
        assert_eq!(
            second(Some(Duration::MAX)),
            Outcome::retry(POLICY.max, reason)
        );
        assert_eq!(
            POLICY.failed(5, "no\0", Some(wish), 0.0),
            Outcome::dead(reason)
        );
    }
}
