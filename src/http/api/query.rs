//! Pure: the query of a request → filter and page.
//!
//! Values are percent-decoded UTF-8, a plus sign is a space, an empty value is none. A percent sign
//! without two hexadecimal digits stands for itself, as in every browser. A name that counts may
//! come once: of two values, it is not known which one is meant. Other names are ignored, as they
//! always were, unless they look like a slip: a request whose filter is ignored shows, or counts,
//! all events.

use percent_encoding::percent_decode_str;

use crate::domain::event;
use crate::domain::nearest::slip_of;
use crate::store::dead::DeadFilter;

/// Events of one page at most.
const LIMIT_MAX: u32 = 1000;

const LIMIT_DEFAULT: u32 = 100;

/// How a time is to be written, for the message about a value in another form.
pub(in crate::http) const TIME_EXAMPLE: &str = "a time such as 2025-01-02T03:04:05Z";

/// Names that a filter may have.
const FILTER: [&str; 5] = ["aggregate_type", "event_type", "error", "since", "until"];

/// Further names that the body of a request that changes dead events may have.
const BODY: [&str; 4] = ["event_ids", "all", "dry_run", "after"];

/// One page of the dead events that a filter lets pass.
#[derive(Debug, PartialEq)]
pub(in crate::http) struct Page {
    pub(in crate::http) filter: DeadFilter,
    pub(in crate::http) limit: u32,
    pub(in crate::http) offset: u64,
}

/// Reads the page that `target` (path and query) asks for; the refusal names the parameter.
pub(in crate::http) fn page(target: &str) -> Result<Page, String> {
    let parameters = Parameters::of(target);
    parameters.check_names(&["limit", "offset"])?;
    Ok(Page {
        filter: parameters.filter()?,
        limit: parameters.limit()?,
        offset: parameters.offset()?,
    })
}

/// Reads the filter alone.
pub(in crate::http) fn filter(target: &str) -> Result<DeadFilter, String> {
    let parameters = Parameters::of(target);
    parameters.check_names(&[])?;
    parameters.filter()
}

/// Refuses parameters in the query of a change that count only in its body: ignored in the query,
/// `dry_run` would not be obeyed.
pub(in crate::http) fn nothing(target: &str) -> Result<(), String> {
    let names = || FILTER.iter().chain(&BODY).copied();
    for (name, _) in &Parameters::of(target).0 {
        let name = decoded(name);
        if let Some(meant) = slip_of(&String::from_utf8_lossy(&name), names()) {
            return Err(format!(
                "{meant} must stand in the body of the request, not in its URL"
            ));
        }
    }
    Ok(())
}

/// Refuses a name that is none of the known ones and yet probably means one of them.
pub(in crate::http) fn check_name<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), String> {
    if known.clone().any(|one| one == name) {
        return Ok(());
    }
    slip_of(name, known).map_or(Ok(()), |meant| {
        Err(format!("{meant} is misspelled as {name}"))
    })
}

/// Takes a text that is to be compared with a column: an empty one is none, and no column can hold
/// a NUL.
pub(in crate::http) fn text(name: &str, value: &str) -> Result<Option<String>, String> {
    if value.contains('\0') {
        return Err(format!("{name} must not contain a NUL character"));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// Takes a time: microseconds since 1970.
pub(in crate::http) fn time(name: &str, value: &str) -> Result<Option<i64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let micros = event::micros_of(value);
    micros
        .map(Some)
        .ok_or_else(|| format!("{name} must be {TIME_EXAMPLE}"))
}

/// Names and values as they were sent.
struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    fn of(target: &'a str) -> Parameters<'a> {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default();
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Parameters(pairs.collect())
    }

    /// Refuses names that are probably slips of those of a filter or of `more`.
    fn check_names(&self, more: &[&'static str]) -> Result<(), String> {
        let known = || FILTER.iter().chain(more).copied();
        for (name, _) in &self.0 {
            let name = decoded(name);
            let name = String::from_utf8_lossy(&name);
            check_name(&name, known())?;
        }
        Ok(())
    }

    fn filter(&self) -> Result<DeadFilter, String> {
        Ok(DeadFilter {
            aggregate_type: self.text("aggregate_type")?,
            event_type: self.text("event_type")?,
            event_type_prefix: None,
            error: self.text("error")?,
            since_micros: self.time("since")?,
            until_micros: self.time("until")?,
        })
    }

    fn limit(&self) -> Result<u32, String> {
        let Some(limit) = self.integer("limit")? else {
            return Ok(LIMIT_DEFAULT);
        };
        if limit < 1 {
            return Err("limit must be at least 1".to_owned());
        }
        Ok(u32::try_from(limit).unwrap_or(LIMIT_MAX).min(LIMIT_MAX))
    }

    fn offset(&self) -> Result<u64, String> {
        let offset = self.integer("offset")?.unwrap_or(0);
        if offset < 0 {
            return Err("offset must be non-negative".to_owned());
        }
        // The database counts in int8.
        i64::try_from(offset)
            .map(i64::unsigned_abs)
            .map_err(|_| format!("offset must be at most {}", i64::MAX))
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        text(name, &self.value(name)?.unwrap_or_default())
    }

    /// Reads a time. A plus sign that was not encoded arrives as a space; no valid time holds a
    /// space before its offset.
    fn time(&self, name: &str) -> Result<Option<i64>, String> {
        let value = self.value(name)?.unwrap_or_default();
        let mended = match value.rsplit_once(' ') {
            Some((begin, offset)) if begin.contains(':') => format!("{begin}+{offset}"),
            _ => value,
        };
        time(name, &mended)
    }

    /// Reads a number of any length, so that too many digits are refused as out of range and not as
    /// malformed.
    fn integer(&self, name: &str) -> Result<Option<i128>, String> {
        let Some(text) = self.value(name)? else {
            return Ok(None);
        };
        let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{name} must be an integer"));
        }
        let outermost = if text.starts_with('-') {
            i128::MIN
        } else {
            i128::MAX
        };
        Ok(Some(text.parse().unwrap_or(outermost)))
    }

    fn value(&self, name: &str) -> Result<Option<String>, String> {
        let mut found = None;
        for (known, value) in &self.0 {
            if decoded(known) != name.as_bytes() {
                continue;
            }
            if found.is_some() {
                return Err(format!("{name} must be given only once"));
            }
            let value = String::from_utf8(decoded(value));
            found = Some(value.map_err(|_| format!("{name} must be valid UTF-8"))?);
        }
        Ok(found)
    }
}

/// Decodes a name or a value. The plus signs of the text come first: an encoded one is a plus sign.
fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(query: &str) -> String {
        format!("/api/dead-events?{query}")
    }

    fn event_type(query: &str) -> Result<Option<String>, String> {
        filter(&target(query)).map(|filter| filter.event_type)
    }

    #[track_caller]
    fn check_refused(query: &str, refusal: &str) {
        assert_eq!(page(&target(query)), Err(refusal.to_owned()), "{query}");
    }

    #[test]
    fn nothing_said_means_the_first_hundred_of_all() {
        let all = Page {
            filter: DeadFilter::default(),
            limit: 100,
            offset: 0,
        };
        for query in [
            "",
            "event_type=&aggregate_type&error=&since=",
            "_=1&&=&x=%00",
        ] {
            assert_eq!(page(&target(query)).as_ref(), Ok(&all), "{query}");
        }
        assert_eq!(page("/api/dead-events"), Ok(all));
    }

    #[test]
    fn values_are_percent_decoded_utf_8() {
        for (query, expected) in [
            ("event_type=order.created", "order.created"),
            ("event_type=gr%C3%BC%C3%9fe", "grüße"),
            ("event%5Ftype=a+b%2Bc%20d", "a b+c d"),
            ("event_type=a=b%26c", "a=b&c"),
            ("event_type=50%&limit=1", "50%"),
            ("event_type=%zz%4", "%zz%4"),
            ("event_type=a#b", "a"),
            ("event_type=%F0%9F%93%AE", "📮"),
        ] {
            assert_eq!(event_type(query), Ok(Some(expected.to_owned())), "{query}");
        }
        check_refused("event_type=%FF", "event_type must be valid UTF-8");
        check_refused("aggregate_type=%C3", "aggregate_type must be valid UTF-8");
        check_refused("error=a%00b", "error must not contain a NUL character");
    }

    #[test]
    fn a_slip_is_not_ignored() {
        check_refused("event_typ=a", "event_type is misspelled as event_typ");
        check_refused("Error=a", "error is misspelled as Error");
        check_refused("limt=7", "limit is misspelled as limt");
        assert!(filter(&target("limt=7")).is_ok(), "there is no limit");
        assert!(
            page(&target(
                "_=1&order=asc&callback=x&aggregate_id=7&event_id=7"
            ))
            .is_ok()
        );
        for name in ["dry-run", "dryRun", "dry_rum"] {
            assert!(nothing(&format!("/x?{name}=true")).is_err(), "{name}");
        }
        assert_eq!(nothing("/api/dead-events/discard?_=1"), Ok(()));
        assert_eq!(
            nothing("/api/dead-events/discard?dry%5Frun=true"),
            Err("dry_run must stand in the body of the request, not in its URL".to_owned())
        );
    }

    #[test]
    fn of_two_values_none_is_meant() {
        check_refused("limit=1&limit=2", "limit must be given only once");
        check_refused(
            "event_type=a&event_typ%65=a",
            "event_type must be given only once",
        );
    }

    #[test]
    fn a_limit_is_capped_and_an_offset_fits_the_database() {
        let limit = |text: &str| page(&target(&format!("limit={text}"))).map(|page| page.limit);
        for (text, expected) in [("1", 1), ("1000", 1000), ("1001", 1000), ("+5", 5)] {
            assert_eq!(limit(&text.replace('+', "%2B")), Ok(expected), "{text}");
        }
        assert_eq!(limit(&"9".repeat(60)), Ok(1000));
        for text in ["0", "-1", &format!("-{}", "9".repeat(60))] {
            check_refused(&format!("limit={text}"), "limit must be at least 1");
        }
        for text in ["", "ten", "1.5", "1e3", "0x10", "%20", "1%00"] {
            check_refused(&format!("limit={text}"), "limit must be an integer");
            check_refused(&format!("offset={text}"), "offset must be an integer");
        }
        let offset = |text: &str| page(&target(&format!("offset={text}"))).map(|page| page.offset);
        assert_eq!(offset("9223372036854775807"), Ok(9_223_372_036_854_775_807));
        check_refused("offset=-1", "offset must be non-negative");
        check_refused(
            "offset=9223372036854775808",
            "offset must be at most 9223372036854775807",
        );
    }

    #[test]
    fn a_time_has_an_offset_even_if_its_plus_sign_was_lost() {
        for text in [
            "2025-01-02T03:04:05Z",
            "2025-01-02T03:04:05%2B00:00",
            "2025-01-02T03:04:05+00:00",
            "2025-01-02T04:04:05+01:00",
            "2025-01-02+04:04:05+01:00",
            "2025-01-01T22:04:05-05:00",
        ] {
            let since = filter(&target(&format!("since={text}"))).map(|filter| filter.since_micros);
            assert_eq!(since, Ok(Some(1_735_787_045_000_000)), "{text}");
        }
        for text in [
            "yesterday",
            "2025-01-02",
            "2025-01-02T03:04:05",
            "1735787045",
            "infinity",
        ] {
            check_refused(
                &format!("until={text}"),
                "until must be a time such as 2025-01-02T03:04:05Z",
            );
        }
    }
}
