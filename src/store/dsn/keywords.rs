//! Every keyword that libpq knows, up to PostgreSQL 18, and what becomes of it here.
//!
//! Nothing that restricts a connection is ever ignored: what the driver cannot do is refused by
//! name. What only tunes something that is not used here (compression in TLS) is accepted and
//! ignored, so that a connection description works unchanged.

use crate::domain::nearest::did_you_mean;
use crate::store::dsn::DsnError;

/// One keyword.
#[derive(Debug)]
pub(super) struct Keyword {
    pub(super) name: &'static str,
    /// The variable that libpq reads for it.
    pub(super) variable: Option<&'static str>,
    pub(super) meaning: Meaning,
}

/// What becomes of a keyword.
#[derive(Debug)]
pub(super) enum Meaning {
    /// Used.
    Used,
    /// Has no effect here.
    Ignored,
    /// Refused, unless the value is one of these, which change nothing.
    Refused(&'static [&'static str]),
}

use Meaning::{Ignored, Refused, Used};

const fn keyword(name: &'static str, variable: Option<&'static str>, meaning: Meaning) -> Keyword {
    Keyword {
        name,
        variable,
        meaning,
    }
}

/// The keywords in libpq's order.
pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("service", Some("PGSERVICE"), Used),
    keyword("servicefile", Some("PGSERVICEFILE"), Used),
    keyword("user", Some("PGUSER"), Used),
    keyword("password", Some("PGPASSWORD"), Used),
    keyword("passfile", Some("PGPASSFILE"), Used),
    keyword("channel_binding", Some("PGCHANNELBINDING"), Used),
    keyword("connect_timeout", Some("PGCONNECT_TIMEOUT"), Used),
    keyword("dbname", Some("PGDATABASE"), Used),
    keyword("host", Some("PGHOST"), Used),
    keyword("hostaddr", Some("PGHOSTADDR"), Used),
    keyword("port", Some("PGPORT"), Used),
    // The driver always speaks UTF-8, whatever the environment says for psql; see `check_encoding`
    // for the text.
    keyword("client_encoding", None, Used),
    keyword("options", Some("PGOPTIONS"), Used),
    keyword("application_name", Some("PGAPPNAME"), Used),
    keyword("fallback_application_name", None, Used),
    keyword("keepalives", None, Used),
    keyword("keepalives_idle", None, Used),
    keyword("keepalives_interval", None, Used),
    keyword("keepalives_count", None, Used),
    keyword("tcp_user_timeout", None, Used),
    keyword("sslmode", Some("PGSSLMODE"), Used),
    keyword("sslnegotiation", Some("PGSSLNEGOTIATION"), Used),
    keyword("sslcompression", Some("PGSSLCOMPRESSION"), Ignored),
    keyword("sslcert", Some("PGSSLCERT"), Used),
    keyword("sslkey", Some("PGSSLKEY"), Used),
    keyword("sslcertmode", Some("PGSSLCERTMODE"), Used),
    // For an encrypted key, which is refused.
    keyword("sslpassword", None, Ignored),
    keyword("sslrootcert", Some("PGSSLROOTCERT"), Used),
    keyword("sslcrl", Some("PGSSLCRL"), Used),
    keyword("sslcrldir", Some("PGSSLCRLDIR"), Used),
    keyword("sslsni", Some("PGSSLSNI"), Used),
    keyword("sslkeylogfile", None, Ignored),
    keyword(
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
        Used,
    ),
    keyword(
        "ssl_max_protocol_version",
        Some("PGSSLMAXPROTOCOLVERSION"),
        Used,
    ),
    keyword(
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
        Refused(&["3.0"]),
    ),
    keyword(
        "max_protocol_version",
        Some("PGMAXPROTOCOLVERSION"),
        Ignored,
    ),
    keyword("requirepeer", Some("PGREQUIREPEER"), Refused(&[])),
    keyword("require_auth", Some("PGREQUIREAUTH"), Used),
    keyword(
        "gssencmode",
        Some("PGGSSENCMODE"),
        Refused(&["disable", "prefer"]),
    ),
    keyword("krbsrvname", Some("PGKRBSRVNAME"), Ignored),
    keyword("gsslib", Some("PGGSSLIB"), Ignored),
    keyword("gssdelegation", Some("PGGSSDELEGATION"), Ignored),
    keyword("replication", None, Refused(&["false", "off", "no", "0"])),
    keyword("target_session_attrs", Some("PGTARGETSESSIONATTRS"), Used),
    keyword("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Used),
    keyword("scram_client_key", None, Refused(&[])),
    keyword("scram_server_key", None, Refused(&[])),
    keyword("oauth_issuer", None, Ignored),
    keyword("oauth_client_id", None, Ignored),
    keyword("oauth_client_secret", None, Ignored),
    keyword("oauth_scope", None, Ignored),
];

/// Longest unknown keyword that an error repeats.
const SHOWN_BYTES_MAX: usize = 40;

/// Finds a keyword. An unknown one is named, unless it may be a piece of a password that was not
/// quoted.
pub(super) fn find(name: &str) -> Result<&'static Keyword, DsnError> {
    if let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == name) {
        return Ok(keyword);
    }
    let is_word = name
        .bytes()
        .all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !is_word || !(1..=SHOWN_BYTES_MAX).contains(&name.len()) {
        return Err(DsnError::new(
            "there is an unknown keyword; a value that holds blanks needs quotes: application_name='my shop'",
        ));
    }
    let keywords = KEYWORDS.iter().map(|keyword| keyword.name);
    Err(DsnError::new(format!(
        "unknown keyword `{name}`{}",
        did_you_mean(name, keywords)
    )))
}

/// Refuses what a keyword asks for and the driver cannot do.
pub(super) fn check(keyword: &Keyword, value: &str, shown: &str) -> Result<(), DsnError> {
    match keyword.meaning {
        Refused(harmless) if !harmless.contains(&value) => {
            Err(DsnError::new(if harmless.is_empty() {
                format!("{shown} cannot be kept to by this version, so it is refused")
            } else {
                format!(
                    "{shown} may only be {} in this version",
                    harmless.join(" or ")
                )
            }))
        }
        Refused(_) | Used | Ignored => Ok(()),
    }
}
