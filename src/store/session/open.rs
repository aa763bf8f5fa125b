//! Opening the connection of a session, with a mark that shows whether a pooler stands in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres::config::{Host, SslMode, SslNegotiation};
use postgres::error::SqlState;
use postgres::{Client, Config, Error};
use r2d2::ManageConnection as _;
use r2d2_postgres::PostgresConnectionManager;

use crate::store::line::{Line, Tap};

/// The setting that shows whether the session is shared.
pub(super) const MARK: &str = "dispatchbox.session";

/// The driver's default.
const DEFAULT_PORT: u16 = 5432;

/// Whether a pooler has refused the mark. Each further try would add a line to its log. If
/// connections reach the server itself later, it is treated as a pooler, too, which costs only some
/// time.
static IS_MARK_REFUSED: AtomicBool = AtomicBool::new(false);

pub(super) fn connect_marked(
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
