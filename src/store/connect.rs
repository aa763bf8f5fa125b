//! Opening a connection within a limited time.
//!
//! The driver bounds only the TCP connect. A server that accepts and stays silent holds the calling
//! thread for ever, whatever is set, and a driver that waits cannot be interrupted. Therefore each
//! address is pinged first over a socket of this program (`ping.rs`), and the driver connects only
//! to an address that answers. It does so in a thread of its own, for which the caller waits no
//! longer than its limit. A thread that exceeds the limit ends when its socket is shut down
//! (`line.rs`). The number of attempts under way is capped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::Config;
use postgres::config::TargetSessionAttrs;

use crate::store::addresses::{Failures, Resolver, Trial, Tried, system_resolver, try_each};
use crate::store::dsn::Dsn;
use crate::store::error::{DOING_CONNECT, StoreError};
use crate::store::ping::ping;
use crate::store::session::{Session, Timeouts};
use crate::store::tls::Tls;
use crate::system::threads::{self, Unfinished};

/// Connection attempts under way in this process, given up or not. Each holds a thread and a
/// socket; a healthy process makes as many at once as it has threads that talk to the database.
const ATTEMPTS_MAX: usize = 32;

/// The length at which a server cuts the name of a connection.
const NAME_BYTES_MAX: usize = 63;

/// Opens a connection to the first server of the description that takes it and sets its session up;
/// ends within `timeouts.connect` for each host, even if it accepts and stays silent.
pub fn connect(
    dsn: &Dsn,
    timeouts: &Timeouts,
    application_name: &str,
) -> Result<Session, StoreError> {
    connect_by(system_resolver, dsn, timeouts, application_name)
}

/// The same with another way to find the addresses of a name.
///
/// A description whose login is refused is read again where it came from: the password may have
/// been changed. What is read there then is used from now on where the database takes it, or at
/// least does not refuse it, too.
pub fn connect_by(
    resolver: Resolver,
    dsn: &Dsn,
    timeouts: &Timeouts,
    application_name: &str,
) -> Result<Session, StoreError> {
    let newest = dsn.newest();
    let refused = match connect_once(resolver, &newest, timeouts, application_name)? {
        Ok(session) => return Ok(session),
        Err(failures) if failures.is_login_refused() => failures,
        Err(failures) => return Err(failures.into_error()),
    };
    let Some(changed) = newest.read_again() else {
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
            resolver(&name, port).map_err(|error| StoreError::of_ping(&error, limit))
        })
    };
    if dsn.lacks_name_to_check() {
        return Err(StoreError::of_tls(
            "sslmode=verify-full needs the host's name in `host`, since the certificate is checked for it".to_owned(),
        ));
    }
    let timeouts = *timeouts;
    let words = dsn.tls();
    let tls = Arc::new(within(timeouts.connect, move || Ok(Tls::load(words)))?);
    let attempt = |trial: Trial| {
        let (options, tls) = (dsn.options().to_owned(), Arc::clone(&tls));
        within(trial.limit, move || open(&trial, &tls, &options, &timeouts))
    };
    Ok(try_each(dsn, hosts, timeouts.connect, find, attempt))
}

/// Runs work that cannot be interrupted in a thread of its own, and waits for it no longer than
/// `limit`.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let attempt = Attempt::begin()?;
    let result = threads::within("connect", limit, move || {
        // If the caller has stopped waiting, the connection is dropped and so closed.
        let result = work();
        drop(attempt);
        result
    });
    result.unwrap_or_else(|unfinished| {
        Err(match unfinished {
            Unfinished::TooSlow => StoreError::no_answer(limit),
            Unfinished::NotStarted(error) => {
                let cause = format!("found no free thread: {}", error.kind());
                StoreError::unavailable(DOING_CONNECT, cause)
            }
            Unfinished::Panicked => {
                StoreError::unavailable(DOING_CONNECT, "the driver panicked".to_owned())
            }
        })
    })
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
    // The session sets the options, because a pooler does not understand them.
    let mut config = dsn
        .without_options()
        .to_postgres()
        .map_err(|error| StoreError::of_dsn(&error))?;
    let given = config.get_application_name().unwrap_or_default();
    let name = full_name(given, application_name);
    config.application_name(&name);
    // `try_each` chooses the kind of server, over all addresses.
    config.target_session_attrs(TargetSessionAttrs::Any);
    // The DSN may ask for a shorter limit. It has set the keepalives, too.
    let own = config.get_connect_timeout().copied();
    config.connect_timeout(own.map_or(timeouts.connect, |own| own.min(timeouts.connect)));
    Ok(config)
}

/// Puts the name of this program behind the one that the description gives. By the given name a
/// person finds the application. By the other the supervisor finds out whether a back end of a dead
/// worker still runs. Therefore that one is kept whole, and the given name is reduced to the
/// characters that the server shows unchanged.
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
fn open(
    trial: &Trial,
    tls: &Tls,
    options: &str,
    timeouts: &Timeouts,
) -> Result<Tried<Session>, StoreError> {
    let since = Instant::now();
    ping(&trial.address, trial.ping_limit)
        .map_err(|error| StoreError::of_ping(&error, trial.ping_limit))?;
    if since.elapsed() >= trial.limit {
        // The caller has stopped waiting, so the driver need not connect.
        return Err(StoreError::no_answer(trial.limit));
    }
    let mut session = Session::open(&trial.config, tls, options, timeouts)?;
    if trial.is_choosy && session.only_reads()? {
        return Ok(Tried::OnlyReads(session));
    }
    Ok(Tried::Fit(session))
}
