//! Events and the routes of the daemon.

use serde_json::json;

use super::{Findings, Patient};
use crate::domain::config::Unrouted;
use crate::domain::figure::{counted, grouped};
use crate::store::doctor::{Finding, Level};

/// Event types that are named.
const SHOWN: usize = 10;

/// Names the types of waiting events that no route takes.
pub(super) fn types(patient: &mut Patient<'_>) -> Findings {
    let Some(routes) = &patient.daemon.routes else {
        return Ok(vec![
            Finding::new(
                Level::Unknown,
                "not known: the routes of the daemon are not given",
            )
            .remedy("--config or --route, as the daemon has them"),
        ]);
    };
    let waiting = patient.session.waiting_types()?;
    let without: Vec<_> = waiting
        .into_iter()
        .filter(|(event_type, _)| routes.find(event_type).is_none())
        .collect();
    let unrouted = patient.daemon.config.unrouted;
    Ok(untaken(&without, unrouted).into_iter().collect())
}

/// Events that are left to another daemon are no fault of this one.
fn untaken(types: &[(String, u64)], unrouted: Unrouted) -> Option<Finding> {
    if types.is_empty() {
        return None;
    }
    let n_events: u64 = types.iter().map(|(_, n)| n).sum();
    let names: Vec<&str> = types
        .iter()
        .take(SHOWN)
        .map(|(event_type, _)| event_type.as_str())
        .collect();
    let more = match types.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "no route takes {} of the first events that wait, of {}: {}{more}",
        grouped(n_events),
        counted(types.len(), "type"),
        names.join(", ")
    );
    let data = json!({ "events": n_events, "types": names });
    Some(match unrouted {
        Unrouted::Fail => Finding::new(Level::Error, text)
            .remedy("add a route, or `*` as the last one; without, they end dead as `No handler`")
            .data(data),
        Unrouted::Leave => {
            let text = format!("{text}; they are left to other daemons (--unrouted leave)");
            Finding::new(Level::Ok, text).data(data)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_types_is_cut_short() {
        let types: Vec<_> = (1..=12).map(|n| (format!("t{n}"), 100)).collect();
        let found = untaken(&types, Unrouted::Fail).expect("twelve types");
        assert!(
            found
                .message
                .contains("takes 1,200 of the first events that wait, of 12 types: t1, ")
                && found.message.ends_with(", t10 and 2 more"),
            "{}",
            found.message
        );
        assert_eq!(untaken(&[], Unrouted::Fail), None);
    }

    #[test]
    fn events_that_are_left_to_other_daemons_are_no_fault() {
        let types = [("mail.sent".to_owned(), 1)];
        let level = |unrouted| untaken(&types, unrouted).map(|found| found.level);
        assert_eq!(level(Unrouted::Fail), Some(Level::Error));
        assert_eq!(level(Unrouted::Leave), Some(Level::Ok));
    }
}
