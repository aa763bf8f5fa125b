//! What a request says beside the event: method, content type, headers, credentials.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderName, HeaderValue, header};
use ureq::typestate::WithBody;
use ureq::{Agent, RequestBuilder};

use crate::domain::event::Event;
use crate::domain::nearest::did_you_mean;
use crate::handlers::http::auth::{Auth, Authorization};
use crate::handlers::http::format::{self, Format};
use crate::handlers::http::headers::{self, Header, Headers};
use crate::handlers::http::masks::Masks;
use crate::handlers::http::secret::{Secret, Source};
use crate::handlers::http::sign::{Signer, Signing, SigningKeys};
use crate::handlers::http::trace;
use crate::handlers::keys::Keys;
use crate::handlers::kind::Secrets;
use crate::system::logging::quoted;

/// How an event is sent.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Method {
    /// The usual one.
    #[default]
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    const ALL: [Method; 4] = [Method::Post, Method::Put, Method::Patch, Method::Delete];

    fn read(keys: Keys<'_>) -> Result<Method, String> {
        if keys.get("method").is_none() {
            return Ok(Method::default());
        }
        let word = keys.text("method")?;
        let names = || Method::ALL.iter().map(|method| method.name());
        let method = Method::ALL.into_iter().find(|method| method.name() == word);
        method.ok_or_else(|| {
            format!(
                "has `method`, which must be {}, not {}{}",
                names().collect::<Vec<_>>().join(", "),
                quoted(word),
                did_you_mean(word, names())
            )
        })
    }

    /// Its word in a request.
    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    /// Begins a request with a body.
    pub(super) fn begin(self, agent: &Agent, url: ureq::http::Uri) -> RequestBuilder<WithBody> {
        match self {
            Method::Post => agent.post(url),
            Method::Put => agent.put(url),
            Method::Patch => agent.patch(url),
            Method::Delete => agent.delete(url).force_send_body(),
        }
    }
}

/// The settings of a request.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RequestSettings {
    pub(super) method: Method,
    format: Format,
    source: Option<String>,
    content_type: Option<String>,
    headers: Headers,
    auth: Option<Auth>,
    sign: Signing,
}

impl RequestSettings {
    /// Reads its keys of a route.
    pub(super) fn read(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<RequestSettings, String> {
        let format = Format::read(keys)?;
        let content_type = keys.get("content_type").map(|_| keys.text("content_type"));
        Ok(RequestSettings {
            method: Method::read(keys)?,
            source: format::source(keys, format)?,
            format,
            content_type: content_type.transpose()?.map(str::to_owned),
            headers: headers::read(keys, secrets)?,
            auth: Auth::read(keys, secrets)?,
            sign: Signing::read(keys, secrets)?,
        })
    }

    /// Says whether nothing is configured.
    pub(super) fn is_usual(&self) -> bool {
        *self == RequestSettings::default()
    }

    /// The settings that are not the usual ones, each as `key value`. Of headers there are the
    /// names alone, and where a value stands: any value may be a secret.
    pub(super) fn unusual(&self) -> impl Iterator<Item = String> {
        let method =
            (self.method != Method::default()).then(|| format!("method {}", self.method.name()));
        let format = self.format;
        let format = (format != Format::default()).then(|| format!("format {}", format.name()));
        let source = self.source.as_ref();
        let source = source.map(|source| format!("source {source}"));
        let content_type = self.content_type.as_ref();
        let content_type = content_type.map(|text| format!("content_type {text}"));
        let header = |(name, value): &(String, Secret)| match &value.source {
            Source::Route => name.clone(),
            Source::Environment => format!("{name} from the environment"),
            Source::File(path) => format!("{name} from {path}"),
        };
        let headers: Vec<String> = self.headers.iter().map(header).collect();
        let headers = (!headers.is_empty()).then(|| format!("headers {}", headers.join(" and ")));
        let auth = self.auth.as_ref();
        let auth = auth.map(|auth| format!("auth {}", auth.name()));
        let n_secrets = self.sign.len();
        let sign = (n_secrets > 0).then(|| {
            let plural = if n_secrets == 1 { "secret" } else { "secrets" };
            format!("sign standard_webhooks with {n_secrets} {plural}")
        });
        [method, format, source, content_type, headers, auth, sign]
            .into_iter()
            .flatten()
    }
}

/// What a route sends beside the event, ready to be sent.
pub(super) struct Request {
    format: Format,
    /// Of CloudEvents.
    source: String,
    content_type: HeaderValue,
    headers: Vec<Header>,
    authorization: Option<Authorization>,
    signer: Signer,
}

/// What is sent for one event.
pub(super) struct Message<'a> {
    pub(super) event: &'a Event,
    pub(super) body: Cow<'a, str>,
    /// Beside those of the route.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a route sends at the moment: its secrets change.
pub(super) struct Fixed {
    /// The same with each event.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What signs.
    pub(super) keys: SigningKeys,
    /// What is to be shown nowhere.
    pub(super) masks: Masks,
}

impl Request {
    /// Makes ready what is sent, and refuses what no receiver could get.
    pub(super) fn new(settings: &RequestSettings, database: &str) -> Result<Request, String> {
        let content_type = match &settings.content_type {
            None => settings.format.content_type(),
            Some(text) => HeaderValue::from_str(text)
                .ok()
                .filter(|_| text.contains('/'))
                .ok_or_else(|| {
                    format!(
                        "has `content_type`, which must be a type such as `text/plain`, not {}",
                        quoted(text)
                    )
                })?,
        };
        let headers: Result<Vec<Header>, String> = settings
            .headers
            .iter()
            .map(|(name, value)| Header::new(name, value))
            .collect();
        let source = settings.source.clone();
        let request = Request {
            format: settings.format,
            source: source.unwrap_or_else(|| format::usual_source(database)),
            content_type,
            headers: headers?,
            authorization: settings.auth.as_ref().map(Authorization::new).transpose()?,
            signer: Signer::new(&settings.sign)?,
        };
        request.check_owners()?;
        Ok(request)
    }

    /// Checks that no header has another owner too.
    fn check_owners(&self) -> Result<(), String> {
        if self.has_header(&header::AUTHORIZATION) && self.authorization.is_some() {
            return Err(
                "has `auth` and the header `Authorization`, of which one alone may say who it is"
                    .to_owned(),
            );
        }
        let mut names = self.headers.iter().map(|header| header.name().as_str());
        if let Some(name) = names.clone().find(|name| self.format.is_header(name)) {
            return Err(format!(
                "has the header `{name}`, which comes from `format = \"{}\"`",
                self.format.name()
            ));
        }
        match names.find(|name| self.signer.is_header(name)) {
            Some(name) => Err(format!("has the header `{name}`, which comes from `sign`")),
            None => Ok(()),
        }
    }

    /// The body for an event, and the headers that belong to it alone, signed by `keys`; refuses an
    /// event that has no form in the route's format.
    pub(super) fn message<'a>(
        &self,
        event: &'a Event,
        keys: &SigningKeys,
    ) -> Result<Message<'a>, String> {
        let mut headers = trace::headers(event.headers.as_deref());
        self.format.add_headers(event, &self.source, &mut headers)?;
        let body = self.format.body(event, &self.source);
        keys.add_headers(event.id, body.as_bytes(), &mut headers);
        Ok(Message {
            event,
            body,
            headers,
        })
    }

    fn has_header(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|header| header.name() == name)
    }

    /// Says whether the route itself says who it is, whatever its URL does.
    pub(super) fn is_authorized(&self) -> bool {
        self.authorization.is_some() || self.has_header(&header::AUTHORIZATION)
    }

    /// Reads the secrets again that have changed, and says whether any has.
    pub(super) fn look(&self) -> bool {
        let headers = self.headers.iter().filter(|header| header.look()).count();
        let authorization = self.authorization.as_ref();
        let is_authorization = authorization.is_some_and(Authorization::look);
        // All are looked at: none may hide another.
        let is_signer = self.signer.look();
        headers > 0 || is_authorization || is_signer
    }

    /// What is sent at the moment, to a receiver whose URL asks for `authorization`. The route's
    /// own word counts before that of its URL.
    pub(super) fn now(&self, authorization: Option<&str>) -> Fixed {
        let mut masks = Masks::default();
        let mut headers = vec![(header::CONTENT_TYPE, self.content_type.clone())];
        headers.extend(self.headers.iter().map(|header| header.now(&mut masks)));
        if let Some(own) = &self.authorization {
            headers.push((header::AUTHORIZATION, own.now(&mut masks)));
        } else if !self.is_authorized()
            && let Some(text) = authorization
            && let Ok(mut value) = HeaderValue::from_str(text)
        {
            value.set_sensitive(true);
            headers.push((header::AUTHORIZATION, value));
        }
        let keys = self.signer.now(&mut masks);
        Fixed {
            headers,
            keys,
            masks,
        }
    }
}
