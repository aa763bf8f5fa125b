//! The groups of routes that a look tells apart: all routes without a limit together, and each
//! route with a limit.
//!
//! The database is told the group of each segment of event types ([`Segments`]). Its numbers begin
//! with 1, because 0 is the group of the segments that a look leaves out: those of routes that may
//! not run now, and, with `--unrouted leave`, those of no route.

use crate::domain::config::Unrouted;
use crate::handlers::Segments;
use crate::store::StoreError;
use crate::worker::cursor::{Look, REST};
use crate::worker::link::{Link, Patience};
use crate::worker::shared::Shared;

/// The groups of a worker's routes.
pub(super) struct Groups {
    segments: Segments,
    /// Whether the segments stand in the order of the database.
    is_sorted: bool,
    /// The routes with a limit, in the order of their groups.
    limited: Vec<usize>,
    /// Whether events that no route takes are left alone.
    leaves_unrouted: bool,
}

impl Groups {
    /// Forms the groups.
    pub(super) fn new(shared: &Shared) -> Groups {
        let segments = Segments::new(&shared.routes);
        Groups {
            // The database's encoding may sort other characters than ASCII differently, or lack
            // them.
            is_sorted: segments.bounds().iter().all(|bound| bound.is_ascii()),
            segments,
            limited: (0..shared.routes.len())
                .filter(|&route| shared.ledger.is_limited(route))
                .collect(),
            leaves_unrouted: shared.config.unrouted == Unrouted::Leave,
        }
    }

    /// The routes with a limit, in the order of their groups.
    pub(super) fn limited(&self) -> &[usize] {
        &self.limited
    }

    /// Says whether a look has to choose: not all events are claimed alike.
    pub(super) fn choose(&self) -> bool {
        self.leaves_unrouted || !self.limited.is_empty()
    }

    /// The edges between the segments.
    pub(super) fn bounds(&self) -> &[String] {
        self.segments.bounds()
    }

    /// The groups of the events of these routes.
    pub(super) fn of(&self, routes: &[Option<usize>]) -> Vec<usize> {
        let mut groups: Vec<usize> = routes.iter().map(|&route| self.group_of(route)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The group of a route's events.
    fn group_of(&self, route: Option<usize>) -> usize {
        let limited = self
            .limited
            .iter()
            .position(|limited| Some(*limited) == route);
        limited.map_or(REST, |place| place + 1)
    }

    /// The number of each segment's group in a look.
    pub(super) fn numbers(&self, look: &Look) -> Vec<i32> {
        let number = |&route: &Option<usize>| {
            if route.is_none() && self.leaves_unrouted {
                return 0;
            }
            let group = self.group_of(route);
            let is_wanted = look.groups.contains(&group);
            if is_wanted { to_database(group) } else { 0 }
        };
        self.segments.routes().iter().map(number).collect()
    }

    /// Puts the segments into the database's order, once it can be asked.
    pub(super) fn sort(&mut self, shared: &Shared, link: &mut Link) -> Result<(), StoreError> {
        if !self.is_sorted {
            let bounds = self.segments.bounds().to_vec();
            let sorted = link.aside(Patience::Usual, |session| session.sort_bounds(&bounds))?;
            self.segments = Segments::sorted(sorted, &shared.routes);
            self.is_sorted = true;
        }
        Ok(())
    }
}

/// The number of events that each group may claim in a look; `None` if the look is only for the
/// rest, whose room is the limit of the look.
pub(super) fn takes(look: &Look, rooms: &[usize]) -> Option<Vec<Option<i32>>> {
    if look.groups == [REST] {
        return None;
    }
    let take = |&room: &usize| Some(i32::try_from(room).unwrap_or(i32::MAX));
    Some(rooms.iter().map(take).collect())
}

/// The number of a group in the database, which begin with 1: 0 is the group of segments that a
/// look leaves out.
fn to_database(group: usize) -> i32 {
    i32::try_from(group + 1).unwrap_or(0)
}

/// The group of a number of the database.
pub(super) fn from_database(number: usize) -> usize {
    number.saturating_sub(1)
}
