//! Messages on standard error, and the exit codes that go with them.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::domain::usage::{EXIT_CONFIG, EXIT_FAILED, EXIT_UNAVAILABLE, UsageError};
use crate::store::dsn::Dsn;
use crate::store::{Session, StoreError, StoreErrorKind};
use crate::system::logging;

/// Writes the lines of an error to standard error and gives its exit code.
pub fn complain(error: &UsageError) -> ExitCode {
    say(&error.render());
    ExitCode::from(error.exit_code())
}

/// Writes why a one-shot command could not do its work in the database, and gives the exit code;
/// `why` explains a table or function that is missing.
pub fn database_failed(error: &StoreError, dsn: &Dsn, why: Option<String>) -> ExitCode {
    let place = format!("the database is {}", dsn.display());
    let hint = match (why, remedy(error)) {
        (Some(why), _) => why,
        // The database may be another one than was meant.
        (None, Some(remedy)) if error.is_schema() => format!("{remedy}; {place}"),
        (None, Some(remedy)) => remedy.to_owned(),
        (None, None) => place,
    };
    say(&format!("error: {error}\nhint: {hint}\n"));
    ExitCode::from(match error.kind() {
        _ if is_unreachable(error) => EXIT_UNAVAILABLE,
        StoreErrorKind::Rejected(_) if is_set_up_wrongly(error) => EXIT_CONFIG,
        StoreErrorKind::Unavailable
        | StoreErrorKind::Unanswered
        | StoreErrorKind::TimedOut
        | StoreErrorKind::Rejected(_) => EXIT_FAILED,
    })
}

/// Explains a table or function that a statement did not find, where more is known than that it is
/// missing.
pub(in crate::cli) fn why_missing(session: &mut Session, error: &StoreError) -> Option<String> {
    if !error.is_schema() {
        return None;
    }
    // The first error matters, not an error of the look for its cause.
    session.why_missing().ok().flatten()
}

/// The remedy, where there is a better one than to look at the database.
pub(in crate::cli) fn remedy(error: &StoreError) -> Option<&'static str> {
    if error.is_schema() {
        Some("`dispatchbox migrate` brings what is missing")
    } else if error.is_permission_denied() {
        Some(
            "`sql/roles.sql` makes roles that may do what is needed: dispatchbox_producer for `publish`, dispatchbox_daemon for all else",
        )
    } else if error.is_shared_connection() {
        Some("name the server itself in the DSN instead of the pooler")
    } else {
        None
    }
}

/// Says whether the database could not be reached at all, or never answered the attempt to connect.
pub(in crate::cli) fn is_unreachable(error: &StoreError) -> bool {
    match error.kind() {
        StoreErrorKind::Unavailable | StoreErrorKind::Unanswered => true,
        StoreErrorKind::TimedOut => error.is_connecting(),
        StoreErrorKind::Rejected(_) => false,
    }
}

/// Says whether a person has to set something right, in the database or in the DSN, before anything
/// works.
fn is_set_up_wrongly(error: &StoreError) -> bool {
    error.is_configuration()
        || error.is_schema()
        || error.is_permission_denied()
        || error.is_shared_connection()
}

/// Writes the warnings of a one-shot command to standard error; `run` logs its own.
pub(in crate::cli) fn warn(warnings: &[String]) {
    for warning in warnings {
        say(&format!("warning: {warning}\n"));
    }
}

/// Writes lines to standard error, as the log would: no secret, no control character but the ends
/// of the lines.
pub(in crate::cli) fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "{}", logging::escape(&logging::redact(line)));
    }
}
