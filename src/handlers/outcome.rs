//! Turns the result of a handler into an outcome. Pure: the random part of the delay is handed in.

use std::any::Any;

use crate::domain::event::Outcome;
use crate::domain::retry::RetryPolicy;
use crate::handlers::HandlerError;

/// Turns the result of a handler's run, a panic included, into the outcome of attempt number
/// `attempt`.
pub fn outcome_of(
    result: std::thread::Result<Result<(), HandlerError>>,
    attempt: u32,
    policy: &RetryPolicy,
    random: f64,
) -> Outcome {
    let (reason, after) = match result {
        Ok(Ok(())) => return Outcome::Done,
        Ok(Err(HandlerError::Permanent(reason))) => return Outcome::dead(&reason),
        Ok(Err(HandlerError::Retry { reason, after })) => (reason, after),
        Err(panic) => (format!("handler panicked: {}", text_of(&*panic)), None),
    };
    policy.failed(attempt, &reason, after, random)
}

/// The reason for the failed attempt of an event that no route matches; the wording is the
/// predecessor's.
pub fn no_route_reason(event_type: &str) -> String {
    format!("No handler for event_type={event_type}")
}

/// `panic!` brings a `&str` or a `String`; anything else has no text.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::time::Duration;

    use super::*;
    use crate::domain::event::REASON_BYTES_MAX;

    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 3,
        backoff: Duration::from_secs(10),
        multiplier: 2.0,
        max: Duration::from_mins(1),
        jitter: 0.5,
    };

    fn retry(delay: Duration, reason: &str) -> Outcome {
        Outcome::Retry {
            delay,
            reason: reason.to_owned(),
        }
    }

    fn dead(reason: &str) -> Outcome {
        Outcome::Dead {
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn done_is_done_even_at_the_last_attempt() {
        assert_eq!(outcome_of(Ok(Ok(())), 3, &POLICY, 0.0), Outcome::Done);
    }

    #[test]
    fn a_failed_attempt_waits_for_its_backoff_and_the_last_one_is_dead() {
        let failed = || Ok(Err(HandlerError::retry("no")));

        let second = outcome_of(failed(), 2, &POLICY, 0.5);
        let third = outcome_of(failed(), 3, &POLICY, 0.5);

        assert_eq!(second, retry(Duration::from_secs(15), "no"));
        assert_eq!(third, dead("no"));
    }

    #[test]
    fn a_permanent_failure_is_dead_at_the_first_attempt() {
        let result = Ok(Err(HandlerError::Permanent("bad data".to_owned())));
        assert_eq!(outcome_of(result, 1, &POLICY, 0.0), dead("bad data"));
    }

    #[test]
    fn the_receivers_wish_is_kept_to_the_moment_up_to_the_cap() {
        let wish = |after| {
            let reason = "busy".to_owned();
            let after = Some(after);
            outcome_of(
                Ok(Err(HandlerError::Retry { reason, after })),
                1,
                &POLICY,
                1.0,
            )
        };

        assert_eq!(
            wish(Duration::from_secs(7)),
            retry(Duration::from_secs(7), "busy")
        );
        assert_eq!(wish(Duration::MAX), retry(POLICY.max, "busy"));
    }

    #[test]
    fn a_panic_is_a_failed_attempt_with_its_text() {
        let check = |panic: fn() -> Result<(), HandlerError>, reason: &str| {
            let outcome = outcome_of(catch_unwind(panic), 1, &POLICY, 0.0);
            assert_eq!(outcome, retry(Duration::from_secs(10), reason));
        };

        check(|| panic!("plain"), "handler panicked: plain");
        check(
            || panic!("{} {}", "made", "up"),
            "handler panicked: made up",
        );
        check(|| std::panic::panic_any(7), "handler panicked: no message");
    }

    #[test]
    fn a_reason_can_be_stored_whatever_it_is() {
        let long = format!("a\0b{}", "ü".repeat(REASON_BYTES_MAX));
        let outcome = outcome_of(Ok(Err(HandlerError::Permanent(long))), 1, &POLICY, 0.0);

        let reason = outcome.reason().expect("a dead event has a reason");
        assert!(reason.starts_with("a\u{fffd}bü"));
        assert!(reason.len() <= REASON_BYTES_MAX && reason.len() > REASON_BYTES_MAX - 4);
        assert!(!reason.contains('\0'));
    }

    #[test]
    fn a_missing_route_is_told_in_the_predecessors_words() {
        assert_eq!(no_route_reason("a.b"), "No handler for event_type=a.b");
    }
}
