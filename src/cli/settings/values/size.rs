//! Sizes in bytes.

use std::ops::RangeInclusive;

use crate::cli::settings::values::{quoted, too_large, too_small};

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

/// Shows a size as [`size`] reads it.
pub(in crate::cli) fn size_text(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
