//! How errors are made: from what the driver or the system reports, and from what the program finds
//! itself. `doing` completes "could not".

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use postgres::error::SqlState;

use crate::store::dsn::DsnError;
use crate::store::error::cause::{cause_of, has_io_cause, io_cause, is_plan_outdated};
use crate::store::error::{DOING_CONNECT, StoreError, StoreErrorKind, kind_of};
use crate::store::ping::is_time_out;

/// Code given to what the driver refuses by itself while connecting: a missing password, TLS that
/// it cannot do, bad settings.
const REFUSED_BY_DRIVER: &str = "28000";

/// The driver's words for a server without TLS.
const NO_TLS: &str = "server does not support TLS";

impl StoreError {
    /// Classifies the error of a statement; `doing` completes "could not".
    pub(crate) fn of_statement(doing: &'static str, error: &postgres::Error) -> StoreError {
        let code = error.code().cloned();
        let kind = match &code {
            // The session's statement has become useless, as one that a pooler has taken from it.
            // What else is not supported stays so.
            Some(_) if error.as_db_error().is_some_and(is_plan_outdated) => {
                StoreErrorKind::Rejected(SqlState::INVALID_SQL_STATEMENT_NAME.code().to_owned())
            }
            Some(code) => kind_of(code.code()),
            None if error.is_closed() || has_io_cause(error) => StoreErrorKind::Unavailable,
            // An answer that is not what the statement promises, a column of another type for
            // example.
            None => StoreErrorKind::Rejected(SqlState::DATATYPE_MISMATCH.code().to_owned()),
        };
        StoreError {
            doing,
            kind,
            code,
            cause: cause_of(error),
        }
    }

    /// Classifies the error of a connection attempt.
    pub(crate) fn of_connect(error: &postgres::Error) -> StoreError {
        let mut error = StoreError::of_statement(DOING_CONNECT, error);
        if error.code.is_none() && error.kind != StoreErrorKind::Unavailable {
            error.kind = StoreErrorKind::Rejected(REFUSED_BY_DRIVER.to_owned());
        }
        error
    }

    /// Classifies the error of a name lookup or of a ping.
    pub(in crate::store) fn of_ping(error: &io::Error, limit: Duration) -> StoreError {
        if is_time_out(error) {
            return StoreError::no_answer(limit);
        }
        StoreError::unavailable(DOING_CONNECT, io_cause(error))
    }

    /// The server has not answered within the time limit.
    pub(in crate::store) fn no_answer(limit: Duration) -> StoreError {
        // Rounded up, because a part of the time limit has passed already.
        let hundredths = (limit.as_secs_f64() * 100.0 - 1e-6).ceil();
        let cause = format!("no answer within {} s", hundredths / 100.0);
        StoreError::timed_out(DOING_CONNECT, cause)
    }

    /// The server accepts connections but no writes.
    pub(in crate::store) fn only_reads(doing: &'static str) -> StoreError {
        StoreError {
            doing,
            kind: kind_of(SqlState::READ_ONLY_SQL_TRANSACTION.code()),
            code: Some(SqlState::READ_ONLY_SQL_TRANSACTION),
            cause: "the server only reads".to_owned(),
        }
    }

    /// None of several addresses has given a connection. The error is transient if that of one
    /// address is, and names the cause of each.
    pub(in crate::store) fn of_addresses(mut failures: Vec<(String, StoreError)>) -> StoreError {
        let causes: BTreeSet<&String> = failures.iter().map(|(_, error)| &error.cause).collect();
        let cause = match (causes.first(), causes.len()) {
            (Some(cause), 1) => (*cause).clone(),
            (None, _) => "no host is named".to_owned(),
            _ => {
                let texts = failures
                    .iter()
                    .map(|(address, error)| format!("{address}: {}", error.cause));
                texts.collect::<Vec<_>>().join("; ")
            }
        };
        // The answer of a server is more helpful than the absence of another one.
        failures.sort_by_key(|(_, error)| (!error.is_transient(), error.code.is_none()));
        match failures.into_iter().next() {
            Some((_, error)) => StoreError { cause, ..error },
            None => StoreError::unavailable(DOING_CONNECT, cause),
        }
    }

    /// The driver refuses the connection description.
    pub(crate) fn of_dsn(error: &DsnError) -> StoreError {
        StoreError {
            doing: DOING_CONNECT,
            kind: StoreErrorKind::Rejected(REFUSED_BY_DRIVER.to_owned()),
            code: None,
            cause: error.to_string(),
        }
    }

    /// TLS cannot be made as the description asks for it.
    pub(in crate::store) fn of_tls(cause: String) -> StoreError {
        StoreError {
            doing: DOING_CONNECT,
            kind: StoreErrorKind::Rejected(REFUSED_BY_DRIVER.to_owned()),
            code: None,
            cause,
        }
    }

    /// Tells another failure beside this one, unless it says the same or only that there is no TLS.
    pub(in crate::store) fn beside(mut self, when: &str, other: &StoreError) -> StoreError {
        if other.cause != self.cause && !other.lacks_tls() {
            let _ = write!(self.cause, " ({when}: {})", other.cause);
        }
        self
    }

    /// Says whether all that failed is that the server has no TLS.
    pub(in crate::store) fn lacks_tls(&self) -> bool {
        self.cause.ends_with(NO_TLS)
    }

    /// No schema of the search_path exists.
    pub(crate) fn no_schema() -> StoreError {
        StoreError {
            doing: "choose the schema",
            kind: kind_of(SqlState::INVALID_SCHEMA_NAME.code()),
            code: Some(SqlState::INVALID_SCHEMA_NAME),
            cause: "no schema of the search_path exists".to_owned(),
        }
    }

    /// The server's version lacks what is needed.
    pub(in crate::store) fn too_old(version: &str) -> StoreError {
        StoreError {
            doing: "use the server",
            kind: kind_of(SqlState::FEATURE_NOT_SUPPORTED.code()),
            code: Some(SqlState::FEATURE_NOT_SUPPORTED),
            cause: format!("it is PostgreSQL {version}, and 12 or newer is needed"),
        }
    }

    /// The tables stand in a schema that the search_path does not reach.
    pub(crate) fn out_of_reach(cause: String) -> StoreError {
        StoreError {
            doing: "choose the schema",
            kind: kind_of(SqlState::INVALID_SCHEMA_NAME.code()),
            code: Some(SqlState::INVALID_SCHEMA_NAME),
            cause,
        }
    }

    /// A name that the schema needs belongs to something else.
    pub(crate) fn name_is_taken(doing: &'static str, name: &str) -> StoreError {
        StoreError {
            doing,
            kind: kind_of(SqlState::DUPLICATE_OBJECT.code()),
            code: Some(SqlState::DUPLICATE_OBJECT),
            cause: format!(
                "the name {name} is taken by something else, an index of another table perhaps: rename that"
            ),
        }
    }

    /// The role may not do what is needed; `lacking` in the words of a grant.
    pub(crate) fn lacks_privilege(doing: &'static str, role: &str, lacking: &str) -> StoreError {
        StoreError {
            doing,
            kind: kind_of(SqlState::INSUFFICIENT_PRIVILEGE.code()),
            code: Some(SqlState::INSUFFICIENT_PRIVILEGE),
            cause: format!("the role {role} lacks {lacking}"),
        }
    }

    /// The statement succeeded without an effect, because of a trigger or a rule of the database's
    /// owner.
    pub(crate) fn swallowed(doing: &'static str) -> StoreError {
        StoreError {
            doing,
            kind: StoreErrorKind::Rejected(SqlState::NO_DATA.code().to_owned()),
            code: None,
            cause: "a trigger or a rule of the table has swallowed the row".to_owned(),
        }
    }

    /// The error of one row, of a statement that succeeded as a whole.
    pub(crate) fn of_row(doing: &'static str, code: &str, cause: String) -> StoreError {
        StoreError {
            doing,
            kind: kind_of(code),
            code: Some(SqlState::from_code(code)),
            cause,
        }
    }

    /// Adds the bound that ended a statement, which the server does not say: it may be far below
    /// the one that a person has set.
    pub(in crate::store) fn with_bound(mut self, bound: Duration) -> StoreError {
        if self.is_statement_timeout() && self.cause.ends_with("statement timeout") {
            self.cause = format!("{}, here {} s", self.cause, bound.as_secs_f64());
        }
        self
    }

    /// The update of a row succeeded, and the row is unchanged.
    pub(crate) fn kept(doing: &'static str) -> StoreError {
        StoreError {
            doing,
            kind: StoreErrorKind::Rejected(SqlState::NO_DATA.code().to_owned()),
            code: None,
            cause: "a trigger or a policy of the table keeps the row as it was".to_owned(),
        }
    }

    /// A wait reached its time limit.
    pub(crate) fn timed_out(doing: &'static str, cause: String) -> StoreError {
        StoreError {
            doing,
            kind: StoreErrorKind::TimedOut,
            code: None,
            cause,
        }
    }

    /// A call had no answer, and its line was cut.
    pub(in crate::store) fn cut(doing: &'static str, limit: Duration) -> StoreError {
        StoreError {
            doing,
            kind: StoreErrorKind::Unanswered,
            code: None,
            cause: format!("no answer within {} s", limit.as_secs_f64()),
        }
    }

    /// The call would change settings of other clients of a pooler.
    pub(in crate::store) fn shared(doing: &'static str) -> StoreError {
        StoreError {
            doing,
            kind: StoreErrorKind::Rejected(SqlState::INVALID_TRANSACTION_STATE.code().to_owned()),
            code: None,
            cause:
                "a connection pooler stands in between, which shares this connection with others"
                    .to_owned(),
        }
    }

    /// There is no connection, for a reason within this program.
    pub(crate) fn unavailable(doing: &'static str, cause: String) -> StoreError {
        StoreError {
            doing,
            kind: StoreErrorKind::Unavailable,
            code: None,
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_took_too_long_says_how_long_it_might() {
        let shown = |code: &str, cause: &str| {
            let error = StoreError::of_row("settle events", code, cause.to_owned());
            error.with_bound(Duration::from_millis(600)).cause
        };
        for (code, cause, expected) in [
            (
                "57014",
                "canceling statement due to statement timeout",
                "canceling statement due to statement timeout, here 0.6 s",
            ),
            (
                "57014",
                "canceling statement due to user request",
                "canceling statement due to user request",
            ),
            ("23514", "statement timeout", "statement timeout"),
        ] {
            assert_eq!(shown(code, cause), expected);
        }
    }
}
