//! Signatures as Standard Webhooks 1.0 has them: `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`, an HMAC-SHA256 over the two and the body.
//!
//! A route may have several secrets: a request is signed by each, so that a receiver can change
//! from one to the other without losing an event. The id is the same over all attempts; the time is
//! that of the attempt, by this host's clock, since a receiver compares it with its own.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use ureq::http::{HeaderName, HeaderValue};

use crate::handlers::http::masks::Masks;
use crate::handlers::http::secret::{Live, Reading, Secret};
use crate::handlers::keys::Keys;
use crate::handlers::kind::Secrets;

/// Stands before the base64 of a secret.
const PREFIX: &str = "whsec_";

/// Stands for a secret that is left unread: as long as the shortest one.
const UNREAD: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Bytes of a secret, as the specification has them.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Most secrets of a route: two while one replaces the other, and a few more.
const SECRETS_MAX: usize = 8;

/// The id of a message, the time of an attempt, and the signatures.
const HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

const NAME: &str = "sign.standard_webhooks";

/// The secrets that requests are signed with.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Signing(Vec<Secret>);

impl Signing {
    /// Reads the table `sign`.
    pub(super) fn read(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<Signing, String> {
        let Some(table) = keys.table("sign")? else {
            return Ok(Signing::default());
        };
        let in_sign = |problem: String| format!("has `sign`, which {problem}");
        table.check(&["standard_webhooks"]).map_err(in_sign)?;
        let tables = table
            .tables("standard_webhooks")
            .filter(|tables| (1..=SECRETS_MAX).contains(&tables.len()))
            .ok_or_else(|| {
                format!(
                    "has `{NAME}`, which must be a list of 1 to {SECRETS_MAX} secrets, each {{ file = \"…\" }} or {{ env = \"…\" }}"
                )
            })?;
        let reading = Reading {
            secrets,
            unread: UNREAD,
        };
        let read = |table| Secret::of_table(table, NAME, reading);
        Ok(Signing(
            tables.into_iter().map(read).collect::<Result<_, _>>()?,
        ))
    }

    /// How many secrets there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The secrets as they change.
pub(super) struct Signer(Vec<Live>);

impl Signer {
    /// Follows the secrets, and refuses what is none.
    pub(super) fn new(signing: &Signing) -> Result<Signer, String> {
        let live = |secret| {
            Live::new(NAME, secret, |text| key_of(text).map(drop))
                .map_err(|problem| format!("has `{NAME}`, {problem}"))
        };
        Ok(Signer(
            signing.0.iter().map(live).collect::<Result<_, _>>()?,
        ))
    }

    /// Says whether signatures bring a header of this name, in lower case.
    pub(super) fn is_header(&self, name: &str) -> bool {
        !self.0.is_empty() && HEADERS.contains(&name)
    }

    /// Reads the secrets again that have changed, and says whether any has.
    pub(super) fn look(&self) -> bool {
        self.0.iter().filter(|secret| secret.look()).count() > 0
    }

    /// What signs at the moment; `masks` learns the secrets.
    pub(super) fn now(&self, masks: &mut Masks) -> SigningKeys {
        let key = |secret: &Live| {
            let secret = secret.value();
            masks.add(&secret);
            masks.add(secret.strip_prefix(PREFIX).unwrap_or(&secret));
            let key = key_of(&secret).expect("the secret was checked");
            Hmac::new_from_slice(&key).expect("an HMAC takes a key of any length")
        };
        SigningKeys(self.0.iter().map(key).collect())
    }
}

/// The keys that sign, made ready once.
#[derive(Default)]
pub(super) struct SigningKeys(Vec<Hmac<Sha256>>);

impl SigningKeys {
    /// Adds the headers that sign the message of this event and body; none where there are no keys.
    pub(super) fn add_headers(
        &self,
        event_id: i64,
        body: &[u8],
        headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) {
        if !self.0.is_empty() {
            self.sign(&format!("msg_{event_id}"), SystemTime::now(), body, headers);
        }
    }

    fn sign(
        &self,
        id: &str,
        now: SystemTime,
        body: &[u8],
        headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) {
        let seconds = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let signed = format!("{id}.{seconds}.");
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| {
                let mut key = key.clone();
                key.update(signed.as_bytes());
                key.update(body);
                format!("v1,{}", BASE64_STANDARD.encode(key.finalize().into_bytes()))
            })
            .collect();
        let values = [id.to_owned(), seconds.to_string(), signatures.join(" ")];
        for (name, value) in HEADERS.into_iter().zip(values) {
            let value = HeaderValue::try_from(value).expect("it is visible ASCII");
            headers.push((HeaderName::from_static(name), value));
        }
    }
}

/// The bytes of a secret: base64, usually behind `whsec_`.
fn key_of(secret: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD
        .decode(secret.strip_prefix(PREFIX).unwrap_or(secret))
        .ok()
        .filter(|key| SECRET_BYTES.contains(&key.len()))
        .ok_or_else(|| {
            format!(
                "whose values must be `{PREFIX}` and the base64 of {} to {} bytes",
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            )
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn keys(secrets: &[&str]) -> SigningKeys {
        let secrets = secrets.iter().map(|secret| Secret::in_route(secret));
        let signer = Signer::new(&Signing(secrets.collect())).expect("valid secrets");
        signer.now(&mut Masks::default())
    }

    /// The vector of the reference implementations.
    #[test]
    fn a_message_is_signed_as_the_reference_implementations_do() {
        let mut headers = Vec::new();
        let now = UNIX_EPOCH + Duration::from_secs(1_614_265_330);
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let other = SECRET.strip_prefix(PREFIX).expect("it has the prefix");

        keys(&[SECRET, other]).sign(id, now, body, &mut headers);

        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let shown: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("visible ASCII")))
            .collect();
        assert_eq!(
            shown,
            [
                ("webhook-id", id),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", &format!("{signature} {signature}")),
            ]
        );
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        for secret in [
            "whsec_",
            "whsec_c2hvcnQ=",
            "s3cr3t",
            "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &format!("{SECRET}\n"),
            &format!("whsec_{}", BASE64_STANDARD.encode([7; 65])),
        ] {
            let refusal = key_of(secret).expect_err("this is refused");
            assert!(refusal.contains("24 to 64 bytes"), "{refusal}");
            assert!(!refusal.contains("c2hvcnQ"), "{refusal}");
        }
        assert!(key_of(UNREAD).is_ok());
    }
}
