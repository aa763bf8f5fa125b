//! The headers of a proxy that forwards requests.

use crate::http::api::exchange::Incoming;

/// Headers by which a proxy says that it forwards a request for another client, beside all that
/// begin with `X-Forwarded-`.
const FORWARDED_BY: [&str; 8] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "cf-connecting-ip",
    "true-client-ip",
];

const FORWARDED_PREFIX: &str = "x-forwarded";

/// Says whether the request carries a header of a proxy that has forwarded it.
pub(super) fn is_forwarded(request: &Incoming) -> bool {
    request.headers.iter().any(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name.starts_with(FORWARDED_PREFIX) || FORWARDED_BY.contains(&name.as_str())
    })
}
