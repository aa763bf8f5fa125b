//! Pure: numbers in the form that a person reads.

use std::fmt::Display;

/// Writes a whole number, or what one rounds to, with commas: `1,234,567`.
pub fn grouped(number: impl Display) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number of things: `1 event`, `2 events`, `3 processes`.
pub fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let ending = match (number, noun.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_number_is_grouped() {
        let shown: Vec<String> = [0_u64, 999, 1000, 48_500, 1_234_567].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "48,500", "1,234,567"]);
    }

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!(counted(0_u64, "event"), "0 events");
        assert_eq!(counted(1_u64, "event"), "1 event");
        assert_eq!(counted(2_u16, "event"), "2 events");
        assert_eq!(counted(1_u32, "process"), "1 process");
        assert_eq!(counted(3_u32, "process"), "3 processes");
    }

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0.0, 999.0, 1000.0, 1_234_567.4].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
