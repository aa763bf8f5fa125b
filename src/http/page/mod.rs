//! The page at `/`: the work and the failures of the daemon, for a person with a browser.
//!
//! It is one HTML answer made of the files in `page/`, styles and script inline, with nothing to
//! fetch but the API of the daemon that served it. It holds no data, so it is as open as `/health`;
//! the data that it shows comes from `/api`, by that API's rules of access.
//!
//! Event types, errors and payloads are texts of strangers. The script writes them as text nodes
//! only. The policy that is sent with the page lets the browser run, load, embed and submit nothing
//! else: the one script and the one style are named by their hashes, and markup made from strings
//! is refused (`require-trusted-types-for`). Hashes are used rather than a nonce, since a nonce has
//! to be unguessable anew in each answer, while a hash is computed from the text that is sent.
//! Refused: files of their own under `'self'`. They would need three requests for the content of
//! one answer, and their versions could mix while the daemon behind a load balancer is replaced.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use crate::http::api::exchange::Reply;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// The script, in the order of its layers: each file uses only names of the files before it.
const SCRIPT: &str = concat!(
    include_str!("text.js"),
    include_str!("json.js"),
    include_str!("api.js"),
    include_str!("chart.js"),
    include_str!("overview.js"),
    include_str!("dead.js"),
    include_str!("actions.js"),
    include_str!("main.js"),
);

const STYLE_PLACE: &str = "<style></style>";
const SCRIPT_PLACE: &str = r#"<script type="module"></script>"#;

/// The page is the same for every request, so it is put together once.
static PAGE: LazyLock<Reply> = LazyLock::new(assemble);

/// Answers with the page.
pub(super) fn reply() -> Reply {
    PAGE.clone()
}

fn assemble() -> Reply {
    let body = HTML
        .replacen(STYLE_PLACE, &format!("<style>{STYLE}</style>"), 1)
        .replacen(
            SCRIPT_PLACE,
            &format!(r#"<script type="module">{SCRIPT}</script>"#),
            1,
        );
    Reply {
        status: 200,
        media_type: "text/html; charset=utf-8",
        body,
        headers: vec![
            ("Content-Security-Policy", policy()),
            ("Referrer-Policy", "no-referrer".to_owned()),
        ],
    }
}

fn policy() -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        source(SCRIPT),
        source(STYLE)
    )
}

/// Renders the hash of a text as a source of the policy.
fn source(text: &str) -> String {
    format!(
        "'sha256-{}'",
        BASE64_STANDARD.encode(Sha256::digest(text.as_bytes()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text between an element's tags: the part that the browser hashes.
    fn between<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
        let (_, rest) = page.split_once(begin).expect("the begin tag");
        rest.split_once(end).expect("the end tag").0
    }

    #[test]
    fn the_policy_names_exactly_the_style_and_the_script_of_the_page() {
        let Reply { body, headers, .. } = reply();
        let (_, policy) = &headers[0];

        let style = between(&body, "<style>", "</style>");
        let script = between(&body, r#"<script type="module">"#, "</script>");

        assert_eq!((style, script), (STYLE, SCRIPT));
        assert!(policy.contains(&format!("style-src {};", source(style))));
        assert!(policy.contains(&format!("script-src {};", source(script))));
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn a_hash_is_written_as_the_policy_wants_it() {
        let empty = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
        assert_eq!(source(""), empty);
    }

    #[test]
    fn nothing_in_the_page_needs_another_file_or_an_exception_from_the_policy() {
        let Reply { body, .. } = reply();
        for forbidden in [
            "http://",
            "https://",
            " src=",
            " style=",
            " onclick=",
            "innerHTML",
            "localStorage",
            "sessionStorage",
            "document.cookie",
        ] {
            let known = body
                .replace("xmlns='http://www.w3.org/2000/svg'", "")
                .replace("\"http://www.w3.org/2000/svg\"", "")
                // Words for a person, behind a tunnel's command.
                .replace(", and open http://127.0.0.1:8080/;", "");
            assert!(!known.contains(forbidden), "{forbidden}");
        }
    }
}
