//! Laws of route patterns and of `Retry-After`, on generated texts. Only tests are built with it.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use proptest::prelude::*;
use ureq::http::{HeaderMap, HeaderValue, header};

use crate::handlers::http::answer::retry_after;
use crate::handlers::route::{check_pattern, covers, matches};
use crate::system::fuzz;

/// Event types and patterns of few letters, so that they meet.
fn event_type() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[ab.]{0,5}", 1 => any::<String>()]
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "([ab]\\.){0,2}[ab]{0,2}",
        4 => "([ab]{1,2}\\.){1,3}\\*",
        1 => Just("*".to_owned()),
        2 => "[ab.* ]{0,5}",
        1 => any::<String>(),
    ]
}

/// The documented meaning: an exact event type, `prefix.*`, or `*`.
fn is_pattern(text: &str) -> bool {
    let body = match text.strip_suffix(".*") {
        Some(prefix) => prefix,
        None if text == "*" => return true,
        None => text,
    };
    !body.is_empty()
        && !text.contains("://")
        && !body.contains('*')
        && !text.chars().any(char::is_control)
        && text.trim().len() == text.len()
}

/// By the segments between dots.
fn takes(pattern: &str, event_type: &str) -> bool {
    let segments: Vec<&str> = event_type.split('.').collect();
    match pattern.split('.').collect::<Vec<&str>>()[..] {
        ["*"] => true,
        [ref prefix @ .., "*"] => segments.len() > prefix.len() && segments.starts_with(prefix),
        ref exact => segments == exact,
    }
}

/// The three forms of a date that RFC 9110 knows.
fn date(at: u32, form: u8) -> String {
    let time = Timestamp::UNIX_EPOCH + Duration::from_secs(u64::from(at));
    let form = match form % 3 {
        0 => "%a, %d %b %Y %H:%M:%S GMT",
        1 => "%A, %d-%b-%y %H:%M:%S GMT",
        _ => "%a %b %e %H:%M:%S %Y",
    };
    time.strftime(form).to_string()
}

fn wish_of(wish: &[u8], date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_bytes(wish).ok()?);
    if let Some(date) = date {
        headers.insert(header::DATE, HeaderValue::from_str(date).ok()?);
    }
    retry_after(&headers, now)
}

proptest! {
    #![proptest_config(fuzz::cases(2000))]

    #[test]
    fn a_pattern_is_one_of_the_documented_forms(pattern in pattern()) {
        prop_assert_eq!(check_pattern(&pattern).is_ok(), is_pattern(&pattern));
    }

    #[test]
    fn a_pattern_takes_what_its_segments_say(pattern in pattern(), event_type in event_type()) {
        prop_assume!(check_pattern(&pattern).is_ok());
        prop_assert_eq!(matches(&pattern, &event_type), takes(&pattern, &event_type));
    }

    #[test]
    fn one_pattern_covers_another_where_it_takes_all_that_the_other_takes(
        earlier in pattern(), later in pattern(), event_type in event_type(),
    ) {
        prop_assume!(check_pattern(&earlier).is_ok() && check_pattern(&later).is_ok());
        // What `later` takes, and what hardly another pattern does.
        let body = later.trim_end_matches('*');
        let examples = [event_type, body.to_owned(), format!("{body}\u{1}")];
        let mut taken = examples.iter().filter(|example| matches(&later, example));
        prop_assert_eq!(covers(&earlier, &later), taken.all(|example| matches(&earlier, example)));
    }

    #[test]
    fn a_wish_in_seconds_is_that_number(digits in "[0-9]{1,25}", blank in "[ \t]{0,2}") {
        let expected = match digits.parse::<u128>() {
            Ok(0) => None,
            Ok(n) => Some(u64::try_from(n).map_or(Duration::MAX, Duration::from_secs)),
            Err(_) => Some(Duration::MAX),
        };
        let wish = format!("{blank}{digits}{blank}");
        prop_assert_eq!(wish_of(wish.as_bytes(), None, SystemTime::UNIX_EPOCH), expected);
    }

    #[test]
    fn a_wish_as_a_date_is_the_time_until_then(at: u32, from: u32, forms: [u8; 2], has_date: bool) {
        // Years of two digits mean those up to 2069.
        let (at, from) = (at.min(3_155_759_999), from.min(3_155_759_999));
        let expected = at.checked_sub(from).filter(|n| *n > 0).map(|n| Duration::from_secs(n.into()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(from.into());
        let found = if has_date {
            // Another clock of ours does not matter.
            wish_of(date(at, forms[0]).as_bytes(), Some(&date(from, forms[1])), SystemTime::now())
        } else {
            wish_of(date(at, forms[0]).as_bytes(), None, now)
        };
        prop_assert_eq!(found, expected, "{}", date(at, forms[0]));
    }

    #[test]
    fn what_is_neither_number_nor_date_is_no_wish(wish in prop_oneof![
        any::<Vec<u8>>(),
        "[0-9+. -]{0,6}".prop_map(String::into_bytes),
        "[MTWFS][a-z]{2}, [0-9]{2} [JFMASOND][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT?".prop_map(String::into_bytes),
    ]) {
        let found = wish_of(&wish, None, SystemTime::UNIX_EPOCH);
        let text = String::from_utf8_lossy(&wish);
        let is_number = !text.trim().is_empty() && text.trim().bytes().all(|byte| byte.is_ascii_digit());
        let is_date = httpdate::parse_http_date(text.trim()).is_ok();
        prop_assert!(found.is_none() || is_number || is_date, "{text}: {found:?}");
        prop_assert_ne!(found, Some(Duration::ZERO));
    }
}
