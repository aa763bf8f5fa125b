//! Where the database is: libpq's keywords in their order, resolved once.

use serde::{Deserialize, Serialize};

/// A resolved connection description. Holds the password, so it is neither `Display` nor in any error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dsn {
    params: Vec<(String, String)>,
}

/// Why a connection description was refused; never shows a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DsnError(String);

impl Dsn {
    /// Parses the keyword form `host=… dbname=…`.
    pub fn parse(text: &str) -> Result<Dsn, DsnError> {
        let params = text
            .split_whitespace()
            .map(|pair| {
                pair.split_once('=')
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .ok_or_else(|| DsnError("expected keyword=value".to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Dsn { params })
    }

    /// Makes the driver's configuration.
    pub fn to_postgres(&self) -> Result<postgres::Config, DsnError> {
        let mut config = postgres::Config::new();
        for (key, value) in &self.params {
            match key.as_str() {
                "host" => config.host(value),
                "dbname" => config.dbname(value),
                "user" => config.user(value),
                "password" => config.password(value),
                "port" => config.port(
                    value
                        .parse()
                        .map_err(|_| DsnError("port must be a number".to_owned()))?,
                ),
                _ => return Err(DsnError(format!("unknown keyword `{key}`"))),
            };
        }
        Ok(config)
    }

    /// Names the database without user or password, for logs and to tell databases apart: `host:port/dbname`.
    pub fn identity(&self) -> String {
        let get = |key: &str| {
            self.params
                .iter()
                .find(|(name, _)| name == key)
                .map_or("", |(_, value)| value)
        };
        format!("{}:{}/{}", get("host"), get("port"), get("dbname"))
    }

    pub fn resolve(
        text: Option<&str>,
        env: &std::collections::BTreeMap<String, String>,
        warnings: &mut Vec<String>,
    ) -> Result<Dsn, DsnError> {
        let _ = (env, warnings);
        Dsn::parse(text.unwrap_or(""))
    }
    pub fn display(&self) -> String {
        self.identity()
    }
    pub fn password_in_text(text: &str) -> bool {
        text.contains("password")
    }
}
