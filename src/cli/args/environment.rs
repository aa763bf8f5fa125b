//! The environment of the process, as the settings read it.

use std::ffi::OsString;

use crate::cli::settings::setting::ENV_PREFIX;
use crate::domain::usage::UsageError;
use crate::store::dsn::Env;

/// Prefixes of our variables and libpq's.
const OUR_PREFIXES: [&str; 3] = [ENV_PREFIX, "PG", "DATABASE_URL"];

/// Takes the environment as a map. A variable that is not UTF-8 is an error where the program would
/// read it, and is ignored elsewhere.
pub fn environment(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Env, UsageError> {
    let mut env = Env::new();
    for (name, value) in vars {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                env.insert(name, value);
            }
            Err(_) if OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => {
                return Err(UsageError::new(format!(
                    "the variable {name} is not valid UTF-8"
                )));
            }
            Err(_) => {}
        }
    }
    Ok(env)
}
