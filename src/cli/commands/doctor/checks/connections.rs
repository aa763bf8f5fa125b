//! What the daemon and the server have to agree on: the number of connections, and the time.

use serde_json::json;

use super::{Findings, Patient};
use crate::domain::config::Config;
use crate::store::doctor::facts::{ClockDifference, ConnectionLimit};
use crate::store::doctor::{Finding, Level};

/// Connections of the supervisor: two that look, one that sweeps, four for the API.
const SUPERVISOR: u32 = 7;

/// Connections of each worker beside its pool: one that renews leases, one that sweeps.
const WORKER: u32 = 2;

/// By how many seconds two clocks may differ without mention.
const APART_MAX: f64 = 2.0;

/// Says whether the connections of one daemon have room beside those that are there.
pub(super) fn look(patient: &mut Patient<'_>) -> Findings {
    let needed = needed(&patient.daemon.config);
    let limits = patient.session.connection_limits()?;
    Ok(limits.iter().map(|limit| room(needed, limit)).collect())
}

/// Compares the clocks.
pub(super) fn clock(patient: &mut Patient<'_>) -> Findings {
    Ok(vec![apart(patient.session.clock_difference()?)])
}

/// The most connections that a daemon opens.
fn needed(config: &Config) -> i64 {
    let of_worker = u32::from(config.pool_size.get()) + WORKER;
    (u32::from(config.processes.get()) * of_worker + SUPERVISOR).into()
}

fn room(needed: i64, limit: &ConnectionLimit) -> Finding {
    let ConnectionLimit {
        name, most, others, ..
    } = limit;
    let level = if needed > *most {
        Level::Error
    } else if needed + others > *most {
        Level::Warning
    } else {
        Level::Ok
    };
    let text = format!(
        "this daemon opens up to {needed} connections; {others} others are there, and {name} allows {most}"
    );
    let data = json!({ "needed": needed, "others": others, "limit": name, "most": most });
    let finding = Finding::new(level, text).data(data);
    if level == Level::Ok {
        return finding;
    }
    finding.remedy(&limit.remedy)
}

fn apart(clocks: ClockDifference) -> Finding {
    let ClockDifference { ahead, error } = clocks;
    let text = format!(
        "the server's clock is {:.3} s {} this host's (\u{b1}{error:.3} s)",
        ahead.abs(),
        if ahead < 0.0 { "behind" } else { "ahead of" },
    );
    let data = json!({ "ahead_seconds": ahead, "error_seconds": error });
    if ahead.abs() - error <= APART_MAX {
        return Finding::new(Level::Ok, text).data(data);
    }
    let text = format!(
        "{text}; leases and due times go by the server's alone, but the times in the logs do not fit"
    );
    Finding::new(Level::Warning, text)
        .remedy("see that both hosts keep their time by NTP")
        .data(data)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    #[test]
    fn connections_need_room_beside_the_others() {
        let check = |needed, others, expected| {
            let limit = ConnectionLimit {
                name: "max_connections".to_owned(),
                remedy: "raise it".to_owned(),
                most: 97,
                others,
            };
            let found = room(needed, &limit);
            assert_eq!(found.level, expected, "{}", found.message);
            assert_eq!(found.remedy.is_some(), expected != Level::Ok);
        };

        check(97, 0, Level::Ok);
        check(90, 7, Level::Ok);
        check(90, 8, Level::Warning);
        check(98, 0, Level::Error);
    }

    #[test]
    fn each_worker_has_its_pool_and_two_connections_more() {
        let number = |n| NonZeroU16::new(n).expect("not zero");
        let config = Config {
            processes: number(2),
            pool_size: number(3),
            ..Config::default()
        };
        assert_eq!(needed(&config), 17);
    }

    #[test]
    fn clocks_are_apart_only_beyond_the_error_of_the_measurement() {
        let check = |ahead, error, expected, word: &str| {
            let found = apart(ClockDifference { ahead, error });
            assert_eq!(found.level, expected);
            assert!(found.message.contains(word), "{}", found.message);
        };

        check(0.1, 0.001, Level::Ok, "0.100 s ahead of");
        check(-1.9, 0.0, Level::Ok, "1.900 s behind");
        check(-3.0, 0.5, Level::Warning, "3.000 s behind");
        check(3.0, 1.5, Level::Ok, "\u{b1}1.500 s");
    }
}
