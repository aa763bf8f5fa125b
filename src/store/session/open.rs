//! Opening the connection of a session, in each of the ways that its description allows, with a
//! mark that shows whether a pooler stands in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::warn;
use postgres::config::{Host, SslMode, SslNegotiation};
use postgres::error::SqlState;
use postgres::{Client, Config};
use r2d2::ManageConnection as _;
use r2d2_postgres::PostgresConnectionManager;

use crate::store::error::{DOING_CONNECT, StoreError};
use crate::store::line::Line;
use crate::store::tap::{Encryption, Tap};
use crate::store::tls::{Tls, Way};

/// The setting that shows whether the session is shared.
pub(super) const MARK: &str = "dispatchbox.session";

/// A connection, and what has made it.
pub(super) type Opened = (PostgresConnectionManager<Tap>, Client);

/// Whether a pooler has refused the mark. Each further try would add a line to its log. If
/// connections reach the server itself later, it is treated as a pooler, too, which costs only some
/// time.
static IS_MARK_REFUSED: AtomicBool = AtomicBool::new(false);

/// Opens a connection whose startup packet holds these options, or none where a pooler refuses
/// them.
pub(super) fn open_marked(
    config: &Config,
    tls: &Tls,
    line: &Arc<Line>,
    options: &str,
) -> Result<Opened, StoreError> {
    if !IS_MARK_REFUSED.load(Ordering::Relaxed) {
        let mut marked = config.clone();
        marked.options(options);
        match open(&marked, tls, line) {
            Err(error) if error.has_code(&SqlState::PROTOCOL_VIOLATION) => {}
            tried => return tried,
        }
    }
    let opened = open(config, tls, line)?;
    IS_MARK_REFUSED.store(true, Ordering::Relaxed);
    Ok(opened)
}

/// Tries one way, and the other where that may help. Of two failures the first counts if it is the
/// server's word, else the second; the other one is told beside it.
fn open(config: &Config, tls: &Tls, line: &Arc<Line>) -> Result<Opened, StoreError> {
    if let [Host::Unix(directory)] = config.get_hosts() {
        if let Some(cause) = tls.refusal_of_socket() {
            return Err(StoreError::of_tls(cause.to_owned()));
        }
        let mut config = config.clone();
        let port = config.get_ports().first().copied();
        let tap = Tap::of_unix(line, directory, port.unwrap_or(DEFAULT_PORT));
        config.ssl_mode(SslMode::Disable);
        tls.forget();
        return connect(config, tap, tls, line);
    }
    if let Some(cause) = tls.refusal() {
        return Err(StoreError::of_tls(cause.to_owned()));
    }
    let (first, other) = tls.ways();
    let tried = open_by(first, config.clone(), tls, line);
    let (failed, way) = match (tried, other) {
        (Err(failed), Some(way)) if may_be_tried_otherwise(first, &failed, line) => (failed, way),
        (tried, _) => return tried,
    };
    let opened = open_by(way, config.clone(), tls, line);
    if opened.is_ok() && way == Way::Plain {
        tell_of_plain(&failed);
    }
    opened.map_err(|error| {
        let (of_first, of_second) = match first {
            Way::Plain => ("without TLS", "with TLS"),
            Way::Encrypted => ("with TLS", "without TLS"),
        };
        if failed.is_from_server() {
            failed.beside(of_second, &error)
        } else {
            error.beside(of_first, &failed)
        }
    })
}

/// Says whether another way may be tried after a failure, as in libpq: when the server refuses the
/// login, and when TLS cannot be established. A connection that breaks once it is encrypted is not
/// tried without TLS, nor is one that fails after the login.
fn may_be_tried_otherwise(way: Way, failed: &StoreError, line: &Line) -> bool {
    let is_refused = failed.is_login_refused_by_server();
    let is_without_tls = !failed.is_from_server() && !line.is_encrypted();
    !line.is_cut()
        && match way {
            Way::Plain => is_refused,
            // A server without TLS has been spoken to without already.
            Way::Encrypted => !line.lacks_tls() && (is_refused || is_without_tls),
        }
}

/// Says once in a process that a server which has TLS is spoken to without.
fn tell_of_plain(failed: &StoreError) {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !failed.lacks_tls() && !IS_TOLD.swap(true, Ordering::Relaxed) {
        warn!("a connection to the database is not encrypted, since TLS failed: {failed}");
    }
}

fn open_by(
    way: Way,
    mut config: Config,
    tls: &Tls,
    line: &Arc<Line>,
) -> Result<Opened, StoreError> {
    line.note_opening();
    tls.forget();
    if let ([], &[address, ..]) = (config.get_hosts(), config.get_hostaddrs()) {
        // The driver calls the tap only if there is a host name.
        config.host(&address.to_string());
    }
    // Whatever is wanted: the tap asks for TLS by itself, or leaves it out.
    config.ssl_mode(SslMode::Require);
    config.ssl_negotiation(SslNegotiation::Direct);
    let encryption = match way {
        Way::Plain => Encryption::Without,
        Way::Encrypted => tls.encryption().map_err(StoreError::of_tls)?,
    };
    connect(
        config,
        Tap::of_tcp(line, encryption, tls.auth_rule()),
        tls,
        line,
    )
}

fn connect(config: Config, tap: Tap, tls: &Tls, line: &Line) -> Result<Opened, StoreError> {
    // There is no TLS over a Unix socket that could still be missing.
    let is_by_socket = config.get_ssl_mode() == SslMode::Disable;
    let manager = PostgresConnectionManager::new(config, tap);
    let client = manager.connect().map_err(|error| {
        let is_complete = is_by_socket || line.is_encrypted();
        match tls.in_words(&error, is_complete) {
            Some(cause) => StoreError::unavailable(DOING_CONNECT, cause),
            None => StoreError::of_connect(&error),
        }
    })?;
    tls.check_opened().map_err(StoreError::of_tls)?;
    Ok((manager, client))
}

/// The driver's default.
const DEFAULT_PORT: u16 = 5432;
