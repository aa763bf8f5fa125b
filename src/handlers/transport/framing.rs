//! How the body of an answer ends: what a status and the headers of length and coding say together.
//! Pure.

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, whatever the headers say.
    NoBody,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The length that all of the lines agree on; `Err` where they do not, or where one is no number.
pub(super) fn length<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<u64>, ()> {
    let mut found = None;
    for part in values.flat_map(|value| value.split(|byte| *byte == b',')) {
        let text = std::str::from_utf8(part.trim_ascii()).map_err(|_| ())?;
        // `parse` would take a sign.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        let length = text.parse().map_err(|_| ())?;
        if found.is_some_and(|found| found != length) {
            return Err(());
        }
        found = Some(length);
    }
    Ok(found)
}

/// How the body ends, and whether that is certain: where headers contradict each other the next
/// answer could begin anywhere.
pub(super) fn framing(
    status: u16,
    is_http10: bool,
    length: Result<Option<u64>, ()>,
    coding: Option<&[u8]>,
) -> (Framing, bool) {
    if matches!(status, 101 | 204 | 304) {
        let is_empty = coding.is_none() && matches!(length, Ok(None | Some(0)));
        return (Framing::NoBody, is_empty);
    }
    match (coding, length) {
        (Some(coding), length) => {
            let last = coding.rsplit(|byte| *byte == b',').next();
            let is_chunked =
                last.is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            if is_chunked && !is_http10 {
                (Framing::Chunked, length == Ok(None))
            } else {
                (Framing::UntilClose, false)
            }
        }
        (None, Ok(Some(length))) => (Framing::Length(length), true),
        (None, Ok(None) | Err(())) => (Framing::UntilClose, false),
    }
}
