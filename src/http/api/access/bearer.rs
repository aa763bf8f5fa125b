//! The token: shown once, in the `Authorization` header.

use crate::http::api::exchange::{Incoming, Reply};
use crate::http::api::token::ApiToken;

/// Lets a request pass that shows the token, or says what it lacks.
pub(super) fn check(token: &ApiToken, request: &Incoming) -> Result<(), Reply> {
    let unauthorized =
        |error, challenge| Err(Reply::error(401, error).with("WWW-Authenticate", challenge));
    if request.all("Authorization").next().is_none() {
        return unauthorized(
            "the API token is missing: send `Authorization: Bearer …`",
            r#"Bearer realm="dispatchbox""#,
        );
    }
    let shown = request
        .only("Authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .map(|(_, shown)| shown.trim());
    if shown.is_some_and(|shown| token.is(shown)) {
        return Ok(());
    }
    let error = if shown.is_some() {
        "the API token is wrong"
    } else {
        "the API token must be sent once, as `Authorization: Bearer …`"
    };
    unauthorized(
        error,
        r#"Bearer realm="dispatchbox", error="invalid_token""#,
    )
}
