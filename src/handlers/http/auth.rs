//! Who we are to a receiver: `auth = { bearer = { file = "…" } }`, or
//! `auth = { basic = { user = "…", password = { file = "…" } } }`.

use serde::{Deserialize, Serialize};
use ureq::http::HeaderValue;

use crate::handlers::http::masks::Masks;
use crate::handlers::http::receiver::{BASIC, basic};
use crate::handlers::http::secret::{Live, Plain, Reading, Secret};
use crate::handlers::keys::Keys;
use crate::handlers::kind::Secrets;

/// Stands for a secret that is left unread.
const UNREAD: &str = "unread";

/// What the `Authorization` header is made of.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Auth {
    /// A token, as RFC 6750 has it.
    Bearer(Secret),
    /// A user and a password, as RFC 7617 has them.
    Basic {
        /// No secret; it has no colon.
        user: String,
        password: Secret,
    },
}

impl Auth {
    /// Reads the table `auth`.
    pub(super) fn read(keys: Keys<'_>, secrets: Secrets<'_>) -> Result<Option<Auth>, String> {
        let Some(table) = keys.table("auth")? else {
            return Ok(None);
        };
        let in_auth = |problem: String| format!("has `auth`, which {problem}");
        table.check(&["bearer", "basic"]).map_err(in_auth)?;
        let reading = Reading {
            secrets,
            unread: UNREAD,
        };
        match table.names().collect::<Vec<_>>().as_slice() {
            ["bearer"] => Secret::of_key(table, "bearer", "auth.bearer", Plain::Refused, reading)
                .map(|token| Some(Auth::Bearer(token))),
            ["basic"] => Auth::basic(table, reading).map(Some),
            _ => Err(in_auth("must have either `bearer` or `basic`".to_owned())),
        }
    }

    fn basic(keys: Keys<'_>, reading: Reading<'_>) -> Result<Auth, String> {
        let in_basic = |problem: String| format!("has `auth.basic`, which {problem}");
        let table = keys.table("basic").map_err(in_basic)?;
        let table = table.expect("the caller has seen the key");
        table.check(&["user", "password"]).map_err(in_basic)?;
        let user = table.text("user").map_err(in_basic)?;
        if user.contains(':') || user.chars().any(char::is_control) {
            return Err(in_basic(
                "has `user`, which must be a text without `:`".to_owned(),
            ));
        }
        let name = "auth.basic.password";
        Ok(Auth::Basic {
            user: user.to_owned(),
            password: Secret::of_key(table, "password", name, Plain::Refused, reading)?,
        })
    }

    /// The word for the scheme in the file.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Auth::Bearer(_) => "bearer",
            Auth::Basic { .. } => "basic",
        }
    }
}

/// An `Authorization` header whose secret may change.
pub(super) struct Authorization {
    /// None with a token.
    user: Option<String>,
    secret: Live,
}

impl Authorization {
    /// Makes the header ready to be sent.
    pub(super) fn new(auth: &Auth) -> Result<Authorization, String> {
        let live = |name: &str, secret: &Secret, check| {
            Live::new(name, secret, check).map_err(|problem| format!("has `{name}`, {problem}"))
        };
        Ok(match auth {
            Auth::Bearer(token) => Authorization {
                user: None,
                secret: live("auth.bearer", token, check_token)?,
            },
            Auth::Basic { user, password } => Authorization {
                user: Some(user.clone()),
                secret: live("auth.basic.password", password, check_password)?,
            },
        })
    }

    /// Reads the secret again where that has changed, and says whether it has.
    pub(super) fn look(&self) -> bool {
        self.secret.look()
    }

    /// The value as it is sent; `masks` learns what of it is to be shown nowhere.
    pub(super) fn now(&self, masks: &mut Masks) -> HeaderValue {
        let secret = self.secret.value();
        masks.add(&secret);
        let value = match &self.user {
            None => format!("Bearer {secret}"),
            Some(user) => basic(user.as_bytes(), secret.as_bytes()),
        };
        value
            .strip_prefix(BASIC)
            .inspect(|credentials| masks.add(credentials));
        let mut value = HeaderValue::from_str(&value).expect("the secret was checked");
        value.set_sensitive(true);
        value
    }
}

fn check_token(token: &str) -> Result<(), String> {
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err("whose value must be the token alone, in visible ASCII without spaces".to_owned())
}

fn check_password(password: &str) -> Result<(), String> {
    if password.chars().any(char::is_control) {
        return Err("whose value must be one line".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_made_of_the_secret_which_is_masked_in_all_its_forms() {
        let check = |auth: Auth, sent: &str, echo: &str, masked: &str| {
            let mut masks = Masks::default();
            let value = Authorization::new(&auth)
                .expect("it is valid")
                .now(&mut masks);
            assert_eq!(value.to_str().expect("visible ASCII"), sent);
            assert_eq!(masks.apply(echo), masked);
        };
        let bearer = Auth::Bearer(Secret::in_route("t0k"));
        check(bearer, "Bearer t0k", "no Bearer t0k", "no Bearer …");
        // The pair of RFC 7617.
        let basic = Auth::Basic {
            user: "Aladdin".to_owned(),
            password: Secret::in_route("open sesame"),
        };
        let sent = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        check(basic, sent, &format!("{sent} open sesame"), "Basic … …");
    }

    #[test]
    fn a_secret_that_cannot_be_sent_is_refused_and_not_repeated() {
        let bearer = |token| Auth::Bearer(Secret::in_route(token));
        let basic = Auth::Basic {
            user: String::new(),
            password: Secret::in_route("s3cr3t\nX"),
        };
        for auth in [
            bearer("Bearer s3cr3t"),
            bearer("s3cr3tü"),
            bearer("s3cr3t\r\nX: y"),
            basic,
        ] {
            let refusal = Authorization::new(&auth).err().expect("this is refused");
            assert!(
                refusal.contains("`auth.") && !refusal.contains("s3cr3t"),
                "{refusal}"
            );
        }
    }
}
