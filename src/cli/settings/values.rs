//! Reads single values. Every refusal says what is allowed, and its text follows the name of the
//! option: ``must be at least 1, not `0` ``.

use std::fmt::Display;
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::domain::config::LogLevel;
use crate::domain::event::micros_of;
use crate::system::logging;

/// Longest part of a refused value that is shown.
const SHOWN_CHARS_MAX: usize = 40;

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

/// Reads a number of seconds.
pub(in crate::cli) fn seconds(
    text: &str,
    allowed: &RangeInclusive<f64>,
) -> Result<Duration, String> {
    let seconds = decimal(text, allowed, " of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| too_small(allowed.start(), text))
}

/// Units of a size, the longest first.
const UNITS: [(&str, u64); 8] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("b", 1),
    ("", 1),
];

/// Reads a size in bytes, with or without a unit: `67108864`, `64MiB`, `64 MB`.
pub(in crate::cli) fn size(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?.trim_end(), *factor)))
        .unwrap_or((&lower, 1));
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "must be a size such as `64MiB`, not {}",
            quoted(text)
        ));
    }
    let bytes = number
        .parse::<u64>()
        .unwrap_or(u64::MAX)
        .saturating_mul(factor);
    if bytes < *allowed.start() {
        return Err(too_small(size_text(*allowed.start()), text));
    }
    if bytes > *allowed.end() {
        return Err(too_large(size_text(*allowed.end()), text));
    }
    Ok(bytes)
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

/// Reads the id of an event: any number of the column's type, since a sequence that ran out may
/// have been set to the negative half.
pub(in crate::cli) fn event_id(text: &str) -> Result<i64, String> {
    let number = integer(text)?;
    if number < i128::from(i64::MIN) {
        return Err(too_small(i64::MIN, text));
    }
    i64::try_from(number).map_err(|_| too_large(i64::MAX, text))
}

/// Refuses an empty text: a variable that a script forgot to set would otherwise widen the set that
/// the command works on.
pub(in crate::cli) fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a yes or no.
pub(in crate::cli) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("must be `true` or `false`, not {}", quoted(text))),
    }
}

/// Reads the threshold of the log.
pub(in crate::cli) fn log_level(text: &str) -> Result<LogLevel, String> {
    LogLevel::parse(text).ok_or_else(|| {
        format!(
            "must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {}",
            quoted(text)
        )
    })
}

/// Reads host names and addresses that are separated by commas, without ports, and returns them in
/// lower case.
pub(in crate::cli) fn host_names(text: &str) -> Result<Vec<String>, String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let is_name = |name: &str| {
        let has_port = name.contains(':') && !name.ends_with(']');
        !name.is_empty() && name.chars().all(is_fit) && !has_port
    };
    let names = text.split(',').map(str::trim);
    names
        .map(|name| {
            is_name(name)
                .then(|| name.to_ascii_lowercase())
                .ok_or_else(|| {
                    format!(
                        "must be host names without ports, separated by commas, not {}",
                        quoted(text)
                    )
                })
        })
        .collect()
}

/// Reads one host name or address without a port; an address of IPv6 may stand in the brackets that
/// it has in a URL.
pub(in crate::cli) fn host(text: &str) -> Result<String, String> {
    let refuse = |remedy: &str| {
        Err(format!(
            "must be an address or a host name, not {}{remedy}",
            quoted(text)
        ))
    };
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let host = bare.unwrap_or(text);
    // The part behind a percent sign names the interface of an address that only this host has.
    let address = host.split('%').next().unwrap_or_default();
    let is_v6 = address.parse::<Ipv6Addr>().is_ok();
    if host == "*" {
        refuse(": without this setting all addresses are meant; `0.0.0.0` is all of IPv4")
    } else if host.contains(':') && !is_v6 {
        refuse(": a port is given by --http-port")
    } else if host.is_empty()
        || bare.is_some() && !is_v6
        || host
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "/*[]".contains(c))
    {
        refuse("")
    } else {
        Ok(host.to_owned())
    }
}

/// Takes a value of the configuration file as the text that a flag would have.
pub(in crate::cli) fn from_toml(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(yes) => Ok(yes.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => Err(format!(
            "must be a single value, not of the type {}",
            value.type_str()
        )),
    }
}

/// Shows a number of seconds as [`seconds`] reads it.
pub(in crate::cli) fn seconds_text(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

/// Shows a size as [`size`] reads it.
pub(in crate::cli) fn size_text(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Shows a refused value in backticks: on one line, short, and not at all if it looks like a DSN
/// with a password in the wrong place.
pub(in crate::cli) fn quoted(text: &str) -> String {
    if *logging::redact(text) != *text {
        return "`***`".to_owned();
    }
    let harmless = logging::escape(text);
    match harmless.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("`{}…`", &harmless[..end]),
        None => format!("`{harmless}`"),
    }
}

fn too_small(least: impl Display, text: &str) -> String {
    format!("must be at least {least}, not {}", quoted(text))
}

fn too_large(most: impl Display, text: &str) -> String {
    format!("must be at most {most}, not {}", quoted(text))
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
    fn a_host_has_no_port() {
        for (text, read) in [
            ("localhost", "localhost"),
            ("0.0.0.0", "0.0.0.0"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(read), "{text}");
        }
        for (text, remedy) in [
            (
                "*",
                ": without this setting all addresses are meant; `0.0.0.0` is all of IPv4",
            ),
            ("127.0.0.1:18086", ": a port is given by --http-port"),
            ("[::1]:18086", ": a port is given by --http-port"),
            ("a b", ""),
            ("[h]", ""),
            ("[]", ""),
            ("", ""),
        ] {
            let refusal = format!("must be an address or a host name, not `{text}`{remedy}");
            assert_eq!(host(text), Err(refusal), "{text}");
        }
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

    #[test]
    fn a_size_has_a_unit_or_none() {
        let bytes = |text| size(text, &(1..=1 << 32));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("64 mb"), Ok(64_000_000));
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("7B"), Ok(7));
        assert_eq!(
            bytes("9GiB"),
            Err("must be at most 4GiB, not `9GiB`".into())
        );
        assert!(bytes("99999999999999999999GiB").is_err());
        for text in ["", "MiB", "1.5MiB", "-1", "1TiBs"] {
            assert_eq!(
                bytes(text),
                Err(format!("must be a size such as `64MiB`, not `{text}`"))
            );
        }
        assert_eq!(size_text(64 << 20), "64MiB");
        assert_eq!(size_text(1500), "1500");
    }

    #[test]
    fn host_names_have_no_ports() {
        assert_eq!(
            host_names("Outbox.internal, [FD00::1],10.0.0.1"),
            Ok(vec![
                "outbox.internal".to_owned(),
                "[fd00::1]".to_owned(),
                "10.0.0.1".to_owned()
            ])
        );
        for text in [
            "", "a,", "a:80", "[::1]:80", "fd00::1", "a b", "*", "http://a",
        ] {
            assert_eq!(
                host_names(text),
                Err(format!(
                    "must be host names without ports, separated by commas, not `{text}`"
                ))
            );
        }
    }

    #[test]
    fn a_refused_value_shows_no_secret_and_no_control_character() {
        assert_eq!(quoted("postgres://u:hunter2@h/"), "`***`");
        assert_eq!(quoted("password=my hunter2"), "`***`");
        assert_eq!(quoted("\u{1b}[31m"), "`\\x1b[31m`");
    }
}
