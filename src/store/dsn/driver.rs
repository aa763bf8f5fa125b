//! From libpq's keywords to the driver's setters.

use std::net::IpAddr;
use std::time::Duration;

use postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use crate::store::dsn::{AuthRule, Dsn, DsnError, Host};

/// A dead peer is noticed after 10 s of silence and three unanswered probes, 25 s in all: the
/// operating system's two hours would outlast every lease.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_COUNT: u32 = 3;

/// The same limit for data that the peer does not acknowledge. Longer than the probes take, since
/// it replaces their count.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(25);

/// Spellings of the one encoding that the driver speaks; `auto` asks for the locale's, which it
/// does not look at.
const UTF8: [&str; 4] = ["utf8", "utf-8", "unicode", "auto"];

const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];
/// The versions of TLS that libpq knows, in their order.
pub(super) const TLS_VERSIONS: [&str; 4] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

const TARGETS: [&str; 6] = [
    "any",
    "read-write",
    "read-only",
    "primary",
    "standby",
    "prefer-standby",
];

/// Checks the value of a keyword; `shown` is how its place names it.
pub(super) fn check(name: &str, value: &str, shown: &str) -> Result<(), DsnError> {
    let one_of = |allowed: &[&str]| {
        if allowed.contains(&value) {
            return Ok(());
        }
        Err(DsnError::new(format!(
            "{shown} must be one of {}",
            allowed.join(", ")
        )))
    };
    match name {
        "host" => value.split(',').try_for_each(|host| check_host(host, shown)),
        "hostaddr" => value.split(',').filter(|address| !address.is_empty()).try_for_each(|address| {
            address.parse::<IpAddr>().map(drop).map_err(|_| DsnError::new(format!("{shown} must be an IP address")))
        }),
        "port" => value.split(',').try_for_each(|port| port_of(port, shown).map(drop)),
        "connect_timeout" | "keepalives" | "keepalives_idle" | "keepalives_interval" | "keepalives_count"
        | "tcp_user_timeout" => number(value, shown).map(drop),
        "sslmode" => one_of(&SSL_MODES),
        "sslcertmode" => one_of(&["disable", "allow", "require"]),
        "sslnegotiation" => one_of(&["postgres", "direct"]),
        "ssl_min_protocol_version" | "ssl_max_protocol_version" => one_of(&TLS_VERSIONS),
        "require_auth" => AuthRule::parse(value, shown).map(drop),
        "max_protocol_version" => one_of(&["3.0", "3.2", "latest"]),
        "channel_binding" => one_of(&["disable", "prefer", "require"]),
        "load_balance_hosts" => one_of(&["disable", "random"]),
        "target_session_attrs" => one_of(&TARGETS).and_then(|()| match value {
            "any" | "read-write" | "primary" => Ok(()),
            _ => Err(DsnError::new(format!(
                "{shown}={value} leads to a server that cannot be written to, and claiming events is writing; use read-write"
            ))),
        }),
        "client_encoding" if !UTF8.contains(&value.to_ascii_lowercase().as_str()) => {
            Err(DsnError::new(format!("{shown} must be UTF8")))
        }
        _ if value.contains('\0') => Err(DsnError::new(format!("{shown} holds a NUL character"))),
        _ => Ok(()),
    }
}

/// A host with an `@` is mostly the end of a password that was not written %40, which no lookup may
/// show.
fn check_host(host: &str, shown: &str) -> Result<(), DsnError> {
    if host.starts_with('@') {
        return Err(DsnError::new(format!(
            "{shown} names an abstract unix socket, which this version cannot open"
        )));
    }
    let is_broken = |c: char| c.is_control() || c == '@' || c.is_whitespace();
    if !host.starts_with('/') && host.chars().any(is_broken) {
        return Err(DsnError::new(format!(
            "{shown} must be a host name, an address or a directory; in a URL, `@` in a password is written %40"
        )));
    }
    Ok(())
}

fn port_of(text: &str, shown: &str) -> Result<u16, DsnError> {
    text.trim().parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        DsnError::new(format!(
            "{shown} must be a number from 1 to 65535; in a URL, `/` in a password is written %2F, `:` %3A and `@` %40"
        ))
    })
}

/// As in libpq, a number may have blanks around it, and one below 0 is as good as 0.
fn number(text: &str, shown: &str) -> Result<u32, DsnError> {
    let number: i32 = text
        .trim()
        .parse()
        .map_err(|_| DsnError::new(format!("{shown} must be a whole number")))?;
    Ok(u32::try_from(number).unwrap_or(0))
}

impl Dsn {
    /// Makes the driver's configuration.
    ///
    /// `connect_timeout` is set only where the description says so; the caller bounds the whole
    /// attempt. Keepalives and the TCP user timeout are set to values that notice a dead peer,
    /// unless the description says otherwise.
    pub fn to_postgres(&self) -> Result<postgres::Config, DsnError> {
        let mut config = postgres::Config::new();
        config.user(self.get("user")).dbname(self.get("dbname"));
        let has = |name| !self.get(name).is_empty();
        if has("password") {
            config.password(self.get("password"));
        }
        if has("options") {
            config.options(self.get("options"));
        }
        let application_name = ["application_name", "fallback_application_name"];
        if let Some(name) = application_name.into_iter().find(|name| has(name)) {
            config.application_name(self.get(name));
        }
        self.set_hosts(&mut config)?;
        self.set_sockets(&mut config)?;
        config.ssl_mode(SslMode::Disable);
        config.channel_binding(match self.get("channel_binding") {
            "disable" => ChannelBinding::Disable,
            "require" => ChannelBinding::Require,
            _ => ChannelBinding::Prefer,
        });
        config.target_session_attrs(self.target());
        if self.get("load_balance_hosts") == "random" {
            config.load_balance_hosts(LoadBalanceHosts::Random);
        }
        Ok(config)
    }

    /// `primary` asks for a server that is no standby; one that can be written to is one, and the
    /// only useful one. Of several hosts only that one is useful, too, so it is looked for unless
    /// `any` is asked for in so many words.
    fn target(&self) -> TargetSessionAttrs {
        match self.get("target_session_attrs") {
            "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
            "" if self.hosts().count() > 1 => TargetSessionAttrs::ReadWrite,
            _ => TargetSessionAttrs::Any,
        }
    }

    /// The driver takes names, addresses or both, but not an address for some of the hosts only:
    /// then the address stands in for the name, which matters to nothing without TLS.
    fn set_hosts(&self, config: &mut postgres::Config) -> Result<(), DsnError> {
        let hosts: Vec<Host> = self.hosts().collect();
        let has_names = hosts.iter().all(|host| !host.name.is_empty());
        let has_addresses = hosts.iter().all(|host| !host.address.is_empty());
        for host in &hosts {
            config.port(port_of(host.port, "port")?);
            if has_addresses {
                let address = host.address.parse();
                config.hostaddr(
                    address.map_err(|_| DsnError::new("hostaddr must be an IP address"))?,
                );
                if has_names {
                    config.host(host.name);
                }
            } else {
                config.host(if host.address.is_empty() {
                    host.name
                } else {
                    host.address
                });
            }
        }
        Ok(())
    }

    fn set_sockets(&self, config: &mut postgres::Config) -> Result<(), DsnError> {
        let given = |name: &'static str| match self.get(name) {
            "" => Ok(None),
            text => number(text, name).map(Some),
        };
        let seconds = |number: u32| Duration::from_secs(number.into());
        if let Some(timeout) = given("connect_timeout")?.filter(|timeout| *timeout > 0) {
            // libpq's least is 2: a second may end as soon as it has begun.
            config.connect_timeout(seconds(timeout.max(2)));
        }
        config.keepalives(given("keepalives")? != Some(0));
        config.keepalives_idle(match given("keepalives_idle")? {
            Some(idle) if idle > 0 => seconds(idle),
            _ => KEEPALIVES_IDLE,
        });
        config.keepalives_interval(match given("keepalives_interval")? {
            Some(interval) if interval > 0 => seconds(interval),
            _ => KEEPALIVES_INTERVAL,
        });
        config.keepalives_retries(match given("keepalives_count")? {
            Some(count) if count > 0 => count,
            _ => KEEPALIVES_COUNT,
        });
        // libpq counts it in milliseconds, and 0 means the operating system's.
        match given("tcp_user_timeout")? {
            None => config.tcp_user_timeout(TCP_USER_TIMEOUT),
            Some(0) => config,
            Some(millis) => config.tcp_user_timeout(Duration::from_millis(millis.into())),
        };
        Ok(())
    }
}
