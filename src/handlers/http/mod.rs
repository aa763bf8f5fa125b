//! The `http` handler: a POST per event.
//!
//! The body is the event's JSON, with `Content-Type: application/json`, `Dispatchbox-Event-Id` (the
//! same in every attempt, so that a receiver can recognize a repetition), `Dispatchbox-Event-Type`
//! (unless it is longer than 4 KiB) and `Dispatchbox-Attempt`. The status of the answer is its
//! word: 2xx is done, the route's `dead_statuses` are dead at once, everything else is worth
//! another attempt, a network error, a time-out and a redirect among it; `Retry-After` is honoured
//! with 429 and 503. Redirects are never followed and the proxy variables of the environment not
//! used: an event goes to the configured receiver and nowhere else.
//!
//! How the POST is made is described in `post`.
//!
//! **Secrets.** A user and password in the URL become an `Authorization: Basic` header. A path may
//! be the credential as well, as that of a chat room's hook. So a reason names scheme, host and
//! port alone. A URL that comes from a file is read again when the file changes.

mod lookup;
mod post;
mod receiver;
mod url_file;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::handlers::http::post::Post;
use crate::handlers::http::receiver::shown_url;
use crate::handlers::http::url_file;
use crate::handlers::keys::{Key, Keys};
use crate::handlers::kind::{Build, Deliver, Environment, Kind, Secrets, Settings};
use crate::system::logging::{self, quoted};

/// Statuses that make an event dead at once unless the route says otherwise: they blame the request
/// itself, which is the same in each attempt (bad request, gone, too large, wrong type,
/// unprocessable).
pub const DEAD_STATUSES: [u16; 5] = [400, 410, 413, 415, 422];

/// Statuses that may be named as making an event dead at once: 2xx means done.
const DEAD_STATUS: RangeInclusive<u16> = 300..=599;

/// Stands in place of a URL that was not read; no name under this domain resolves.
const UNREAD_URL: &str = "http://unread.invalid/";

/// Variables that name a proxy for programs.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The settings: where to, and which answers make an event dead.
#[derive(Serialize, Deserialize)]
pub(super) struct HttpSettings {
    /// Where to: http or https.
    url: String,
    /// Where the URL stands.
    url_source: UrlSource,
    /// Statuses that make an event dead at once.
    dead_statuses: Vec<u16>,
}

/// Where the URL of a route stands.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UrlSource {
    /// In the route itself.
    Route,
    /// In a variable of the environment: the URL is secret.
    Environment,
    /// In a file, which is read again when it changes: the URL is secret.
    File(String),
}

impl Kind for HttpSettings {
    const NAME: &'static str = "http";
    const SUMMARY: &'static str = "a POST of the event as JSON for each event";
    const FORMS: &'static [&'static str] = &["http://…", "https://…"];
    const KEYS: &'static [Key] = &[
        Key {
            name: "url",
            help: "where to, unless one of the two keys below says so",
        },
        Key {
            name: "url_file",
            help: "file that holds the URL where that is a secret; read again when it changes",
        },
        Key {
            name: "url_env",
            help: "variable of the environment that holds the URL where that is a secret",
        },
        Key {
            name: "dead_statuses",
            help: "list of the statuses, from 300 to 599, that make an event dead at once \
                   [default: 400, 410, 413, 415, 422]",
        },
    ];

    fn from_flag(text: &str) -> Option<Result<HttpSettings, String>> {
        (text.starts_with("https://") || text.starts_with("http://")).then(|| {
            Ok(HttpSettings {
                url: text.to_owned(),
                url_source: UrlSource::Route,
                dead_statuses: DEAD_STATUSES.to_vec(),
            })
        })
    }

    fn from_table(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<HttpSettings, String> {
        let (url, url_source) = url_of(keys, secrets)?;
        Ok(HttpSettings {
            url,
            url_source,
            dead_statuses: dead_statuses_of(keys)?,
        })
    }

    /// Warns that a proxy is not used, where one is set and a route could mean it. The values may
    /// hold a password.
    fn warning_of(environment: &Environment) -> Option<String> {
        let is_set = |name: &&str| {
            environment
                .get(*name)
                .is_some_and(|value| !value.is_empty())
        };
        let set: Vec<&str> = PROXY_VARIABLES.into_iter().filter(is_set).collect();
        (!set.is_empty()).then(|| {
            format!(
                "{} in the environment has no effect: http routes connect to their receivers themselves, and use no proxy",
                set.join(", ")
            )
        })
    }
}

impl Settings for HttpSettings {
    fn build(&self, build: Build<'_>) -> Result<Box<dyn Deliver>, String> {
        let file = match &self.url_source {
            UrlSource::File(path) => Some(path.as_str()),
            UrlSource::Route | UrlSource::Environment => None,
        };
        let post = Post::new(&self.url, file, &self.dead_statuses, build)?;
        let is_wrong = |status: &&u16| !DEAD_STATUS.contains(*status);
        match self.dead_statuses.iter().find(is_wrong) {
            None => Ok(Box::new(post)),
            Some(status) => Err(format!(
                "dead statuses must be between {} and {}, not {status}",
                DEAD_STATUS.start(),
                DEAD_STATUS.end()
            )),
        }
    }

    /// Shows the URL without its user part and query, and without its path where it is secret.
    fn shown(&self) -> String {
        if self.url_source != UrlSource::Route {
            return shown_url(&self.url);
        }
        let end = self.url.find(['?', '#']).unwrap_or(self.url.len());
        logging::redact(&self.url[..end]).into_owned()
    }

    fn unusual(&self) -> Option<String> {
        (self.dead_statuses != DEAD_STATUSES)
            .then(|| format!("dead_statuses {:?}", self.dead_statuses))
    }
}

/// Finds the URL by the one key that says where it stands. No refusal repeats it.
fn url_of(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<(String, UrlSource), String> {
    let given: Vec<&str> = ["url", "url_file", "url_env"]
        .into_iter()
        .filter(|key| keys.get(key).is_some())
        .collect();
    match given.as_slice() {
        [] => Err(
            "needs `url = \"…\"`, or `url_file` or `url_env` where the URL is a secret".to_owned(),
        ),
        ["url"] => Ok((keys.text("url")?.to_owned(), UrlSource::Route)),
        ["url_env"] => {
            let name = keys.text("url_env")?;
            let url = match secrets {
                Secrets::Unread => Some(UNREAD_URL),
                Secrets::Read(environment) => environment.get(name).map(|url| url.trim()),
            };
            url.filter(|url| !url.is_empty())
                .map(|url| (url.to_owned(), UrlSource::Environment))
                .ok_or_else(|| {
                    format!(
                        "has `url_env`, but the variable {} is not set",
                        quoted(name)
                    )
                })
        }
        [one, other, ..] => Err(format!(
            "has `{one}` and `{other}`, of which one alone may say where to"
        )),
        [_] => {
            let path = keys.text("url_file")?;
            let url = match secrets {
                Secrets::Unread => Ok(UNREAD_URL.to_owned()),
                Secrets::Read(_) => url_file::read(path),
            };
            let url = url.map_err(|error| {
                format!(
                    "has `url_file`, but {} cannot be used: {error}",
                    quoted(path)
                )
            })?;
            Ok((url, UrlSource::File(path.to_owned())))
        }
    }
}

fn dead_statuses_of(keys: Keys<'_>) -> Result<Vec<u16>, String> {
    if keys.get("dead_statuses").is_none() {
        return Ok(DEAD_STATUSES.to_vec());
    }
    keys.numbers("dead_statuses", &DEAD_STATUS).ok_or_else(|| {
        format!(
            "needs a list of statuses from {} to {} in dead_statuses",
            DEAD_STATUS.start(),
            DEAD_STATUS.end()
        )
    })
}
