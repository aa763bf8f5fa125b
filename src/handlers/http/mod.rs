//! The `http` handler: a request per event.
//!
//! Unless the route says otherwise it is a POST of the event's JSON (`format`), with
//! `Content-Type: application/json`. With each request go `Dispatchbox-Event-Id` (the same in every
//! attempt, so that a receiver can recognize a repetition), `Dispatchbox-Event-Type` (unless it is
//! longer than 4 KiB), `Dispatchbox-Attempt`, and the trace that stands in the event's headers. The
//! status of the answer is its word: 2xx is done, as are the route's `done_statuses`; its
//! `dead_statuses` are dead at once; everything else is worth another attempt, a network error, a
//! time-out and a redirect among it; `Retry-After` is honoured with 429 and 503. Redirects are
//! never followed and the proxy variables of the environment not used: an event goes to the
//! configured receiver and nowhere else.
//!
//! How the request is made is described in `post`, what it says beside the event in `request`, and
//! what an answer means in `answer`.
//!
//! **Secrets.** A user and password in the URL become an `Authorization: Basic` header. A path may
//! be the credential as well, as that of a chat room's hook. So a reason names scheme, host and
//! port alone. What comes from a file is read again when the file changes (`secret`).

pub(in crate::handlers) mod answer;
mod auth;
mod format;
mod headers;
mod lookup;
mod masks;
mod post;
mod receiver;
mod request;
mod secret;
mod secret_file;
mod sign;
mod trace;
mod way;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::handlers::http::answer::Statuses;
use crate::handlers::http::post::Post;
use crate::handlers::http::receiver::shown_url;
use crate::handlers::http::request::RequestSettings;
use crate::handlers::http::secret::{Reading, Secret, Source};
use crate::handlers::http::way::WaySettings;
use crate::handlers::keys::{Key, Keys};
use crate::handlers::kind::{Build, Deliver, Environment, Kind, Secrets, Settings};
use crate::system::logging;

/// Statuses that make an event dead at once unless the route says otherwise: they blame the request
/// itself, which is the same in each attempt (bad request, gone, too large, wrong type,
/// unprocessable).
pub const DEAD_STATUSES: [u16; 5] = [400, 410, 413, 415, 422];

/// Statuses whose meaning a route may say: 2xx means done.
const STATUSES: RangeInclusive<u16> = 300..=599;

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

/// The settings: where to, how, and which answers end an event.
#[derive(Serialize, Deserialize)]
pub(super) struct HttpSettings {
    /// Where to: http or https.
    url: String,
    /// Where the URL stands.
    url_source: Source,
    /// Statuses that make an event dead at once.
    dead_statuses: Vec<u16>,
    /// Statuses beside 2xx that mean done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    done_statuses: Vec<u16>,
    /// How it is sent.
    #[serde(default, skip_serializing_if = "RequestSettings::is_usual")]
    request: RequestSettings,
    /// The way there.
    #[serde(default, skip_serializing_if = "WaySettings::is_usual")]
    way: WaySettings,
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
            name: "format",
            help: "event (its JSON), payload (alone), cloudevents (1.0, structured) or \
                   cloudevents-binary [default: event]",
        },
        Key {
            name: "source",
            help: "source of the CloudEvents [default: /dispatchbox/ and the name of the database]",
        },
        Key {
            name: "method",
            help: "POST, PUT, PATCH or DELETE [default: POST]",
        },
        Key {
            name: "content_type",
            help: "type of the body [default: that of the format]",
        },
        Key {
            name: "headers",
            help: "table of further headers, each a text, { file = \"…\" } or { env = \"…\" }; \
                   a secret is one of the latter, shown nowhere, and read again when its file \
                   changes",
        },
        Key {
            name: "auth",
            help: "{ bearer = SECRET } or { basic = { user = \"…\", password = SECRET } }, where \
                   a SECRET is { file = \"…\" } or { env = \"…\" }",
        },
        Key {
            name: "sign",
            help: "{ standard_webhooks = [SECRET, …] }: signatures by each of the secrets, which \
                   are `whsec_` and base64",
        },
        Key {
            name: "done_statuses",
            help: "list of the statuses, from 300 to 599, that mean done as 2xx does",
        },
        Key {
            name: "dead_statuses",
            help: "list of the statuses, from 300 to 599, that make an event dead at once \
                   [default: 400, 410, 413, 415, 422]",
        },
        way::CA_FILE,
        way::CLIENT_CERT_FILE,
        way::CLIENT_KEY_FILE,
        way::PRIVATE_ADDRESSES,
    ];

    fn from_flag(text: &str) -> Option<Result<HttpSettings, String>> {
        (text.starts_with("https://") || text.starts_with("http://")).then(|| {
            Ok(HttpSettings {
                url: text.to_owned(),
                url_source: Source::Route,
                dead_statuses: DEAD_STATUSES.to_vec(),
                done_statuses: Vec::new(),
                request: RequestSettings::default(),
                way: WaySettings::default(),
            })
        })
    }

    fn from_table(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<HttpSettings, String> {
        let url = url_of(keys, secrets)?;
        let done_statuses = statuses_of(keys, "done_statuses")?.unwrap_or_default();
        let dead_statuses = statuses_of(keys, "dead_statuses")?.unwrap_or_else(|| {
            let is_left = |status: &u16| !done_statuses.contains(status);
            DEAD_STATUSES.into_iter().filter(is_left).collect()
        });
        Ok(HttpSettings {
            url: url.value,
            url_source: url.source,
            dead_statuses,
            done_statuses,
            request: RequestSettings::read(keys, secrets)?,
            way: WaySettings::from_table(keys)?,
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
        let url = Secret {
            value: self.url.clone(),
            source: self.url_source.clone(),
        };
        let statuses = self.statuses()?;
        let post = Post::new(&url, &self.request, &self.way, statuses, build)?;
        Ok(Box::new(post))
    }

    /// Shows the URL without its user part and query, and without its path where it is secret.
    fn shown(&self) -> String {
        if self.url_source != Source::Route {
            return shown_url(&self.url);
        }
        let end = self.url.find(['?', '#']).unwrap_or(self.url.len());
        logging::redact(&self.url[..end]).into_owned()
    }

    fn unusual(&self) -> Option<String> {
        let mut unusual: Vec<String> = self.request.unusual().collect();
        unusual.extend(self.way.unusual());
        if !self.done_statuses.is_empty() {
            unusual.push(format!("done_statuses {:?}", self.done_statuses));
        }
        if self.dead_statuses != DEAD_STATUSES {
            unusual.push(format!("dead_statuses {:?}", self.dead_statuses));
        }
        (!unusual.is_empty()).then(|| unusual.join(", "))
    }
}

impl HttpSettings {
    /// The meaning of statuses, checked.
    fn statuses(&self) -> Result<Statuses, String> {
        for (word, statuses) in [("dead", &self.dead_statuses), ("done", &self.done_statuses)] {
            if let Some(status) = statuses.iter().find(|status| !STATUSES.contains(*status)) {
                return Err(format!(
                    "{word} statuses must be between {} and {}, not {status}",
                    STATUSES.start(),
                    STATUSES.end()
                ));
            }
        }
        let is_dead = |status: &&u16| self.dead_statuses.contains(status);
        if let Some(status) = self.done_statuses.iter().find(is_dead) {
            return Err(format!(
                "has {status} in `done_statuses` and in `dead_statuses`, of which one alone may have it"
            ));
        }
        Ok(Statuses {
            done: self.done_statuses.clone(),
            dead: self.dead_statuses.clone(),
        })
    }
}

/// Finds the URL by the one key that says where it stands. No refusal repeats it.
fn url_of(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<Secret, String> {
    let given: Vec<&str> = ["url", "url_file", "url_env"]
        .into_iter()
        .filter(|key| keys.get(key).is_some())
        .collect();
    let reading = Reading {
        secrets,
        unread: UNREAD_URL,
    };
    match given.as_slice() {
        [] => Err(
            "needs `url = \"…\"`, or `url_file` or `url_env` where the URL is a secret".to_owned(),
        ),
        ["url"] => Ok(Secret::in_route(keys.text("url")?)),
        ["url_env"] => Secret::in_environment(keys.text("url_env")?, reading)
            .map_err(|problem| format!("has `url_env`, but {problem}")),
        [one, other, ..] => Err(format!(
            "has `{one}` and `{other}`, of which one alone may say where to"
        )),
        [_] => Secret::in_file(keys.text("url_file")?, reading)
            .map_err(|problem| format!("has `url_file`, but {problem}")),
    }
}

fn statuses_of(keys: Keys<'_>, key: &str) -> Result<Option<Vec<u16>>, String> {
    if keys.get(key).is_none() {
        return Ok(None);
    }
    let statuses = keys.numbers(key, &STATUSES).ok_or_else(|| {
        format!(
            "needs a list of statuses from {} to {} in {key}",
            STATUSES.start(),
            STATUSES.end()
        )
    })?;
    Ok(Some(statuses))
}
