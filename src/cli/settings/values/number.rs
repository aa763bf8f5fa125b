//! Numbers.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use crate::cli::settings::values::{quoted, too_large, too_small};

/// Reads a whole number.
pub(in crate::cli) fn whole(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = integer(text)?;
    if number < i128::from(*allowed.start()) {
        return Err(too_small(allowed.start(), text));
    }
    u64::try_from(number)
        .ok()
        .filter(|number| number <= allowed.end())
        .ok_or_else(|| too_large(allowed.end(), text))
}

/// Reads a whole number of a smaller type, whose range is the narrower one.
pub(in crate::cli) fn count<N>(text: &str, allowed: &RangeInclusive<N>) -> Result<N, String>
where
    N: Copy + Into<u64> + TryFrom<u64>,
{
    let number = whole(text, &((*allowed.start()).into()..=(*allowed.end()).into()))?;
    N::try_from(number).map_err(|_| too_large((*allowed.end()).into(), text))
}

/// Reads a number that is above 0, as its range says, too.
pub(in crate::cli) fn positive(
    text: &str,
    allowed: &RangeInclusive<u16>,
) -> Result<NonZeroU16, String> {
    NonZeroU16::new(count(text, allowed)?).ok_or_else(|| too_small(1, text))
}

/// Reads the id of an event: any number of the column's type, since a sequence that ran out may
/// have been set to the negative half.
pub(in crate::cli) fn event_id(text: &str) -> Result<i64, String> {
    let number = integer(text)?;
    if number < i128::from(i64::MIN) {
        return Err(too_small(i64::MIN, text));
    }
    i64::try_from(number).map_err(|_| too_large(i64::MAX, text))
}

/// Reads a whole number of any size. A number with so many digits that the type overflows becomes
/// the outermost number on its side, which is out of range everywhere.
fn integer(text: &str) -> Result<i128, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("must be a whole number, not {}", quoted(text)));
    }
    let outermost = if text.starts_with('-') {
        i128::MIN
    } else {
        i128::MAX
    };
    Ok(text.parse().unwrap_or(outermost))
}

/// Reads a finite number that may have a fraction.
pub(in crate::cli) fn decimal(
    text: &str,
    allowed: &RangeInclusive<f64>,
    unit: &str,
) -> Result<f64, String> {
    let number: f64 = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| format!("must be a number{unit}, not {}", quoted(text)))?;
    if number < *allowed.start() {
        return Err(too_small(allowed.start(), text));
    }
    if number > *allowed.end() {
        return Err(too_large(allowed.end(), text));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_out_of_range_is_told_the_limit() {
        let port = |text| whole(text, &(0..=65_535));
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("+65535"), Ok(65_535));
        assert_eq!(
            port("99999"),
            Err("must be at most 65535, not `99999`".into())
        );
        assert_eq!(port("-1"), Err("must be at least 0, not `-1`".into()));
        assert_eq!(
            port("123456789012345678901234567890123456789012345678"),
            Err(
                "must be at most 65535, not `1234567890123456789012345678901234567890…`".to_owned()
            )
        );
        assert!(
            whole(&format!("-{}", "9".repeat(50)), &(1..=2))
                .is_err_and(|text| text.starts_with("must be at least 1"))
        );
        for text in ["", "-", "1.5", "1e3", "one", "0x10", " 1", "1 ", "٣"] {
            assert!(
                port(text).is_err_and(|text| text.starts_with("must be a whole number")),
                "{text}"
            );
        }
    }

    #[test]
    fn an_id_is_a_bigint() {
        assert_eq!(event_id("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(event_id("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!((event_id("0"), event_id("-5")), (Ok(0), Ok(-5)));
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "--5",
            "-",
            "x",
            "",
        ] {
            assert!(event_id(text).is_err(), "{text}");
        }
    }
}
