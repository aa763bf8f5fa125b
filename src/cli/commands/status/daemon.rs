//! Asking a daemon: GET /api/status.

use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Uri;

use crate::cli::settings::layers::Layers;
use crate::cli::settings::run::SETTINGS;
use crate::cli::settings::values;
use crate::domain::usage::UsageError;
use crate::http::ApiToken;
use crate::store::io_cause;
use crate::system::logging;

/// Path of the status, below the address of the daemon.
const STATUS_PATH: &str = "/api/status";

/// Bound of a request. A daemon answers from memory: when it takes longer, it is stuck, or its host
/// is.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Most bytes of an answer: a status with 256 workers, 180 steps and 100 types has some 100 KiB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why a daemon has sent no status.
pub(super) enum Silence {
    /// No daemon answers, as far as can be seen.
    NoAnswer(String),
    /// A daemon answers and refuses; the text follows its name.
    Refused(String),
}

impl Silence {
    /// Names the address of the daemon, and says why it has sent no status.
    pub(super) fn sentence(&self, url: &str) -> String {
        match self {
            Silence::NoAnswer(why) => format!("no daemon answers at {url}: {why}"),
            Silence::Refused(why) => format!("the daemon at {url} {why}"),
        }
    }

    /// The reason alone.
    pub(super) fn reason(&self) -> String {
        match self {
            Silence::NoAnswer(why) => why.clone(),
            Silence::Refused(why) => format!("it {why}"),
        }
    }
}

/// A daemon's HTTP port.
pub(super) struct DaemonClient {
    agent: Agent,
    url: String,
    shown: String,
    token: Option<ApiToken>,
}

impl DaemonClient {
    /// Takes `--url`, or the address where, by environment and file, the daemon listens.
    pub(super) fn resolve(
        url: Option<&str>,
        layers: &mut Layers,
    ) -> Result<DaemonClient, UsageError> {
        let base = match url {
            Some(url) => checked(url)?,
            None => usual(layers)?,
        };
        let token = layers.given(&SETTINGS.api_token_file).map(|given| {
            ApiToken::read(&given.text).map_err(|why| layers.refuse(&SETTINGS.api_token_file, &why))
        });
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("dispatchbox/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(TIMEOUT))
            .build();
        Ok(DaemonClient {
            agent: config.into(),
            url: format!("{base}{STATUS_PATH}"),
            shown: logging::redact(&base).into_owned(),
            token: token.transpose()?,
        })
    }

    /// The address, without secrets.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Asks for the status.
    pub(super) fn ask(&self) -> Result<Value, Silence> {
        let mut request = self.agent.get(&self.url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.expose()));
        }
        let mut answer = request
            .call()
            .map_err(|error| Silence::NoAnswer(in_words(&error)))?;
        let status = answer.status().as_u16();
        let mut text = String::new();
        answer
            .body_mut()
            .as_reader()
            .take(ANSWER_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| Silence::NoAnswer(format!("its answer broke off: {error}")))?;
        let body: Option<Value> = serde_json::from_str(&text).ok();
        match (status, body) {
            (200, Some(body)) if body["phase"].is_string() => Ok(body),
            (401, _) => Err(Silence::Refused(match self.token {
                None => "wants a token: give --api-token-file".to_owned(),
                Some(_) => "wants another token: that of --api-token-file is wrong".to_owned(),
            })),
            (403, body) => {
                let why = body.as_ref().and_then(|body| body["error"].as_str());
                let why = why.unwrap_or("no reason given");
                Err(Silence::Refused(format!("refused with 403: {why}")))
            }
            (status, _) => Err(Silence::NoAnswer(format!(
                "what listens there is no daemon of this version: it answered {status} to {STATUS_PATH}"
            ))),
        }
    }
}

fn checked(given: &str) -> Result<String, UsageError> {
    let url = if given.contains("://") {
        given.to_owned()
    } else {
        format!("http://{given}")
    };
    let parsed = url.parse::<Uri>().ok();
    let is_fit = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    if !is_fit {
        return Err(UsageError::new(format!(
            "--url must be the address of a daemon, such as `http://127.0.0.1:8080`, not {}",
            values::quoted(given)
        )));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The address where a daemon with this environment and file listens, as seen from its own host.
fn usual(layers: &mut Layers) -> Result<String, UsageError> {
    let port = layers.read(&SETTINGS.http_port)?;
    if port == 0 {
        return Err(layers.refuse(
            &SETTINGS.http_port,
            "is 0, any free port: give --url with the one that the daemon has logged",
        ));
    }
    let host = layers.read(&SETTINGS.http_host)?;
    let host = match host.as_deref() {
        None | Some("0.0.0.0" | "::") => "127.0.0.1".to_owned(),
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host.to_owned(),
    };
    Ok(format!("http://{host}:{port}"))
}

fn in_words(error: &ureq::Error) -> String {
    if matches!(error, ureq::Error::Timeout(_)) {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let text = error.to_string();
    // rustls says this of an answer that is no TLS.
    if text.contains("InvalidContentType") {
        return "it speaks no TLS: use http://".to_owned();
    }
    if let ureq::Error::Io(error) = error {
        return io_cause(error);
    }
    text
}
