//! The connection's encryption, and how long its certificates last.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::json;

use super::{Findings, Patient};
use crate::store::Certificates;
use crate::store::doctor::facts::Encryption;
use crate::store::doctor::{Finding, Level};

/// A certificate that ends sooner is mentioned. Most are renewed a month before their end.
const DAYS_LEFT_MIN: i64 = 14;

const SECONDS_OF_DAY: i64 = 24 * 60 * 60;

/// Says whether the connection is encrypted, and whether a certificate ends soon.
pub(super) fn look(patient: &mut Patient<'_>) -> Findings {
    let certificates = patient.session.certificates().clone();
    let seen = patient.session.encryption()?;
    let is_shared = patient.session.is_shared();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut findings = vec![encrypted(&seen, &certificates, is_shared)];
    for (whose, end) in [
        ("server's", certificates.server),
        ("client's", certificates.client),
    ] {
        findings.extend(end.and_then(|end| ending(whose, end, now)));
    }
    Ok(findings)
}

/// `seen` is what the server says of the connection that it has, which is the pooler's where one is
/// in between.
fn encrypted(seen: &Encryption, certificates: &Certificates, is_shared: bool) -> Finding {
    let is_ours = certificates.server.is_some();
    let mut parts = Vec::new();
    if is_shared && is_ours {
        parts.push("TLS to the pooler".to_owned());
    }
    let of = if is_shared {
        "between pooler and server: "
    } else {
        ""
    };
    parts.push(match &seen.tls {
        Some((version, cipher)) => format!("{of}{version}, {cipher}"),
        None if seen.is_local => format!("{of}not encrypted, on one host"),
        None => format!(
            "{of}the connection is not encrypted: events and what a login shows can be read on the way"
        ),
    });
    for (whose, end) in [
        ("server's", certificates.server),
        ("client's", certificates.client),
    ] {
        parts.extend(end.map(|end| format!("the {whose} certificate ends {}", time(end))));
    }
    let data = json!({
        "version": seen.tls.as_ref().map(|(version, _)| version),
        "server_certificate_ends": certificates.server.map(time),
        "client_certificate_ends": certificates.client.map(time),
    });
    if seen.tls.is_some() || seen.is_local {
        return Finding::new(Level::Ok, parts.join("; ")).data(data);
    }
    Finding::new(Level::Warning, parts.join("; "))
        .remedy("sslmode=verify-full and sslrootcert in the DSN, and hostssl in pg_hba.conf of the server")
        .data(data)
}

fn ending(whose: &str, end: i64, now: i64) -> Option<Finding> {
    let days = (end - now).div_euclid(SECONDS_OF_DAY);
    if days >= DAYS_LEFT_MIN {
        return None;
    }
    let (level, text) = if end < now {
        let text = format!("the {whose} certificate has ended {}", time(end));
        (Level::Error, text)
    } else {
        let text = format!("the {whose} certificate ends {}, in {days} days", time(end));
        (Level::Warning, text)
    };
    let remedy = if whose.starts_with("server") {
        "renew it, and SELECT pg_reload_conf() on the server"
    } else {
        "renew the file in sslcert; the daemon reads it at each connect"
    };
    let data = json!({ "certificate": whose, "ends": time(end) });
    Some(Finding::new(level, text).remedy(remedy).data(data))
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "never".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_certificate_is_mentioned_two_weeks_before_its_end() {
        let check = |days: i64, expected: Option<Level>| {
            let found = ending("server's", NOW + days * SECONDS_OF_DAY, NOW);
            assert_eq!(found.map(|it| it.level), expected, "{days} days");
        };

        check(14, None);
        check(13, Some(Level::Warning));
        check(0, Some(Level::Warning));
        check(-1, Some(Level::Error));
    }

    #[test]
    fn only_a_way_over_the_network_has_to_be_encrypted() {
        let check = |tls: bool, is_local, expected| {
            let seen = Encryption {
                tls: tls.then(|| ("TLSv1.3".to_owned(), "AES".to_owned())),
                is_local,
            };
            let found = encrypted(&seen, &Certificates::default(), false);
            assert_eq!(found.level, expected, "{}", found.message);
        };

        check(true, false, Level::Ok);
        check(false, true, Level::Ok);
        check(false, false, Level::Warning);
    }

    #[test]
    fn what_is_encrypted_behind_a_pooler_is_said_of_both_ways() {
        let own = Certificates {
            server: Some(NOW),
            client: None,
        };
        let found = encrypted(&Encryption::default(), &own, true);
        assert!(
            found.message.starts_with(
                "TLS to the pooler; between pooler and server: the connection is not encrypted"
            ),
            "{}",
            found.message
        );
    }
}
