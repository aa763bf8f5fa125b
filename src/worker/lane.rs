//! A lane: one set of event types that is claimed by itself, and where its next claim starts.
//!
//! A scan from the front of the due index wades through the dead entries of all that is done already; while a long transaction
//! elsewhere keeps vacuum from removing them, that cost grows without bound. So a claim starts behind what was claimed last. But
//! events that commit late, were released, or come due again lie in front of that. Therefore: the front is scanned again as soon as
//! 20 times the duration of its last scan has passed. Cheap fronts are always scanned, so no latency is lost; dear ones cost
//! about 5 % of the time.
//!
//! A scan can also be dear and find nothing, where a million events of a full route are due and left out. Then the next ones start
//! at what became due lately: all that lies before was seen, except what a long transaction still commits, and that the front
//! scans find.

use std::time::{Duration, Instant};

use crate::store::claim::{Filter, Position};

/// The front is scanned when this many times the duration of its last scan has passed.
const FRONT_SHARE: u32 = 20;

/// Whatever the front costs, what lies behind the hint is found within this time: half a minute for a scan of a second and a half.
const FRONT_WAIT_MAX: Duration = Duration::from_secs(30);

/// More types than this in a lane would make each claim's filter dear; then the lane starts to learn anew.
const TYPES_MAX: usize = 1000;

/// Event types claimed together, and the position hint for them.
#[derive(Debug)]
pub(super) struct Lane {
    route: Option<usize>,
    types: Vec<String>,
    hint: Option<Position>,
    front: Option<FrontScan>,
}

#[derive(Debug, Clone, Copy)]
struct FrontScan {
    took: Duration,
    ended: Instant,
}

impl Lane {
    /// The lane of a route with a limit, or the general one.
    pub(super) fn new(route: Option<usize>) -> Lane {
        Lane {
            route,
            types: Vec::new(),
            hint: None,
            front: None,
        }
    }

    /// The route whose events alone are claimed here; `None` for the general lane.
    pub(super) fn route(&self) -> Option<usize> {
        self.route
    }

    /// The types: alone in the lane of a route, left out of the general one.
    pub(super) fn types(&self) -> &[String] {
        &self.types
    }

    /// What a claim in this lane may bring.
    pub(super) fn filter(&self) -> Filter<'_> {
        if self.route.is_some() {
            Filter::Only(&self.types)
        } else {
            Filter::Without(&self.types)
        }
    }

    /// Adds a type; another set of types has another front.
    pub(super) fn add_type(&mut self, event_type: &str) {
        if self.types.iter().any(|known| known == event_type) {
            return;
        }
        self.types.push(event_type.to_owned());
        self.hint = None;
        self.front = None;
    }

    /// Says whether there is no place for this type any more.
    pub(super) fn is_full_for(&self, event_type: &str) -> bool {
        self.types.len() >= TYPES_MAX && self.types.iter().all(|known| known != event_type)
    }

    /// Starts to learn anew.
    pub(super) fn forget_types(&mut self) {
        *self = Lane::new(self.route);
    }

    /// Where the next claim starts.
    pub(super) fn start(&self) -> Position {
        let is_front_due = self.front.is_none_or(|front| {
            front.ended.elapsed() >= (front.took * FRONT_SHARE).min(FRONT_WAIT_MAX)
        });
        match &self.hint {
            Some(hint) if !is_front_due => *hint,
            _ => Position::FRONT,
        }
    }

    /// Notes that a scan of the front found nothing before `horizon`.
    pub(super) fn nothing_before(&mut self, horizon: Position) {
        if self.hint.is_none_or(|hint| horizon.is_behind(&hint)) {
            self.hint = Some(horizon);
        }
    }

    /// Notes what a claim that started at `after` cost and the last position it claimed.
    pub(super) fn looked(
        &mut self,
        after: &Position,
        took: Duration,
        last: Option<&Position>,
        is_full: bool,
    ) {
        let was_front = *after == Position::FRONT;
        if was_front {
            self.front = Some(FrontScan {
                took,
                ended: Instant::now(),
            });
        }
        let Some(last) = last else { return };
        // A few stragglers found in front do not send the next claim back over the ground that was waded through already;
        // a full claim of them says that more lie behind the last one.
        let is_ahead = self.hint.as_ref().is_none_or(|hint| last.is_behind(hint));
        if is_ahead || is_full {
            self.hint = Some(*last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAR: Duration = Duration::from_hours(1);

    #[test]
    fn a_cheap_front_is_scanned_each_time() {
        let mut lane = Lane::new(None);
        lane.looked(
            &Position::FRONT,
            Duration::ZERO,
            Some(&Position::at(5)),
            true,
        );

        assert_eq!(lane.start(), Position::FRONT);
    }

    #[test]
    fn a_dear_front_is_left_for_what_was_claimed_last() {
        let mut lane = Lane::new(None);
        lane.looked(&Position::FRONT, DEAR, Some(&Position::at(5)), true);
        assert_eq!(lane.start(), Position::at(5));

        lane.looked(&Position::at(5), DEAR, Some(&Position::at(9)), true);
        assert_eq!(lane.start(), Position::at(9));
    }

    #[test]
    fn a_few_stragglers_in_front_do_not_send_the_next_claim_back() {
        let mut lane = Lane::new(None);
        lane.looked(&Position::FRONT, DEAR, Some(&Position::at(9)), true);

        lane.looked(&Position::FRONT, DEAR, Some(&Position::at(2)), false);
        assert_eq!(lane.start(), Position::at(9));
        lane.looked(&Position::FRONT, DEAR, Some(&Position::at(3)), true);
        assert_eq!(
            lane.start(),
            Position::at(3),
            "a full claim of them may have left more"
        );
    }

    #[test]
    fn after_a_dear_scan_that_found_nothing_the_next_one_starts_at_the_horizon() {
        let mut lane = Lane::new(None);
        lane.looked(&Position::FRONT, DEAR, None, false);
        assert_eq!(lane.start(), Position::FRONT);

        lane.nothing_before(Position::at(7));
        assert_eq!(lane.start(), Position::at(7));
        lane.nothing_before(Position::at(6));
        assert_eq!(
            lane.start(),
            Position::at(7),
            "the hint never goes back for nothing"
        );
    }

    #[test]
    fn another_set_of_types_has_another_front() {
        let mut lane = Lane::new(Some(0));
        lane.looked(&Position::FRONT, DEAR, Some(&Position::at(5)), true);

        lane.add_type("order.created");
        assert_eq!(lane.start(), Position::FRONT);
    }
}
