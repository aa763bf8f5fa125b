//! The errors of database calls, classified once from the SQLSTATE.
//!
//! Callers ask a few questions and never look at texts: wait and go on, discard the connection,
//! halve the batch, or give up because a person has to set something right. The driver's own text
//! is only "db error", so the causes are walked here; what is shown is the server's one line, never
//! a detail that quotes row values, and never a part of the DSN.

mod cause;
mod made;

use postgres::error::SqlState;

use crate::domain::failure::FailureKind;
pub(crate) use cause::io_cause;

/// A database call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not {doing}: {cause}")]
pub struct StoreError {
    doing: &'static str,
    kind: StoreErrorKind,
    /// The server's SQLSTATE, if it sent one.
    code: Option<SqlState>,
    cause: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// There is no connection, or it is not usable any more.
    Unavailable,
    /// No answer came, and the connection was cut.
    Unanswered,
    /// It took longer than allowed.
    TimedOut,
    /// The server rejected the statement; its SQLSTATE.
    Rejected(String),
}

impl StoreError {
    /// The kind of failure.
    pub fn kind(&self) -> &StoreErrorKind {
        &self.kind
    }

    /// Says whether the server has refused the login, by its own word.
    pub(super) fn is_login_refused_by_server(&self) -> bool {
        let code = self.code.as_ref();
        code.is_some_and(|code| code.code().starts_with("28"))
    }

    /// Says whether the server itself has said so.
    pub(super) fn is_from_server(&self) -> bool {
        self.code.is_some()
    }

    /// Says whether trying again later can succeed without a change by a person.
    pub fn is_transient(&self) -> bool {
        match &self.kind {
            StoreErrorKind::Unavailable | StoreErrorKind::Unanswered | StoreErrorKind::TimedOut => {
                true
            }
            StoreErrorKind::Rejected(code) => {
                // Transaction rollback, resources, locks, operator, system, internal.
                ["40", "53", "55", "57", "58", "XX"]
                    .iter()
                    .any(|class| code.starts_with(class))
                    || is_session_stale(code)
            }
        }
    }

    /// Says whether the connection has to be discarded: it is gone, it leads to a server that only
    /// reads since a failover, or it has lost its prepared statements.
    pub fn is_connection_lost(&self) -> bool {
        match &self.kind {
            StoreErrorKind::Unavailable | StoreErrorKind::Unanswered => true,
            StoreErrorKind::TimedOut => false,
            StoreErrorKind::Rejected(code) => is_session_stale(code),
        }
    }

    /// Says whether the server may have done what was asked, or may yet: the connection was lost
    /// before an answer came. An error of the statement is an answer, also where the connection is
    /// of no use after it: nothing of the statement stands.
    pub fn is_unanswered(&self) -> bool {
        match &self.kind {
            StoreErrorKind::Unanswered => true,
            StoreErrorKind::Unavailable => self.code.as_ref().is_none_or(|code| {
                let code = code.code();
                // The server, or a pooler, says goodbye, and that may come after a commit.
                code.starts_with("08") || code.starts_with("57P0")
            }),
            StoreErrorKind::TimedOut | StoreErrorKind::Rejected(_) => false,
        }
    }

    /// Says whether a lock was not available within the session's `lock_timeout`. The same batch in
    /// smaller parts finds the locked row.
    pub fn is_lock_timeout(&self) -> bool {
        self.has_code(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Says whether the server undid the transaction because of another one: the same again at once
    /// is likely to succeed.
    pub fn is_conflict(&self) -> bool {
        self.has_code(&SqlState::T_R_DEADLOCK_DETECTED)
            || self.has_code(&SqlState::T_R_SERIALIZATION_FAILURE)
    }

    /// Says whether some of the rows read or written may be to blame, so that a part of the batch
    /// could succeed: a row is locked by another session, refused by a trigger or a constraint,
    /// holds what no text can hold, or is damaged.
    pub fn is_about_a_row(&self) -> bool {
        let StoreErrorKind::Rejected(code) = &self.kind else {
            return false;
        };
        // Memory, limits of the program, files, the inside of the server: a value that is too
        // large, or a page that is damaged.
        let is_of_a_value = code == "53200"
            || ["54", "58", "XX"]
                .iter()
                .any(|class| code.starts_with(class));
        let is_refused = !(self.is_transient() || self.is_schema() || self.is_configuration());
        self.is_lock_timeout() || self.is_conflict() || is_of_a_value || is_refused
    }

    /// Says whether a row is refused for what it is: neither locked, nor undone because of another
    /// transaction.
    pub fn is_refusal(&self) -> bool {
        self.is_about_a_row() && !self.is_lock_timeout() && !self.is_conflict()
    }

    /// Says whether a statement took longer than it may: a smaller part may get through.
    pub fn is_statement_timeout(&self) -> bool {
        self.has_code(&SqlState::QUERY_CANCELED)
    }

    /// Says whether a value was refused for what it is, by a type or by a constraint: another value
    /// may be taken.
    pub fn is_about_a_value(&self) -> bool {
        matches!(&self.kind, StoreErrorKind::Rejected(code) if code.starts_with("22") || code.starts_with("23"))
    }

    /// Says whether a text holds a character that the encoding of the database, or of the
    /// connection, lacks.
    pub fn is_untranslatable(&self) -> bool {
        self.has_code(&SqlState::UNTRANSLATABLE_CHARACTER)
            || self.has_code(&SqlState::CHARACTER_NOT_IN_REPERTOIRE)
    }

    /// Says whether a text was refused because it is no JSON that the server can keep.
    pub fn is_bad_json(&self) -> bool {
        matches!(&self.kind, StoreErrorKind::Rejected(code) if matches!(code.as_str(), "22P02" | "22P05" | "22003" | "22021") || code.starts_with("2203"))
    }

    /// The server's own message.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Says whether there was no connection yet.
    pub fn is_connecting(&self) -> bool {
        self.doing == DOING_CONNECT
    }

    /// Says whether user, password or database name are wrong: no waiting helps.
    pub fn is_configuration(&self) -> bool {
        matches!(&self.kind, StoreErrorKind::Rejected(code)
            if code.starts_with("28") || code == SqlState::INVALID_CATALOG_NAME.code())
    }

    /// Says whether user or password were refused; a pooler says so by a code of its own.
    pub(super) fn is_login_refused(&self) -> bool {
        self.has_code(&SqlState::PROTOCOL_VIOLATION)
            || matches!(&self.kind, StoreErrorKind::Rejected(code) if code.starts_with("28"))
    }

    /// Says whether a pooler shares the connection, and what was wanted would change settings of
    /// its other clients.
    pub fn is_shared_connection(&self) -> bool {
        let code = SqlState::INVALID_TRANSACTION_STATE;
        self.code.is_none() && self.kind == StoreErrorKind::Rejected(code.code().to_owned())
    }

    /// Says whether a table, column, function or schema is not there: `dispatchbox migrate` helps.
    pub fn is_schema(&self) -> bool {
        [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::INVALID_SCHEMA_NAME,
        ]
        .iter()
        .any(|code| self.has_code(code))
    }

    /// Says whether the role lacks a privilege, or a rule of the table refuses a row.
    pub fn is_permission_denied(&self) -> bool {
        self.has_code(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// The kind of failure that reports and /ready show if the error persists.
    pub fn failure_kind(&self) -> FailureKind {
        if self.has_code(&SqlState::READ_ONLY_SQL_TRANSACTION) {
            FailureKind::ReadOnly
        } else if self.is_connection_lost() || self.is_connecting() {
            FailureKind::Unavailable
        } else if self.is_schema() {
            FailureKind::Schema
        } else if self.is_permission_denied() {
            FailureKind::PermissionDenied
        } else if self.is_lock_timeout() {
            FailureKind::TableLocked
        } else if self.kind == StoreErrorKind::TimedOut {
            FailureKind::TimedOut
        } else {
            FailureKind::Refused
        }
    }

    /// Names the reason in one of a few words, fit for a metric's label.
    pub fn reason(&self) -> &'static str {
        let code = self.code.as_ref().map_or("", SqlState::code);
        match (&self.kind, code) {
            (_, "53300") => "too_many_connections",
            (_, "25006") => "read_only",
            (_, "55P03") => "lock_timeout",
            (_, "40P01") => "deadlock",
            (_, "40001") => "serialization",
            (_, "53100") => "disk_full",
            (_, code) if code.starts_with("57P0") => "shutdown",
            (StoreErrorKind::TimedOut | StoreErrorKind::Unanswered, _) => "timeout",
            (StoreErrorKind::Unavailable, _) => "connection",
            (StoreErrorKind::Rejected(_), _) if self.is_configuration() => "authentication",
            (StoreErrorKind::Rejected(_), _) if self.is_schema() => "schema",
            (StoreErrorKind::Rejected(_), _) if self.is_permission_denied() => "permission",
            (StoreErrorKind::Rejected(_), _) => "other",
        }
    }

    pub(super) fn has_code(&self, code: &SqlState) -> bool {
        self.code.as_ref() == Some(code)
    }
}

/// What a failed connection attempt was doing.
pub(crate) const DOING_CONNECT: &str = "connect to the database";

/// Sorts an SQLSTATE into a kind.
fn kind_of(code: &str) -> StoreErrorKind {
    match code {
        // Cancelled: by statement_timeout, or by a person.
        "57014" => StoreErrorKind::TimedOut,
        // Too many connections; idle in a transaction too long, which ends the connection; a
        // standby, where nothing can be written.
        "53300" | "25P03" | "25P04" | "25006" => StoreErrorKind::Unavailable,
        _ if code.starts_with("08") || code.starts_with("57P0") => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Rejected(code.to_owned()),
    }
}

/// Says whether the session no longer knows its prepared statements, because a pooler reset it.
fn is_session_stale(code: &str) -> bool {
    code == SqlState::INVALID_SQL_STATEMENT_NAME.code()
        || code == SqlState::DUPLICATE_PSTATEMENT.code()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rejected(code: &str) -> StoreError {
        StoreError {
            doing: "claim events",
            kind: kind_of(code),
            code: Some(SqlState::from_code(code)),
            cause: "no".to_owned(),
        }
    }

    #[test]
    fn each_code_leads_to_one_decision() {
        // code, transient, connection lost, configuration, schema, reason
        let cases = [
            ("08006", true, true, false, false, "connection"),
            ("57P01", true, true, false, false, "shutdown"),
            ("57P03", true, true, false, false, "shutdown"),
            ("53300", true, true, false, false, "too_many_connections"),
            ("25006", true, true, false, false, "read_only"),
            ("57014", true, false, false, false, "timeout"),
            ("55P03", true, false, false, false, "lock_timeout"),
            ("40P01", true, false, false, false, "deadlock"),
            ("40001", true, false, false, false, "serialization"),
            ("53100", true, false, false, false, "disk_full"),
            ("26000", true, true, false, false, "other"),
            ("0A000", false, false, false, false, "other"),
            ("28P01", false, false, true, false, "authentication"),
            ("3D000", false, false, true, false, "authentication"),
            ("42P01", false, false, false, true, "schema"),
            ("42703", false, false, false, true, "schema"),
            ("42883", false, false, false, true, "schema"),
            ("3F000", false, false, false, true, "schema"),
            ("42501", false, false, false, false, "permission"),
            ("22P02", false, false, false, false, "other"),
        ];
        for (code, transient, lost, configuration, schema, reason) in cases {
            let error = rejected(code);
            assert_eq!(error.is_transient(), transient, "{code}");
            assert_eq!(error.is_connection_lost(), lost, "{code}");
            assert_eq!(error.is_configuration(), configuration, "{code}");
            assert_eq!(error.is_schema(), schema, "{code}");
            assert_eq!(error.is_lock_timeout(), code == "55P03", "{code}");
            assert_eq!(error.reason(), reason, "{code}");
        }
    }

    #[test]
    fn only_a_call_whose_connection_was_lost_may_have_been_carried_out() {
        for code in ["08006", "57P01", "57P02"] {
            assert!(rejected(code).is_unanswered(), "{code}");
        }
        for code in ["53300", "25006", "26000", "57014", "42P01"] {
            assert!(!rejected(code).is_unanswered(), "{code}");
        }
        assert!(StoreError::cut("claim events", Duration::ZERO).is_unanswered());
        let closed = StoreError::unavailable("claim events", "connection closed".to_owned());
        assert!(closed.is_unanswered());
    }

    #[test]
    fn each_code_is_one_failure_kind() {
        let cases = [
            ("08006", FailureKind::Unavailable),
            ("57P01", FailureKind::Unavailable),
            ("53300", FailureKind::Unavailable),
            ("25006", FailureKind::ReadOnly),
            ("42P01", FailureKind::Schema),
            ("42883", FailureKind::Schema),
            ("42501", FailureKind::PermissionDenied),
            ("55P03", FailureKind::TableLocked),
            ("57014", FailureKind::TimedOut),
            ("53100", FailureKind::Refused),
            ("0A000", FailureKind::Refused),
            ("22P02", FailureKind::Refused),
        ];
        for (code, failure_kind) in cases {
            assert_eq!(rejected(code).failure_kind(), failure_kind, "{code}");
        }
    }

    #[test]
    fn an_error_says_what_was_being_done_and_why_not() {
        assert_eq!(rejected("42P01").to_string(), "could not claim events: no");
    }
}
