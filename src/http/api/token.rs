//! The token that opens the API: read from a file once, compared in constant time, shown nowhere.
//!
//! It is a file and not an option or a variable: command lines stand in the process list, and
//! environments in `/proc`, crash reports and unit dumps. The file is read at the start alone. A
//! changed token needs a restart, which costs no event.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use subtle::ConstantTimeEq as _;

/// Fewest bytes of a token: a shorter one could be guessed.
const BYTES_MIN: usize = 16;

/// Most bytes of the file: a longer one holds something else, and the token must fit into the head
/// of a request.
const BYTES_MAX: usize = 1024;

/// Mode bits that let every user of the host read or write.
const OTHERS_READ_OR_WRITE: u32 = 0o006;

/// The secret that a client of the API shows.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

impl ApiToken {
    /// Reads the token from a file; the refusal names the file and never shows what is in it.
    pub fn read(path: &str) -> Result<ApiToken, String> {
        let failed =
            |error: std::io::Error| format!("names `{path}`, which cannot be read: {error}");
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & OTHERS_READ_OR_WRITE != 0 {
            return Err(format!(
                "names `{path}`, which every user of this host can read or write: `chmod o= {path}`"
            ));
        }
        let mut text = String::new();
        file.take(BYTES_MAX as u64 + 3)
            .read_to_string(&mut text)
            .map_err(failed)?;
        ApiToken::parse(&text).map_err(|refusal| format!("names `{path}`, which {refusal}"))
    }

    /// Takes the text of a file; the last line end does not count.
    pub(in crate::http) fn parse(text: &str) -> Result<ApiToken, String> {
        let token = text.strip_suffix('\n').unwrap_or(text);
        let token = token.strip_suffix('\r').unwrap_or(token);
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must hold one line of visible ASCII characters".to_owned());
        }
        if token.len() < BYTES_MIN {
            return Err(format!(
                "must hold at least {BYTES_MIN} bytes, not {}: `openssl rand -hex 32` makes a token",
                token.len()
            ));
        }
        if token.len() > BYTES_MAX {
            return Err(format!("must hold at most {BYTES_MAX} bytes"));
        }
        Ok(ApiToken(token.to_owned()))
    }

    /// Says whether this is the token. The time that takes does not depend on how many characters
    /// are right.
    pub fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    /// The token itself, for a client's Authorization header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_the_token() {
        let token = "0123456789abcdef";
        for text in [
            token.to_owned(),
            format!("{token}\n"),
            format!("{token}\r\n"),
        ] {
            assert_eq!(
                ApiToken::parse(&text).map(|token| token.0),
                Ok(token.into())
            );
        }
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        let long = "x".repeat(1025);
        for text in [
            "",
            "\n",
            "0123456789abcde\n",
            "0123456789 abcdef",
            "0123456789abcdef\n\n",
            "0123456789abcdef\nmore",
            "0123456789abcdé!",
            "\u{0}123456789abcdef",
            &long,
        ] {
            let refusal = ApiToken::parse(text).expect_err("no token");
            assert!(!refusal.contains("0123"), "{refusal}");
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = ApiToken("0123456789abcdef".to_owned());
        assert!(token.is("0123456789abcdef"));
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789abcdeF",
        ] {
            assert!(!token.is(wrong), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "ApiToken(***)");
    }
}
