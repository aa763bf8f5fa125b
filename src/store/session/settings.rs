//! The settings that the calls of a session rely on, whatever the defaults of the server, the
//! database or the role are.

use std::fmt::Write as _;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::{Error, SimpleQueryMessage};

use crate::store::error::StoreError;
use crate::store::session::open::MARK;
use crate::store::session::{Limits, Session};

/// The planner settings of all statements, whatever the defaults of the role or the server are: the
/// statements walk indexes of a table that is mostly in memory, and look ids up in a hash of those
/// that are claimed. With the least `work_mem`, which that hash does not fit into, a claim took a
/// minute among 36,000 claimed events; without index scans, a second. A shared connection does not
/// set them, because setting all of them for each call would cost more.
const PLANNER: [(&str, &str); 14] = [
    ("work_mem", "16MB"),
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_nestloop", "on"),
    ("enable_hashjoin", "on"),
    ("enable_mergejoin", "on"),
    ("enable_hashagg", "on"),
    ("enable_material", "on"),
    ("seq_page_cost", "1"),
    ("random_page_cost", "1.1"),
    ("cpu_tuple_cost", "0.01"),
    ("cpu_index_tuple_cost", "0.005"),
    ("cpu_operator_cost", "0.0025"),
    ("plan_cache_mode", "auto"),
];

/// How often the set-up of a session is tried: it takes a part of a millisecond, on a busy server
/// some more.
const SET_UP_TRIES: u32 = 20;

/// The longest wait for a lock. A lock of another session, on an event row or on the whole table,
/// delays one batch for this long and no other.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

impl Session {
    /// Waits no longer than this from now on. Calls the server only if the limits change.
    pub fn wait_no_longer(&mut self, limits: Limits) -> Result<(), StoreError> {
        if self.limits == limits {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.limits, limits);
        if self.is_shared {
            return Ok(());
        }
        let [statement, lock, ..] = self.settings();
        let sql = [statement, lock].map(|(name, value)| format!("set {name} = {value}"));
        self.batch("set the time limits", &sql.join("; "))
            .inspect_err(|_| self.limits = before)
    }

    /// Lets statements take as long as they need, until the session is set up again.
    pub(in crate::store) fn take_time(&mut self) -> Result<(), StoreError> {
        self.batch("set up the session", "set statement_timeout = 0")?;
        self.answer_max = None;
        Ok(())
    }

    /// Puts the session's settings back after work that needed others.
    pub(in crate::store) fn set_up_again(&mut self) -> Result<(), StoreError> {
        self.answer_max = Some(self.timeouts.answer());
        self.bound.clear();
        self.limits = Limits::default();
        self.set_up(None).map(|_| ())
    }

    /// Sets the settings that every session relies on; says whether that was done. With a mark it
    /// is done only if the server has the mark.
    pub(super) fn set_up(&mut self, mark: Option<&str>) -> Result<bool, StoreError> {
        let mut sql = format!(
            "select set_config('{ISOLATION}', '{READ_COMMITTED}', false)",
            ISOLATION = "default_transaction_isolation"
        );
        for (name, value) in self.settings() {
            // To a string this cannot fail.
            let _ = write!(sql, ", set_config('{name}', '{value}', false)");
        }
        let _ = write!(sql, ", {}", plain_encoding(false));
        for (name, value) in PLANNER {
            let _ = write!(sql, ", set_config('{name}', '{value}', false)");
        }
        // PostgreSQL 17 has another limit, which work that takes hours would meet.
        sql.push_str(
            ", case when current_setting('transaction_timeout', true) is not null then set_config('transaction_timeout', '0', false) end",
        );
        if let Some(mark) = mark {
            let _ = write!(sql, " where current_setting('{MARK}', true) = '{mark}'");
        }
        let mut result = self.timed(|client| client.simple_query(&sql));
        // Until this statement has succeeded the role's own statement_timeout applies, which may be
        // very short.
        let is_cancelled = |error: &Error| error.code() == Some(&SqlState::QUERY_CANCELED);
        for _ in 1..SET_UP_TRIES {
            if !result.as_ref().is_err_and(is_cancelled) {
                break;
            }
            result = self.timed(|client| client.simple_query(&sql));
        }
        let messages = self
            .judge("set up the session", result)
            .map_err(|error| self.blame_version(error))?;
        let is_row = |message| matches!(message, SimpleQueryMessage::Row(_));
        Ok(messages.into_iter().any(is_row))
    }

    /// Names the version of a server that lacks a setting: it is too old for the schema, too.
    fn blame_version(&mut self, error: StoreError) -> StoreError {
        if !error.has_code(&SqlState::UNDEFINED_OBJECT) {
            return error;
        }
        let version =
            "select current_setting('server_version'), current_setting('server_version_num')";
        let told = self.timed(|client| client.simple_query(version));
        let told = told.unwrap_or_default().iter().find_map(|message| {
            let SimpleQueryMessage::Row(row) = message else {
                return None;
            };
            let is_old = is_too_old(row.get(1)?);
            is_old.then_some(row.get(0)?.to_owned())
        });
        told.map_or(error, |version| StoreError::too_old(&version))
    }

    /// How long the server lets a statement take.
    pub(in crate::store) fn statement_max(&self) -> Duration {
        self.limits.statement.unwrap_or(self.timeouts.query)
    }

    /// The settings that the calls rely on beside the isolation level. Compiling short statements
    /// only costs time. Names are read from the catalog unquoted. If a policy hides rows, the calls
    /// work on the others, and a look at the table names the policy.
    pub(super) fn settings(&self) -> [(&'static str, String); 6] {
        let query = self.timeouts.query;
        // Below the statement's own limit, which would end the wait otherwise, and the error would
        // not show that it was a lock.
        let lock = self.limits.lock.unwrap_or(LOCK_TIMEOUT.min(query / 2));
        let text = |limit| milliseconds(limit).to_string();
        [
            ("statement_timeout", text(self.statement_max())),
            ("lock_timeout", text(lock)),
            ("idle_in_transaction_session_timeout", text(query)),
            ("jit", "off".to_owned()),
            ("quote_all_identifiers", "off".to_owned()),
            ("row_security", "on".to_owned()),
        ]
    }
}

/// The oldest version that has all that the schema and the statements use.
const VERSION_MIN: u32 = 12;

/// Says whether a `server_version_num` is below that.
fn is_too_old(version: &str) -> bool {
    let version: Option<u32> = version.parse().ok();
    version.is_some_and(|version| version < VERSION_MIN * 10_000)
}

/// In a database in SQL_ASCII a text may hold any bytes. They are read unchanged, since the server
/// would refuse to send bytes that are not UTF-8.
pub(super) fn plain_encoding(is_local: bool) -> String {
    format!(
        "case when current_setting('server_encoding') = 'SQL_ASCII' then set_config('client_encoding', 'SQL_ASCII', {is_local}) end"
    )
}

/// The isolation level that claims need.
pub(super) const READ_COMMITTED: &str = "read committed";

/// A duration as a PostgreSQL setting. It is at least 1, because 0 means no limit, and fits into an
/// `int`.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis())
        .unwrap_or(i32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::is_too_old;

    #[test]
    fn version_12_is_the_oldest() {
        for (version, is_old) in [
            ("90624", true),
            ("110022", true),
            ("120000", false),
            ("180004", false),
        ] {
            assert_eq!(is_too_old(version), is_old, "{version}");
        }
    }
}
