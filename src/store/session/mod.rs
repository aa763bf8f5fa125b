//! One connection whose calls are bounded.
//!
//! The server bounds each call (`statement_timeout`, `lock_timeout`). If the server is stopped, the
//! line of the call is cut when no answer has come for a while longer (`line.rs`).
//!
//! The settings that the calls rely on are set in one of two ways, whatever the defaults of the
//! server, the database or the role are:
//!
//! - An unshared session is set up once, by a statement and not in the startup packet, which a
//!   pooler may refuse. Its statements are prepared when they are first used, and kept.
//! - A pooler (PgBouncer) lends each transaction another server's connection, which other clients
//!   use before and after: a setting would affect those clients, and a prepared statement would not
//!   be found again. Therefore each call is a transaction of its own that sets what it needs for
//!   itself, and its statements have no names. That takes three round trips to the pooler instead
//!   of one, and no more work on the server.
//!
//! Behind a pooler each transaction sets the `options` of the description in the same way, because
//! a pooler refuses or ignores them.
//!
//! A mark shows which of the two applies: the startup packet asks for a setting of a made-up name.
//! A server gives the setting to the session that it starts. A pooler refuses or ignores it.

mod limits;
mod open;
mod settings;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, Error, Row, Statement};
use r2d2::ManageConnection as _;
use r2d2_postgres::PostgresConnectionManager;

use crate::store::error::StoreError;
use crate::store::line::Line;
use crate::store::options;
use crate::store::repertoire::Repertoire;
use crate::store::tap::Tap;
use crate::store::tls::{Certificates, Tls};
use crate::store::watch::watch;
pub use limits::{Limits, Timeouts};
use open::{MARK, open_marked};
use settings::{READ_COMMITTED, plain_encoding};

/// A connection that has brought a larger answer, in bytes, is not kept in a pool for rare calls.
const ANSWER_KEPT_MAX: usize = 1024 * 1024;

/// How long closing a connection may take: it sends a message to the server, which may be stopped.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// The idle time after which the server is asked whether a connection still works before it is
/// used. That costs a round trip, which takes a negligible time.
pub(super) const IDLE: Duration = Duration::from_secs(2);

/// How long that answer may take. After that the connection is discarded.
const IDLE_ANSWER_MAX: Duration = Duration::from_secs(2);

/// One connection.
pub struct Session {
    // Dropped before the line, which ends a closing that the server does not answer.
    client: Client,
    manager: PostgresConnectionManager<Tap>,
    line: Arc<Line>,
    timeouts: Timeouts,
    /// Longest wait for an answer; none during work that takes hours.
    answer_max: Option<Duration>,
    /// A pooler shares the connection with other clients.
    is_shared: bool,
    certificates: Certificates,
    /// The statement that ends a transaction on a shared connection.
    end: &'static str,
    /// The settings that the description asks for, where the pooler has not passed them on.
    given: Vec<(String, String)>,
    /// The prepared statements by their text, if the connection is not shared.
    prepared: HashMap<&'static str, Statement>,
    /// The parameter types by statement, if the connection is shared.
    types: HashMap<&'static str, Vec<Type>>,
    /// The statements that bind the session beside the settings; each transaction runs them if the
    /// connection is shared.
    bound: Vec<&'static str>,
    limits: Limits,
    repertoire: Repertoire,
    opened: Instant,
    /// When its last call was over.
    used: Instant,
    is_broken: bool,
    /// The driver's buffer has grown with a large answer, and stays so while the connection lives.
    is_swollen: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.line.begin(CLOSE_MAX);
    }
}

impl Session {
    /// Opens a connection to the only host of the configuration and sets its session up, with the
    /// `options` of its description.
    pub(super) fn open(
        config: &Config,
        tls: &Tls,
        options: &str,
        timeouts: &Timeouts,
    ) -> Result<Session, StoreError> {
        let line = Arc::new(Line::default());
        watch(&line);
        // The caller has stopped waiting by then.
        line.begin(timeouts.connect);
        let mark = format!("{:016x}", fastrand::u64(..));
        let marked = format!("{options} -c {MARK}={mark}");
        let (manager, client) = open_marked(config, tls, &line, &marked).map_err(|error| {
            if line.is_cut() {
                StoreError::no_answer(timeouts.connect)
            } else {
                error
            }
        })?;
        let mut session = Session {
            client,
            manager,
            line,
            timeouts: *timeouts,
            answer_max: Some(timeouts.answer()),
            is_shared: false,
            certificates: tls.certificates(),
            end: "commit",
            given: Vec::new(),
            prepared: HashMap::new(),
            types: HashMap::new(),
            bound: Vec::new(),
            limits: Limits::default(),
            repertoire: Repertoire::default(),
            opened: Instant::now(),
            used: Instant::now(),
            is_broken: false,
            is_swollen: false,
        };
        session.is_shared = !session.set_up(Some(&mark))?;
        if session.is_shared {
            session.given = options::settings(options);
        }
        Ok(session)
    }

    /// Says whether this connection has to be discarded.
    pub fn is_broken(&self) -> bool {
        self.is_broken || self.line.is_cut() || self.client.is_closed()
    }

    /// Says whether a pool has to discard this connection.
    pub(super) fn has_broken(&mut self) -> bool {
        self.is_broken() || self.manager.has_broken(&mut self.client)
    }

    /// Says whether a large answer has made the driver's buffer grow.
    pub(super) fn is_swollen(&self) -> bool {
        self.is_swollen
    }

    /// Says whether this connection can be used. After it was idle for so long the server is asked:
    /// it may have closed the connection, for having been idle for too long for instance, or
    /// something on the way may have forgotten it. The driver does not notice while nothing is
    /// called.
    pub(super) fn is_open(&mut self, idle: Duration) -> bool {
        if !self.is_broken() && self.used.elapsed() >= idle {
            let answer = self.timed(|client| client.is_valid(IDLE_ANSWER_MAX));
            self.is_broken |= answer.is_err();
        }
        !self.is_broken()
    }

    /// Says whether the server is a standby, or takes no writes for another reason.
    pub(super) fn only_reads(&mut self) -> Result<bool, StoreError> {
        let doing = "look whether the server can be written to";
        let sql = "select current_setting('transaction_read_only')";
        let found: Vec<String> = self.query(doing, sql, &[], |row| row.try_get(0))?;
        Ok(found == ["on"])
    }

    /// Says whether a pooler shares this connection with other clients.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// When the certificates end with which it is encrypted.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// When this connection was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Runs one statement and reads its rows; `doing` completes "could not".
    pub(crate) fn query<T>(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
        read: impl Fn(&Row) -> Result<T, Error>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = if self.is_shared {
            self.query_shared(sql, params)
        } else {
            self.query_own(sql, params)
        };
        if let Ok(rows) = &rows {
            let bytes: usize = rows.iter().map(Row::raw_size_bytes).sum();
            self.is_swollen |= bytes > ANSWER_KEPT_MAX;
        }
        self.judge(doing, rows.and_then(|rows| rows.iter().map(read).collect()))
    }

    /// Runs statements that are not prepared and return nothing; several of them are one
    /// transaction. They may set what they like: this is refused where others would find it.
    pub(crate) fn batch(&mut self, doing: &'static str, sql: &str) -> Result<(), StoreError> {
        if self.is_shared {
            return Err(StoreError::shared(doing));
        }
        let result = self.timed(|client| client.batch_execute(sql));
        self.judge(doing, result)
    }

    /// Runs a statement that binds what comes after it, by settings, and reads its rows. Its only
    /// parameter says whether the settings are for the transaction alone; then it is repeated in
    /// each.
    pub(crate) fn bind<T>(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        read: impl Fn(&Row) -> Result<T, Error>,
    ) -> Result<Vec<T>, StoreError> {
        let is_local = self.is_shared;
        let rows = self.query(doing, sql, &[&is_local], read)?;
        if !self.is_bound(sql) {
            self.bound.push(sql);
        }
        Ok(rows)
    }

    /// Says whether this statement binds the session already.
    pub(crate) fn is_bound(&self, sql: &'static str) -> bool {
        self.bound.contains(&sql)
    }

    pub(super) fn repertoire(&self) -> &Repertoire {
        &self.repertoire
    }

    pub(super) fn repertoire_mut(&mut self) -> &mut Repertoire {
        &mut self.repertoire
    }

    /// Does work in a transaction that is rolled back, so that it changes nothing in the database.
    pub(super) fn undone<T>(
        &mut self,
        work: impl FnOnce(&mut Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.is_shared {
            self.end = UNDO;
            let result = work(self);
            self.end = "commit";
            return result;
        }
        self.batch("begin a rehearsal", "begin")?;
        let result = work(self);
        self.batch("undo a rehearsal", UNDO)?;
        result
    }

    fn query_own(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = if let Some(statement) = self.prepared.get(sql) {
            statement.clone()
        } else {
            let statement = self.timed(|client| client.prepare(sql))?;
            self.prepared.insert(sql, statement.clone());
            statement
        };
        self.timed(|client| client.query(&statement, params))
    }

    /// Runs the statement in a transaction of its own, which leaves nothing behind in the
    /// connection.
    fn query_shared(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let mut begin = format!("begin isolation level {READ_COMMITTED}");
        for (name, value) in &self.given {
            let [name, value] = [name, value].map(|text| options::literal(text));
            let _ = write!(begin, "; select set_config({name}, {value}, true)");
        }
        for (name, value) in self.settings() {
            let _ = write!(begin, "; set local {name} = {value}");
        }
        let _ = write!(begin, "; select {}", plain_encoding(true));
        for sql in &self.bound {
            let _ = write!(begin, "; {}", sql.replace("$1", "true"));
        }
        let end = self.end;
        let result = self
            .timed(|client| client.batch_execute(&begin))
            .and_then(|()| self.query_unnamed(sql, params))
            .and_then(|rows| {
                self.timed(|client| client.batch_execute(end))
                    .map(|()| rows)
            });
        if result.is_err() {
            // If not even this succeeds the state of the connection is unknown.
            self.is_broken |= self.timed(|client| client.batch_execute(UNDO)).is_err();
        }
        result
    }

    fn query_unnamed(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let types = self
            .types
            .entry(sql)
            .or_insert_with(|| params.iter().map(|param| type_of(*param)).collect());
        let params: Vec<(&(dyn ToSql + Sync), Type)> =
            params.iter().copied().zip(types.iter().cloned()).collect();
        self.timed(|client| client.query_typed(sql, &params))
    }

    /// Makes one call, whose line is cut when no answer comes.
    fn timed<T>(&mut self, call: impl FnOnce(&mut Client) -> T) -> T {
        if let Some(limit) = self.answer_max {
            self.line.begin(limit);
        }
        let result = call(&mut self.client);
        self.line.end();
        self.used = Instant::now();
        result
    }

    fn judge<T>(&mut self, doing: &'static str, result: Result<T, Error>) -> Result<T, StoreError> {
        result.map_err(|error| {
            let error = match self.answer_max {
                Some(limit) if self.line.is_cut() => StoreError::cut(doing, limit),
                _ => StoreError::of_statement(doing, &error).with_bound(self.statement_max()),
            };
            self.is_broken |= error.is_connection_lost();
            error
        })
    }
}

/// Ends a transaction whose changes are undone.
const UNDO: &str = "rollback";

/// The type of a parameter. It is derived from the value, because asking the server takes a
/// prepared statement, whose name may be in use already on a shared connection.
fn type_of(param: &(dyn ToSql + Sync)) -> Type {
    const KNOWN: [Type; 14] = [
        Type::TEXT,
        Type::INT8,
        Type::INT4,
        Type::INT2,
        Type::FLOAT8,
        Type::BOOL,
        Type::TIMESTAMPTZ,
        Type::BYTEA,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT4_ARRAY,
        Type::INT2_ARRAY,
        Type::BOOL_ARRAY,
        Type::FLOAT8_ARRAY,
    ];
    KNOWN
        .into_iter()
        .find(|param_type| {
            param
                .to_sql_checked(param_type, &mut BytesMut::new())
                .is_ok()
        })
        // The driver refuses this type and names the reason.
        .unwrap_or(Type::UNKNOWN)
}
