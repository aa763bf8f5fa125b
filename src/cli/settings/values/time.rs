//! Times: numbers of seconds, ages, and points in time.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cli::settings::values::number::decimal;
use crate::cli::settings::values::{quoted, too_large, too_small};
use crate::domain::event::micros_of;

/// A point in time as a person gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Moment {
    /// In microseconds since 1970.
    At(i64),
    /// This long before the database's now.
    Ago(Duration),
}

impl Moment {
    /// Turns the moment into microseconds since 1970, by the database's clock.
    pub(in crate::cli) fn micros(self, now_micros: i64) -> i64 {
        match self {
            Moment::At(micros) => micros,
            Moment::Ago(age) => {
                now_micros.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
            }
        }
    }
}

/// Reads a number of seconds.
pub(in crate::cli) fn seconds(
    text: &str,
    allowed: &RangeInclusive<f64>,
) -> Result<Duration, String> {
    let seconds = decimal(text, allowed, " of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| too_small(allowed.start(), text))
}

/// Shows a number of seconds as [`seconds`] reads it.
pub(in crate::cli) fn seconds_text(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

/// Reads a point in time: RFC 3339 with an offset, or an age.
pub(in crate::cli) fn moment(text: &str) -> Result<Moment, String> {
    micros_of(text)
        .map(Moment::At)
        .or_else(|| age(text).ok().map(Moment::Ago))
        .ok_or_else(|| {
            format!(
                "must be a time such as `2025-01-02T03:04:05Z`, or an age such as `2h` or `30d`, not {}",
                quoted(text)
            )
        })
}

/// Units of an age, and their seconds.
const AGE_UNITS: [(char, u64); 5] = [
    ('s', 1),
    ('m', 60),
    ('h', 3_600),
    ('d', 86_400),
    ('w', 604_800),
];

/// Longest age: a century, which any clock can still subtract.
const AGE_MAX: Duration = Duration::from_hours(876_000);

/// Reads an age or a delay: `30s`, `5m`, `2h`, `30d`, `1w`.
pub(in crate::cli) fn age(text: &str) -> Result<Duration, String> {
    let unit = text.chars().next_back();
    let factor = AGE_UNITS.iter().find(|(name, _)| Some(*name) == unit);
    let (Some((name, factor)), Some(number)) = (factor, text.get(..text.len().saturating_sub(1)))
    else {
        return Err(no_age(text));
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_age(text));
    }
    let number: u64 = number.parse().unwrap_or(u64::MAX);
    let age = Duration::from_secs(number.saturating_mul(*factor));
    if age > AGE_MAX {
        return Err(too_large(
            format!("{}{name}", AGE_MAX.as_secs() / factor),
            text,
        ));
    }
    Ok(age)
}

fn no_age(text: &str) -> String {
    format!(
        "must be a whole number with a unit: s, m, h, d or w, not {}",
        quoted(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_finite() {
        let poll = |text| seconds(text, &(0.001..=86_400.0));
        assert_eq!(poll("1.5"), Ok(Duration::from_millis(1500)));
        for text in ["NaN", "inf", "-inf", "1e999", "", "1s", "one"] {
            assert_eq!(
                poll(text),
                Err(format!("must be a number of seconds, not `{text}`"))
            );
        }
        assert_eq!(poll("0"), Err("must be at least 0.001, not `0`".into()));
        assert_eq!(poll("1e9"), Err("must be at most 86400, not `1e9`".into()));
        assert_eq!(seconds("-0", &(0.0..=1.0)), Ok(Duration::ZERO));
    }

    #[test]
    fn an_age_has_a_unit() {
        assert_eq!(age("0s"), Ok(Duration::ZERO));
        assert_eq!(age("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(age("30d"), Ok(Duration::from_hours(720)));
        assert_eq!(age("2w"), Ok(Duration::from_hours(336)));
        for text in ["", "s", "5", "-5m", "1.5h", "5 m", "5M", "5ü", "m5", "٣s"] {
            assert_eq!(age(text), Err(no_age(text)), "{text}");
        }
        assert_eq!(
            age("99999999999999999999d"),
            Err("must be at most 36500d, not `99999999999999999999d`".to_owned())
        );
    }

    #[test]
    fn a_moment_is_a_time_or_an_age() {
        let now = 10_000_000;
        let micros = |text| moment(text).map(|moment| moment.micros(now));
        assert_eq!(micros("1970-01-01T00:00:05Z"), Ok(5_000_000));
        assert_eq!(micros("1970-01-01T01:00:05+01:00"), Ok(5_000_000));
        assert_eq!(micros("3s"), Ok(7_000_000));
        for text in ["1970-01-01", "yesterday", "5", ""] {
            assert!(
                micros(text).is_err_and(|text| text.starts_with("must be a time such as")),
                "{text}"
            );
        }
    }
}
