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

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres::config::{Host, SslMode, SslNegotiation};
use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, Error, Row, Statement};
use r2d2::ManageConnection as _;
use r2d2_postgres::PostgresConnectionManager;

use crate::store::dsn::Dsn;
use crate::store::error::StoreError;
use crate::store::line::{Line, Tap};
use crate::store::options;
use crate::store::repertoire::Repertoire;
use crate::store::watch::watch;

/// A connection that has brought a larger answer, in bytes, is not kept in a pool for rare calls.
const ANSWER_KEPT_MAX: usize = 1024 * 1024;

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

/// The most time between the time limit of a statement and the cutting of its line, in which the
/// server ends the statement and its answer arrives.
const MARGIN_MAX: Duration = Duration::from_secs(3);

/// The least such time, for statements that are meant to be short.
const MARGIN_MIN: Duration = Duration::from_secs(1);

/// How long closing a connection may take: it sends a message to the server, which may be stopped.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// The idle time after which the server is asked whether a connection still works before it is
/// used. That costs a round trip, which takes a negligible time.
pub(super) const IDLE: Duration = Duration::from_secs(2);

/// How long that answer may take. After that the connection is discarded.
const IDLE_ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long database calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Bounds a connection attempt, for each host of the DSN.
    pub connect: Duration,
    /// Bounds each statement.
    pub query: Duration,
}

impl Timeouts {
    /// Bounds a connection attempt that tries every host of the DSN.
    pub fn connect_all(&self, dsn: &Dsn) -> Duration {
        let n_hosts = u32::try_from(dsn.n_hosts()).unwrap_or(u32::MAX);
        self.connect.saturating_mul(n_hosts)
    }

    /// The time after which no answer is expected any more.
    fn answer(&self) -> Duration {
        self.query + self.query.clamp(MARGIN_MIN, MARGIN_MAX)
    }
}

/// How long the calls of a session wait from now on; `None` means the usual limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// For a lock.
    pub lock: Option<Duration>,
    /// For a statement to end.
    pub statement: Option<Duration>,
}

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
        options: &str,
        timeouts: &Timeouts,
    ) -> Result<Session, StoreError> {
        let line = Arc::new(Line::default());
        watch(&line);
        // The caller has stopped waiting by then.
        line.begin(timeouts.connect);
        let mark = format!("{:016x}", fastrand::u64(..));
        let (manager, opened) =
            connect_marked(config, &line, &format!("{options} -c {MARK}={mark}"));
        let client = opened.map_err(|error| StoreError::of_connect(&error))?;
        let mut session = Session {
            client,
            manager,
            line,
            timeouts: *timeouts,
            answer_max: Some(timeouts.answer()),
            is_shared: false,
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

    /// Lets statements take as long as they need, until the session is set up again.
    pub(super) fn take_time(&mut self) -> Result<(), StoreError> {
        self.batch("set up the session", "set statement_timeout = 0")?;
        self.answer_max = None;
        Ok(())
    }

    /// Puts the session's settings back after work that needed others.
    pub(super) fn set_up_again(&mut self) -> Result<(), StoreError> {
        self.answer_max = Some(self.timeouts.answer());
        self.bound.clear();
        self.limits = Limits::default();
        self.set_up(None).map(|_| ())
    }

    /// Sets the settings that every session relies on; says whether that was done. With a mark it
    /// is done only if the server has the mark.
    fn set_up(&mut self, mark: Option<&str>) -> Result<bool, StoreError> {
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
        let messages = self.judge("set up the session", result)?;
        let is_row = |message| matches!(message, postgres::SimpleQueryMessage::Row(_));
        Ok(messages.into_iter().any(is_row))
    }

    /// How long the server lets a statement take.
    pub(super) fn statement_max(&self) -> Duration {
        self.limits.statement.unwrap_or(self.timeouts.query)
    }

    /// The settings that the calls rely on beside the isolation level. Compiling short statements
    /// only costs time. Names are read from the catalog unquoted. If a policy hides rows, the calls
    /// work on the others, and a look at the table names the policy.
    fn settings(&self) -> [(&'static str, String); 6] {
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

/// The setting that shows whether the session is shared.
const MARK: &str = "dispatchbox.session";

/// Ends a transaction whose changes are undone.
const UNDO: &str = "rollback";

/// In a database in SQL_ASCII a text may hold any bytes. They are read unchanged, since the server
/// would refuse to send bytes that are not UTF-8.
fn plain_encoding(is_local: bool) -> String {
    format!(
        "case when current_setting('server_encoding') = 'SQL_ASCII' then set_config('client_encoding', 'SQL_ASCII', {is_local}) end"
    )
}

/// The isolation level that claims need.
const READ_COMMITTED: &str = "read committed";

/// Whether a pooler has refused the mark. Each further try would add a line to its log. If
/// connections reach the server itself later, it is treated as a pooler, too, which costs only some
/// time.
static IS_MARK_REFUSED: AtomicBool = AtomicBool::new(false);

fn connect_marked(
    config: &Config,
    line: &Arc<Line>,
    options: &str,
) -> (PostgresConnectionManager<Tap>, Result<Client, Error>) {
    if !IS_MARK_REFUSED.load(Ordering::Relaxed) {
        let mut marked = config.clone();
        marked.options(options);
        let tried = connect(marked, line);
        let is_refused = |error: &Error| error.code() == Some(&SqlState::PROTOCOL_VIOLATION);
        if !tried.1.as_ref().is_err_and(is_refused) {
            return tried;
        }
    }
    let tried = connect(config.clone(), line);
    if tried.1.is_ok() {
        IS_MARK_REFUSED.store(true, Ordering::Relaxed);
    }
    tried
}

fn connect(
    mut config: Config,
    line: &Arc<Line>,
) -> (PostgresConnectionManager<Tap>, Result<Client, Error>) {
    let tap = if let [Host::Unix(directory)] = config.get_hosts() {
        let port = config.get_ports().first().copied();
        let tap = Tap::of_unix(line, directory, port.unwrap_or(DEFAULT_PORT));
        config.ssl_mode(SslMode::Disable);
        tap
    } else {
        if let ([], &[address, ..]) = (config.get_hosts(), config.get_hostaddrs()) {
            // The driver calls the tap only if there is a host name.
            config.host(&address.to_string());
        }
        config.ssl_mode(SslMode::Require);
        config.ssl_negotiation(SslNegotiation::Direct);
        Tap::of_tcp(line)
    };
    let manager = PostgresConnectionManager::new(config, tap);
    let client = manager.connect();
    (manager, client)
}

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

/// The driver's default.
const DEFAULT_PORT: u16 = 5432;

/// A duration as a PostgreSQL setting. It is at least 1, because 0 means no limit, and fits into an
/// `int`.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis())
        .unwrap_or(i32::MAX)
        .max(1)
}
