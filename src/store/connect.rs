//! One connection whose calls end.
//!
//! The driver bounds only the TCP connect: a server that accepts and stays silent holds its caller for ever, whatever is set, and a
//! driver that waits cannot be stopped. So each address is knocked at first with a socket of our own, and the driver is sent only to one that
//! answers, in a thread of its own: the caller waits as long as it was told to and no longer. A thread that was given up ends when the
//! server, which did answer, answers or goes away; the number of attempts under way is capped.
//!
//! After that each call is bounded by the server (`statement_timeout`, `lock_timeout`), and a silent network by keepalives and
//! `tcp_user_timeout`. A server that is stopped without being gone still holds its caller; the supervisor replaces a worker that no
//! longer turns.
//!
//! Settings are made by a statement and not in the startup packet, which a pooler may refuse.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use postgres::config::TargetSessionAttrs;
use postgres::types::ToSql;
use postgres::{Client, Config, NoTls, Row, SimpleQueryMessage, Statement};

use super::addresses::{Failures, Resolver, Trial, Tried, system_resolver, try_each};
use super::dsn::Dsn;
use super::error::{DOING_CONNECT, StoreError};
use super::knock::knock;
use super::repertoire::Repertoire;

/// Connection attempts under way in this process, given up or not. Each holds a thread and a socket; a healthy process makes as many
/// at once as it has threads that talk to the database.
const ATTEMPTS_MAX: usize = 32;

/// A server cuts the name of a connection there.
const NAME_BYTES_MAX: usize = 63;

/// Longest wait for a lock: what somebody else holds, an event row or the whole table, stops one batch for this long and others not.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

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
}

/// How long the calls of a session wait from now on; `None` is as long as in every session of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// For a lock.
    pub lock: Option<Duration>,
    /// For a statement to end.
    pub statement: Option<Duration>,
}

/// One connection. Its statements are prepared when they are first used, and kept.
pub struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    setup: String,
    /// Set where they are not what the setup says.
    limits: Limits,
    repertoire: Repertoire,
    opened: Instant,
    is_broken: bool,
}

/// Opens a connection to the first server of the description that takes it and sets its session up; ends within `timeouts.connect` for each
/// host, even if it accepts and stays silent.
pub fn connect(
    dsn: &Dsn,
    timeouts: &Timeouts,
    application_name: &str,
) -> Result<Session, StoreError> {
    connect_by(system_resolver, dsn, timeouts, application_name)
}

/// The same with another way to find the addresses of a name.
///
/// A description whose login is refused is read again where it came from: the password may have been changed. What is read there then is
/// used from now on where the database takes it, or at least does not refuse it, too.
pub fn connect_by(
    resolver: Resolver,
    dsn: &Dsn,
    timeouts: &Timeouts,
    application_name: &str,
) -> Result<Session, StoreError> {
    let known = dsn.newest();
    let refused = match connect_once(resolver, &known, timeouts, application_name)? {
        Ok(session) => return Ok(session),
        Err(failures) if failures.is_login_refused() => failures,
        Err(failures) => return Err(failures.into_error()),
    };
    let Some(changed) = known.read_again() else {
        return Err(refused.into_error());
    };
    match connect_once(resolver, &changed, timeouts, application_name)? {
        Ok(session) => {
            dsn.adopt(changed);
            Ok(session)
        }
        Err(failures) => {
            if !failures.is_login_refused() {
                dsn.adopt(changed);
            }
            Err(failures.into_error())
        }
    }
}

/// Tries every address of every host.
fn connect_once(
    resolver: Resolver,
    dsn: &Dsn,
    timeouts: &Timeouts,
    application_name: &str,
) -> Result<Result<Session, Failures>, StoreError> {
    let hosts: Vec<Config> = dsn
        .each_host()
        .iter()
        .map(|host| configure(host, timeouts, application_name))
        .collect::<Result<_, _>>()?;
    let find = |name: &str, port: u16, limit: Duration| {
        let name = name.to_owned();
        within(limit, move || {
            resolver(&name, port).map_err(|err| StoreError::of_knock(&err, limit))
        })
    };
    let timeouts = *timeouts;
    let attempt = |trial: Trial| within(trial.limit, move || open(&trial, &timeouts));
    Ok(try_each(dsn, hosts, timeouts.connect, find, attempt))
}

/// Does what cannot be interrupted in a thread of its own, and waits for it no longer than this.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let attempt = Attempt::begin()?;
    let (sender, result) = bounded(1);
    thread::Builder::new()
        .name("connect".to_owned())
        .spawn(move || {
            // When nobody waits any more the connection is closed again, by being dropped here.
            let _ = sender.send(work());
            drop(attempt);
        })
        .map_err(|err| {
            let cause = format!("found no free thread: {}", err.kind());
            StoreError::unavailable(DOING_CONNECT, cause)
        })?;
    match result.recv_timeout(limit) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout) => Err(StoreError::no_answer(limit)),
        Err(RecvTimeoutError::Disconnected) => {
            let cause = "the driver panicked".to_owned();
            Err(StoreError::unavailable(DOING_CONNECT, cause))
        }
    }
}

impl Session {
    fn open(config: &Config, setup: String) -> Result<Session, StoreError> {
        let mut client = config
            .connect(NoTls)
            .map_err(|err| StoreError::of_connect(&err))?;
        client
            .batch_execute(&setup)
            .map_err(|err| StoreError::of_statement("set up the session", &err))?;
        Ok(Session {
            client,
            statements: HashMap::new(),
            setup,
            limits: Limits::default(),
            repertoire: Repertoire::default(),
            opened: Instant::now(),
            is_broken: false,
        })
    }

    /// Says whether the server is a standby, or takes no writes for another reason.
    fn only_reads(&mut self) -> Result<bool, StoreError> {
        let result = self.client.simple_query("show transaction_read_only");
        let messages = self.judge("look whether the server can be written to", result)?;
        Ok(messages.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on")),
        ))
    }

    /// Says whether this connection has to be discarded.
    pub fn is_broken(&self) -> bool {
        self.is_broken || self.client.is_closed()
    }

    /// When this connection was opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Runs one statement, prepared at its first use, and reads its rows; `doing` completes "could not".
    pub(crate) fn query<T>(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
        read: impl Fn(&Row) -> Result<T, postgres::Error>,
    ) -> Result<Vec<T>, StoreError> {
        let result = self
            .statement(sql)
            .and_then(|statement| self.client.query(&statement, params))
            .and_then(|rows| rows.iter().map(read).collect());
        self.judge(doing, result)
    }

    /// Runs statements that are not prepared and return nothing; several of them are one transaction.
    pub(crate) fn batch(&mut self, doing: &'static str, sql: &str) -> Result<(), StoreError> {
        let result = self.client.batch_execute(sql);
        self.judge(doing, result)
    }

    /// Waits no longer than this from now on. Asks the server only where that is a change.
    pub fn wait_no_longer(&mut self, limits: Limits) -> Result<(), StoreError> {
        if self.limits == limits {
            return Ok(());
        }
        self.set_up_again()?;
        let settings = [
            ("lock_timeout", limits.lock),
            ("statement_timeout", limits.statement),
        ];
        let sql: Vec<String> = settings
            .into_iter()
            .filter_map(|(name, limit)| Some(format!("set {name} = {}", milliseconds(limit?))))
            .collect();
        if !sql.is_empty() {
            self.batch("set the time limits", &sql.join("; "))?;
        }
        self.limits = limits;
        Ok(())
    }

    pub(super) fn repertoire(&self) -> &Repertoire {
        &self.repertoire
    }

    pub(super) fn repertoire_mut(&mut self) -> &mut Repertoire {
        &mut self.repertoire
    }

    /// Puts the session's settings back after work that needed others.
    pub(super) fn set_up_again(&mut self) -> Result<(), StoreError> {
        let result = self.client.batch_execute(&self.setup);
        self.judge("set up the session", result)?;
        self.limits = Limits::default();
        Ok(())
    }

    fn statement(&mut self, sql: &'static str) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    fn judge<T>(
        &mut self,
        doing: &'static str,
        result: Result<T, postgres::Error>,
    ) -> Result<T, StoreError> {
        result.map_err(|err| {
            let error = StoreError::of_statement(doing, &err);
            self.is_broken |= error.is_connection_lost();
            error
        })
    }
}

/// Counts itself while it lives.
struct Attempt;

static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);

impl Attempt {
    fn begin() -> Result<Attempt, StoreError> {
        let attempt = Attempt;
        if ATTEMPTS.fetch_add(1, Ordering::Relaxed) < ATTEMPTS_MAX {
            return Ok(attempt);
        }
        let cause = format!("{ATTEMPTS_MAX} attempts still wait for an answer");
        Err(StoreError::timed_out(DOING_CONNECT, cause))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        ATTEMPTS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn configure(dsn: &Dsn, timeouts: &Timeouts, application_name: &str) -> Result<Config, StoreError> {
    let mut config = dsn.to_postgres().map_err(|err| StoreError::of_dsn(&err))?;
    let given = config.get_application_name().unwrap_or_default();
    let name = full_name(given, application_name);
    config.application_name(&name);
    // Which server is of use is decided here, over all addresses.
    config.target_session_attrs(TargetSessionAttrs::Any);
    // The DSN may ask for less; it has set the keepalives, too.
    let own = config.get_connect_timeout().copied();
    config.connect_timeout(own.map_or(timeouts.connect, |own| own.min(timeouts.connect)));
    Ok(config)
}

/// Puts our name behind the one that the description gives: a person finds his application by the one, and by the other it is known whether
/// a back end of a worker that died still runs. So ours is kept whole, and only what the server would show as it is stands before it.
fn full_name(given: &str, ours: &str) -> String {
    let given = given.trim();
    let room = NAME_BYTES_MAX.saturating_sub(ours.len() + 1);
    let given: String = given
        .chars()
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .take(room)
        .collect();
    match given.trim_end() {
        "" => ours.to_owned(),
        given => format!("{given} {ours}"),
    }
}

/// Opens a session at one address, and looks whether it can be written to where that matters.
fn open(trial: &Trial, timeouts: &Timeouts) -> Result<Tried<Session>, StoreError> {
    knock(&trial.address, trial.knock_limit)
        .map_err(|err| StoreError::of_knock(&err, trial.knock_limit))?;
    let mut session = Session::open(&trial.config, setup_sql(timeouts))?;
    if trial.is_choosy && session.only_reads()? {
        return Ok(Tried::OnlyReads(session));
    }
    Ok(Tried::Fit(session))
}

/// What every session of ours relies on, whatever the server, the database or the role has as its default: claims need READ COMMITTED,
/// and compiling short statements only costs. In SQL_ASCII a text is whatever bytes it is: they are taken as they are, since the server would
/// refuse to send what is no UTF-8.
fn setup_sql(timeouts: &Timeouts) -> String {
    // Below the statement's own limit, or that would end the wait and nobody would know that it was a lock.
    let lock = LOCK_TIMEOUT.min(timeouts.query / 2);
    format!(
        "set default_transaction_isolation = 'read committed'; set statement_timeout = {query}; set lock_timeout = {lock}; \
         set idle_in_transaction_session_timeout = {query}; set jit = off; \
         select set_config('client_encoding', 'SQL_ASCII', false) where current_setting('server_encoding') = 'SQL_ASCII'",
        query = milliseconds(timeouts.query),
        lock = milliseconds(lock),
    )
}

/// In PostgreSQL 0 would mean no limit at all, and more than an `int` is refused.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis())
        .unwrap_or(i32::MAX)
        .max(1)
}
