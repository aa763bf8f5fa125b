//! Which requests may use the HTTP API, by the options. The token and the open API are two answers
//! to one question: both at once are a mistake.

use crate::cli::settings::layers::Layers;
use crate::cli::settings::run::SETTINGS;
use crate::domain::usage::UsageError;
use crate::http::{Access, ApiToken};

/// Reads the three options and decides which requests may use the API.
pub(in crate::cli) fn resolve(layers: &mut Layers) -> Result<Access, UsageError> {
    let mut token = None;
    if let Some(given) = layers.given(&SETTINGS.api_token_file) {
        let read = ApiToken::read(&given.text);
        token = Some(read.map_err(|refusal| layers.refuse(&SETTINGS.api_token_file, &refusal))?);
        layers.show(&SETTINGS.api_token_file, given.text, given.source);
    }
    let is_open = layers.read(&SETTINGS.http_open_api)?;
    let allowed_hosts = layers.read(&SETTINGS.http_allowed_hosts)?;
    if let Some(given) = layers.given(&SETTINGS.http_allowed_hosts)
        && (is_open || token.is_some())
    {
        let name = layers.named(&SETTINGS.http_allowed_hosts, given.source);
        layers.warnings.push(format!(
            "{name} has no effect: with a token, or an open API, the Host header does not matter"
        ));
    }
    match token {
        Some(_) if is_open => Err(layers.refuse(
            &SETTINGS.http_open_api,
            "cannot be combined with --api-token-file: an open API asks for no token",
        )),
        Some(token) => Ok(Access::Token(token)),
        None if is_open => Ok(Access::Open),
        None => Ok(Access::Local { allowed_hosts }),
    }
}
