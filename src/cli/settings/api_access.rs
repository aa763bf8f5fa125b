//! Which requests may use the HTTP API, by the options. The token and the open API are two answers
//! to one question: both at once are a mistake.

use crate::cli::settings::layers::Layers;
use crate::cli::settings::values;
use crate::domain::usage::UsageError;
use crate::http::{Access, ApiToken};

/// Reads the three options and decides which requests may use the API.
pub(in crate::cli) fn resolve(layers: &mut Layers) -> Result<Access, UsageError> {
    let mut token = None;
    if let Some(given) = layers.given("api-token-file") {
        let read = ApiToken::read(&given.text);
        token = Some(read.map_err(|refusal| layers.refuse("api-token-file", &refusal))?);
        layers.show("api-token-file", given.text, given.source);
    }
    let is_open = layers.read("http-open-api", false, values::switch, bool::to_string)?;
    let allowed_hosts = layers.read(
        "http-allowed-hosts",
        Vec::new(),
        values::host_names,
        |names| match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(","),
        },
    )?;
    if !allowed_hosts.is_empty() && (is_open || token.is_some()) {
        let name = layers
            .given("http-allowed-hosts")
            .map_or_else(String::new, |given| {
                layers.named("http-allowed-hosts", given.source)
            });
        layers.warnings.push(format!(
            "{name} has no effect: with a token, or an open API, the Host header does not matter"
        ));
    }
    match token {
        Some(_) if is_open => Err(layers.refuse(
            "http-open-api",
            "cannot be combined with --api-token-file: an open API asks for no token",
        )),
        Some(token) => Ok(Access::Token(token)),
        None if is_open => Ok(Access::Open),
        None => Ok(Access::Local { allowed_hosts }),
    }
}
