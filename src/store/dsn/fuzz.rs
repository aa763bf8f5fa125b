//! Laws of the two forms of a connection description, on generated texts. Only tests are built
//! with it.

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use crate::store::dsn::keywords::KEYWORDS;
use crate::store::dsn::{Dsn, text};
use crate::system::fuzz;

/// A word that a person would not want to see in an error, such as a password.
const SECRET: &str = "Zq9-Xk7";

type Words = Vec<(String, String)>;

fn read(text: &str) -> Result<Words, String> {
    let words = text::parse(text).map_err(|error| error.to_string())?;
    let named = words.into_iter();
    Ok(named
        .map(|(keyword, value)| (keyword.name.to_owned(), value))
        .collect())
}

fn keyword() -> impl Strategy<Value = &'static str> {
    (0..KEYWORDS.len()).prop_map(|at| KEYWORDS[at].name)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9/.,:-]{0,12}",
        "[ \t\n'\\\\=%@/?&,:\\[\\]#+]{0,6}",
        any::<String>().prop_map(|text| text.replace('\0', "")),
    ]
}

/// What libpq's `conninfo_parse` makes of a text, in the steps of its C code; an error is `None`.
fn libpq(text: &str) -> Option<Words> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let bytes = text.as_bytes();
    let at = |n: usize| bytes.get(n).copied().unwrap_or(0);
    let skip = |mut n: usize| {
        while is_space(at(n)) {
            n += 1;
        }
        n
    };
    let (mut words, mut cp) = (Words::new(), skip(0));
    while at(cp) != 0 {
        let begin = cp;
        while at(cp) != 0 && at(cp) != b'=' && !is_space(at(cp)) {
            cp += 1;
        }
        let name = String::from_utf8(bytes[begin..cp].to_vec()).ok()?;
        cp = skip(cp);
        if at(cp) != b'=' {
            return None;
        }
        cp = skip(cp + 1);
        let is_quoted = at(cp) == b'\'';
        cp += usize::from(is_quoted);
        let mut value = Vec::new();
        loop {
            match at(cp) {
                0 if is_quoted => return None,
                0 => break,
                b'\\' => {
                    cp += 1;
                    if at(cp) != 0 {
                        value.push(at(cp));
                        cp += 1;
                    }
                    continue;
                }
                b'\'' if is_quoted => {
                    cp += 1;
                    break;
                }
                byte if !is_quoted && is_space(byte) => break,
                byte => value.push(byte),
            }
            cp += 1;
        }
        let value = String::from_utf8(value).ok()?;
        if name == "requiressl" {
            let mode = if value.starts_with('1') {
                "require"
            } else {
                "prefer"
            };
            words.push(("sslmode".to_owned(), mode.to_owned()));
        } else {
            KEYWORDS.iter().find(|keyword| keyword.name == name)?;
            words.push((name, value));
        }
        cp = skip(cp);
    }
    Some(words)
}

/// Texts that are nearly in the keyword form.
fn keyword_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => keyword().prop_map(str::to_owned),
        4 => Just("=".to_owned()),
        2 => "[ \t\n\r\u{b}\u{c}]{1,2}",
        2 => "['\\\\]{1,2}",
        2 => "[a-z0-9./]{1,6}",
        1 => Just("requiressl=1".to_owned()),
        1 => Just(SECRET.to_owned()),
        1 => any::<char>().prop_map(|c| c.to_string().replace('\0', "")),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

/// Texts that are nearly URLs.
fn url_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => keyword().prop_map(str::to_owned),
        6 => "[@:/?&=,#\\[\\]]",
        3 => "[a-z0-9.-]{1,6}",
        3 => "%[0-9a-fA-F]{2}",
        1 => "%[0-9a-zA-Z%]{0,2}",
        1 => Just(SECRET.to_owned()),
        1 => any::<char>().prop_map(|c| c.to_string()),
    ];
    let scheme = prop_oneof![Just("postgresql://"), Just("postgres://")];
    (scheme, prop::collection::vec(piece, 0..14))
        .prop_map(|(scheme, pieces)| format!("{scheme}{}", pieces.concat()))
}

/// Writes a value so that it is read back: quoted, or with backslashes.
fn written(value: &str, is_quoted: bool) -> String {
    if is_quoted || value.is_empty() {
        return format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    }
    value.chars().flat_map(|c| ['\\', c]).collect()
}

/// Encodes for a URL: everything but letters and digits, and these too where `all` says so.
fn encoded(value: &str, all: bool) -> String {
    let code = |byte: u8| {
        if byte.is_ascii_alphanumeric() && !all {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02x}")
        }
    };
    value.bytes().map(code).collect()
}

/// The parts of a URL, empty where they are left out.
#[derive(Debug, Clone)]
struct Parts {
    user: String,
    password: String,
    hosts: Vec<(String, String)>,
    dbname: String,
    parameters: Words,
}

fn parts() -> impl Strategy<Value = Parts> {
    let text = || "[^\0]{0,8}";
    let host = prop_oneof![
        "[a-z0-9.-]{0,8}",
        "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){2}",
        "/[a-z/]{1,9}"
    ];
    let hosts = prop::collection::vec((host, "[0-9]{0,5}"), 1..4);
    let parameters = prop::collection::vec((keyword().prop_map(str::to_owned), text()), 0..4);
    (text(), text(), hosts, text(), parameters).prop_map(
        |(user, password, hosts, dbname, parameters)| Parts {
            user,
            password,
            hosts,
            dbname,
            parameters,
        },
    )
}

impl Parts {
    fn url(&self, all: bool) -> String {
        let [user, password, dbname] =
            [&self.user, &self.password, &self.dbname].map(|text| encoded(text, all));
        let login = if user.is_empty() && password.is_empty() {
            String::new()
        } else {
            format!("{user}:{password}@")
        };
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|(host, port)| {
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    encoded(host, all)
                };
                if port.is_empty() {
                    host
                } else {
                    format!("{host}:{port}")
                }
            })
            .collect();
        let url = format!("postgresql://{login}{}/{dbname}", hosts.join(","));
        let parameters = self.parameters.iter();
        let pairs: Vec<String> = parameters
            .map(|(name, value)| format!("{name}={}", encoded(value, all)))
            .collect();
        if pairs.is_empty() {
            url
        } else {
            format!("{url}?{}", pairs.join("&"))
        }
    }

    fn words(&self) -> Words {
        let list = |of: fn(&(String, String)) -> &str| {
            self.hosts.iter().map(of).collect::<Vec<&str>>().join(",")
        };
        let parts = [
            ("user", self.user.clone()),
            ("password", self.password.clone()),
            ("host", list(|host| &host.0)),
            ("port", list(|host| &host.1)),
            ("dbname", self.dbname.clone()),
        ];
        let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
        let given = given.map(|(name, value)| (name.to_owned(), value));
        given.chain(self.parameters.iter().cloned()).collect()
    }
}

proptest! {
    #![proptest_config(fuzz::cases(1000))]

    #[test]
    fn what_is_written_in_keywords_is_read_back(
        words in prop::collection::vec((keyword(), value(), any::<bool>(), "[ \t\n]{0,2}"), 0..6),
    ) {
        let texts: Vec<String> = words.iter().map(|(name, value, is_quoted, blank)| {
            format!("{blank}{name}{blank}={blank}{} ", written(value, *is_quoted))
        }).collect();
        let text = texts.concat();
        let expected: Words = words.into_iter().map(|(name, value, ..)| (name.to_owned(), value)).collect();

        prop_assert_eq!(read(&text), Ok(expected), "{}", text);
    }

    #[test]
    fn keywords_are_read_as_libpq_reads_them(text in keyword_like()) {
        prop_assume!(!text.starts_with("postgres"));
        prop_assert_eq!(read(&text).ok(), libpq(&text), "{}", text);
    }

    #[test]
    fn what_is_written_in_a_url_is_read_back(parts in parts(), all: bool) {
        let url = parts.url(all);

        prop_assert_eq!(read(&url), Ok(parts.words()), "{}", url);
    }

    #[test]
    fn codes_in_a_url_mean_what_they_mean_everywhere(raw in "([a-z+ ]|%[0-9a-f]{2}|%[0-9a-zA-Z%]{0,2}|é){0,8}") {
        let found = read(&format!("postgresql:///?password={raw}"));

        // Blanks around a value do not count; between, they have to be written as %20.
        let trimmed = raw.trim_matches(' ');
        let reference = percent_decode_str(trimmed).decode_utf8().ok();
        // The crate leaves what is no code as it is, where libpq refuses it.
        let is_code = |after: &str| {
            after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()) && !after.starts_with("00")
        };
        let is_whole = raw.split('%').skip(1).all(is_code);
        // `%` must not be a digit of a code before it, so splitting at it is right.
        let expected = reference.filter(|_| is_whole && !trimmed.contains(' '));
        prop_assert_eq!(
            found.ok(),
            expected.map(|value| vec![("password".to_owned(), value.into_owned())]),
            "{}", raw
        );
    }

    #[test]
    fn no_error_shows_what_may_be_a_secret(text in prop_oneof![keyword_like(), url_like(), any::<String>()]) {
        // The name of a service that is not there is shown, and that of its file.
        prop_assume!(!text.contains("service"));
        if let Err(error) = Dsn::parse(&text) {
            prop_assert!(!error.to_string().contains(SECRET), "{text}: {error}");
        }
    }

    #[test]
    fn a_description_reaches_a_worker_as_it_is_and_names_no_password(
        text in prop_oneof![keyword_like(), url_like()],
        parts in parts(),
    ) {
        let url = Parts { password: SECRET.to_owned(), parameters: Vec::new(), ..parts }.url(false);
        for (text, is_url) in [(text, false), (url, true)] {
            if let Ok(dsn) = Dsn::parse(&text) {
                let line = serde_json::to_string(&dsn).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(serde_json::from_str::<Dsn>(&line).ok(), Some(dsn.clone()));
                // In the other texts the word may stand for a host or a database.
                prop_assert!(!is_url || !format!("{dsn:?}").contains(SECRET), "{}", text);
            }
        }
    }
}
