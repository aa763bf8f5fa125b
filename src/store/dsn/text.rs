//! The two forms of a connection description: `keyword=value …` and `postgresql://…`, read as libpq
//! reads them.

use crate::store::dsn::DsnError;
use crate::store::dsn::keywords::{self, Keyword};

/// What a text says, in its order; of a keyword that occurs twice the last one counts.
pub(super) type Words = Vec<(&'static Keyword, String)>;

/// Reads either form.
pub(super) fn parse(text: &str) -> Result<Words, DsnError> {
    if text.contains('\0') {
        return Err(DsnError::new("it holds a NUL character"));
    }
    let url = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => parse_url(rest),
        None if is_url_like(text) => Err(DsnError::new(
            "a URL must begin with postgresql:// or postgres://",
        )),
        None => parse_keywords(text),
    }
}

/// Says whether a URL was meant: one of another scheme, or `postgres//…` and the like.
fn is_url_like(text: &str) -> bool {
    let rest = ["postgresql", "postgres"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    text.contains("://") && !text.contains('=')
        || rest.is_some_and(|rest| rest.starts_with([':', '/']))
}

/// What C's `isspace` calls space.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn parse_keywords(text: &str) -> Result<Words, DsnError> {
    let mut words = Words::new();
    let mut rest = text.trim_start_matches(is_blank);
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || is_blank(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        // The word is not shown: it may be the second half of a password that was not quoted.
        let after = after
            .trim_start_matches(is_blank)
            .strip_prefix('=')
            .ok_or_else(|| {
                DsnError::new(format!(
                    "word {} has no `=`; a value that holds blanks needs quotes: application_name='my shop'",
                    words.len() + 1
                ))
            })?;
        let (value, after) = value_of(after.trim_start_matches(is_blank))?;
        store(&mut words, name, value)?;
        rest = after.trim_start_matches(is_blank);
    }
    Ok(words)
}

/// Takes a value, quoted or not; a backslash escapes what follows it in both.
fn value_of(text: &str) -> Result<(String, &str), DsnError> {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            // A backslash at the very end escapes nothing and is dropped, as libpq does.
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted.is_some() => return Ok((value, &text[at + 1..])),
            c if quoted.is_none() && is_blank(c) => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted.is_some() {
        return Err(DsnError::new("a quoted value is not closed"));
    }
    Ok((value, ""))
}

fn store(words: &mut Words, name: &str, value: String) -> Result<(), DsnError> {
    // The old spelling of sslmode.
    let (name, value) = match name {
        "requiressl" if value.starts_with('1') => ("sslmode", "require".to_owned()),
        "requiressl" => ("sslmode", "prefer".to_owned()),
        _ => (name, value),
    };
    words.push((keywords::find(name)?, value));
    Ok(())
}

fn parse_url(rest: &str) -> Result<Words, DsnError> {
    let mut words = Words::new();
    let mut put = |name: &str, raw: &str| {
        if raw.is_empty() {
            return Ok(());
        }
        let value = decode(name, raw)?;
        words.push((keywords::find(name)?, value));
        Ok(())
    };

    // As in libpq, a user stands there only when `@` comes before the first `/`.
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let rest = match authority.find('@') {
        None => rest,
        Some(at) => {
            let (user, password) = authority[..at]
                .split_once(':')
                .unwrap_or((&authority[..at], ""));
            put("user", user)?;
            put("password", password)?;
            &rest[at + 1..]
        }
    };
    let (hosts, ports, rest) = split_hosts(rest)?;
    put("host", &hosts)?;
    put("port", &ports)?;
    let (path, query) = rest
        .split_once('?')
        .map_or((rest, None), |(path, query)| (path, Some(query)));
    put("dbname", path.strip_prefix('/').unwrap_or(path))?;
    for pair in query
        .into_iter()
        .filter(|query| !query.is_empty())
        .flat_map(|query| query.split('&'))
    {
        parse_parameter(&mut words, pair)?;
    }
    Ok(words)
}

/// Splits `host:port,[::1]:port…` into a list of hosts and a list of ports; what follows begins
/// with `/`, `?` or nothing.
fn split_hosts(text: &str) -> Result<(String, String, &str), DsnError> {
    let mut hosts = String::new();
    let mut ports = String::new();
    let mut rest = text;
    loop {
        let (host, after) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed
                .split_once(']')
                .filter(|(host, _)| !host.is_empty())
                .ok_or_else(|| {
                    DsnError::new("an IPv6 address in a URL must stand in brackets: [::1]")
                })?;
            if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
                return Err(DsnError::new(
                    "unexpected characters follow an IPv6 address",
                ));
            }
            (host, after)
        } else {
            rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len()))
        };
        hosts.push_str(host);
        rest = after;
        if let Some(after) = rest.strip_prefix(':') {
            let (port, after) = after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len()));
            ports.push_str(port);
            rest = after;
        }
        match rest.strip_prefix(',') {
            None => return Ok((hosts, ports, rest)),
            Some(after) => {
                hosts.push(',');
                ports.push(',');
                rest = after;
            }
        }
    }
}

fn parse_parameter(words: &mut Words, pair: &str) -> Result<(), DsnError> {
    let (name, raw) = pair
        .split_once('=')
        .filter(|(_, raw)| !raw.contains('='))
        .ok_or_else(|| {
            DsnError::new(
                "each parameter behind `?` must have one `=`; write `=` in a value as %3D",
            )
        })?;
    let name = decode("a parameter's name", name)?;
    let value = decode(&name, raw)?;
    // JDBC's spelling.
    if name == "ssl" && value == "true" {
        return store(words, "sslmode", "require".to_owned());
    }
    store(words, &name, value)
}

/// Decodes `%41`; nothing else, `+` stays. As in PostgreSQL 18, blanks around a part of the URL do
/// not count, and in between they have to be written as %20.
fn decode(what: &str, raw: &str) -> Result<String, DsnError> {
    let what = if keywords::find(what).is_ok() {
        what
    } else {
        "a parameter"
    };
    let broken = || {
        DsnError::new(format!(
            "{what} holds a `%` code that cannot be read; write `%` itself as %25"
        ))
    };
    let raw = raw.trim_matches(' ');
    if raw.contains(is_blank) {
        return Err(DsnError::new(format!(
            "{what} holds a blank; in a URL it is written as %20"
        )));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let code = digit(rest.next())
            .zip(digit(rest.next()))
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            .filter(|code| *code != 0)
            .ok_or_else(broken)?;
        bytes.push(code);
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the time to read a text grows with its length and not faster. Method: a quadratic
    /// reader would need hours for these.
    #[test]
    fn a_megabyte_of_anything_is_read() {
        for piece in [
            "a",
            "host=a ",
            "'",
            "\\",
            "a=",
            "=",
            "host='\\' ",
            "%41",
            ",",
            "[::1]:1,",
            "?a=b&",
            "@",
            " ",
        ] {
            let text = piece.repeat((1 << 20) / piece.len());
            let _ = parse(&text);
            let _ = parse(&format!("postgresql://{text}"));
            let _ = parse(&format!("postgresql://h/d?{text}"));
            let _ = parse(&format!("host='{text}"));
        }
    }
}
