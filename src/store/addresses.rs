//! Every address that a connection description leads to, one after the other, until one serves.
//!
//! libpq gives up at the first server that refuses the login, and where a name has several
//! addresses it takes the first that answers, be it a standby. Here each of them is tried before
//! the connect fails, and the required kind of server (`target_session_attrs`) is part of the
//! trial. The address that served is tried first the next time, so an address that drops all
//! packets costs its share of the time once and not at each connect.
//!
//! Time: each host has the time of one attempt, and the time that earlier hosts left over. An
//! address gets an equal share of that to answer the ping. An address that has answered gets nearly
//! all the time that is left, and the others keep half of their share.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use postgres::Config;
use postgres::config::Host;

use crate::store::dsn::{Dsn, Wanted};
use crate::store::error::{DOING_CONNECT, StoreError};
use crate::store::ping::Address;

/// The driver's default.
const DEFAULT_PORT: u16 = 5432;

/// Finds the addresses of a name.
pub type Resolver = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Asks the operating system.
pub fn system_resolver(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (name, port).to_socket_addrs().map(Iterator::collect)
}

/// One address, and the driver's configuration that leads there and nowhere else.
pub(super) struct Trial {
    pub(super) config: Config,
    pub(super) address: Address,
    /// How long the ping may take.
    pub(super) ping_limit: Duration,
    /// How long the whole trial may take.
    pub(super) limit: Duration,
    /// The server has to be one that can be written to.
    pub(super) is_choosy: bool,
}

/// What a trial has led to.
pub(super) enum Tried<T> {
    /// A connection of the kind that is wanted.
    Fit(T),
    /// A connection to a server that only reads.
    OnlyReads(T),
}

/// Why no address served.
#[derive(Default)]
pub(super) struct Failures(Vec<(String, StoreError)>);

impl Failures {
    /// Says whether a server was reached and refused user or password.
    pub(super) fn is_login_refused(&self) -> bool {
        self.0.iter().any(|(_, error)| error.is_login_refused())
    }

    /// Makes one error of the failures of all addresses.
    pub(super) fn into_error(self) -> StoreError {
        StoreError::of_addresses(self.0)
    }
}

/// Tries the addresses of all hosts. `find` and `attempt` end within the time they are given.
pub(super) fn try_each<T>(
    dsn: &Dsn,
    mut hosts: Vec<Config>,
    time_per_host: Duration,
    find: impl Fn(&str, u16, Duration) -> Result<Vec<SocketAddr>, StoreError>,
    attempt: impl Fn(Trial) -> Result<Tried<T>, StoreError>,
) -> Result<T, Failures> {
    let mut failures = Failures::default();
    let mut spare = None;
    let wanted = dsn.wanted();
    let mut deadline = Instant::now();
    if wanted == Wanted::Writable {
        // The host that served last is probably the primary. The sort is stable, so the others keep
        // their order.
        hosts.sort_by_key(|host| !dsn.is_good_host(&shown(host)));
    }
    for config in hosts {
        deadline += time_per_host;
        let name = shown(&config);
        let addresses = match addresses(dsn, &config, &name, |host, port| {
            find(host, port, left_until(deadline))
        }) {
            Ok(addresses) => addresses,
            Err(error) => {
                failures.0.push((name, error));
                continue;
            }
        };
        for (address, n_behind) in addresses.iter().zip((0..addresses.len()).rev()) {
            let is_choosy = match wanted {
                Wanted::Any => false,
                Wanted::Writable => true,
                Wanted::WritableFirst => addresses.len() > 1,
            };
            let trial = trial(&config, address, left_until(deadline), n_behind, is_choosy);
            match attempt(trial) {
                Ok(Tried::Fit(session)) => {
                    dsn.note_good(&name, address.ip());
                    return Ok(session);
                }
                Ok(Tried::OnlyReads(session)) => {
                    failures
                        .0
                        .push((address.shown(), StoreError::only_reads(DOING_CONNECT)));
                    // The first connection to a server that only reads is kept in reserve.
                    spare.get_or_insert(session);
                }
                Err(error) => failures.0.push((address.shown(), error)),
            }
        }
    }
    match spare {
        Some(session) if wanted == Wanted::WritableFirst => Ok(session),
        _ => Err(failures),
    }
}

fn left_until(deadline: Instant) -> Duration {
    // Some of the calls take zero as no limit, others refuse it.
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

fn trial(
    config: &Config,
    address: &Address,
    left: Duration,
    n_behind: usize,
    is_choosy: bool,
) -> Trial {
    let n_behind = u32::try_from(n_behind).unwrap_or(u32::MAX - 1);
    let share = left / (n_behind + 1);
    let mut config = config.clone();
    if config.get_hostaddrs().is_empty()
        && let Some(ip) = address.ip()
    {
        config.hostaddr(ip);
    }
    Trial {
        config,
        address: address.clone(),
        ping_limit: share,
        limit: left.saturating_sub(share / 2 * n_behind),
        is_choosy,
    }
}

/// Finds the addresses of one host, the one that answered last in front.
fn addresses(
    dsn: &Dsn,
    config: &Config,
    name: &str,
    find: impl Fn(&str, u16) -> Result<Vec<SocketAddr>, StoreError>,
) -> Result<Vec<Address>, StoreError> {
    let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    if let Some(&ip) = config.get_hostaddrs().first() {
        return Ok(vec![Address::Tcp((ip, port).into())]);
    }
    let mut found: Vec<SocketAddr> = match config.get_hosts().first() {
        Some(Host::Unix(directory)) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            return Ok(vec![Address::Unix(path)]);
        }
        Some(Host::Tcp(host)) => match host.parse::<IpAddr>() {
            Ok(ip) => vec![(ip, port).into()],
            Err(_) => find(host, port)?,
        },
        None => Vec::new(),
    };
    let mut seen = BTreeSet::new();
    found.retain(|address| seen.insert(*address));
    dsn.balance(&mut found);
    if let Some(good) = dsn.good_address(name)
        && !(dsn.is_balanced() && dsn.wanted() == Wanted::Any)
    {
        // The sort is stable, so the others keep their order.
        found.sort_by_key(|address| address.ip() != good);
    }
    if found.is_empty() {
        let cause = "the name has no address".to_owned();
        return Err(StoreError::unavailable(DOING_CONNECT, cause));
    }
    Ok(found.into_iter().map(Address::Tcp).collect())
}

/// Names a host of the description.
fn shown(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => format!("{host}:{port}"),
        Some(Host::Unix(directory)) => format!("{}:{port}", directory.display()),
        None => config
            .get_hostaddrs()
            .first()
            .map_or_else(String::new, |ip| format!("{ip}:{port}")),
    }
}
