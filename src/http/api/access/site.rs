//! Requests that a web page elsewhere makes a browser send.

use crate::http::api::access::proxy::is_forwarded;
use crate::http::api::exchange::{Incoming, Reply};

/// Refuses requests that a web page elsewhere makes a browser send; `has_token` says whether the
/// token was shown.
pub(super) fn check(request: &Incoming, has_token: bool) -> Result<(), Reply> {
    let changes = !matches!(request.method.as_str(), "GET" | "HEAD");
    let refused = || Err(Reply::error(403, "cross-site requests are refused"));
    let mut is_same_origin = false;
    for site in request.all("Sec-Fetch-Site") {
        // Another port of this host counts as the same site and may serve a page of another user.
        // Such a page cannot read what it gets by GET.
        let is_ours = matches!(site, "same-origin" | "none") || (site == "same-site" && !changes);
        if !is_ours {
            return refused();
        }
        is_same_origin = true;
    }
    // With the token, `Sec-Fetch-Site` is enough: the browser compared the addresses that it sees,
    // while the Host may be the proxy's.
    if !changes || has_token && is_same_origin {
        return Ok(());
    }
    for origin in request.all("Origin") {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let is_ours = authority
            .zip(request.only("Host"))
            .is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host));
        // Browsers send no `Sec-Fetch-Site` for a page that came without TLS, and older browsers
        // never send it.
        let may_be_ours = has_token && (origin.starts_with("http://") || is_forwarded(request));
        if !is_ours && !may_be_ours {
            return refused();
        }
    }
    Ok(())
}
