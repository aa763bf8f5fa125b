//! The ledger: how much of each limit the events of this worker use, and how much room is left.
//!
//! Each claimed event carries a [`Ticket`] until its outcome is written. While the ticket lives the
//! event counts as in flight; on its way it also holds room in the queue, with the bytes of its
//! payload and headers, and a place in its route. A ticket that is dropped gives back what it still
//! holds, wherever that happens, so no way out of a stage can forget it. The metrics show how many
//! are in flight.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::domain::config::Config;
use crate::handlers::Routes;

/// The most outcomes that are set aside: some 20 MB, more where handlers fail with long reasons. A
/// worker that has so many claims nothing until some of them are written.
pub(super) const SET_ASIDE_MAX: usize = 50_000;

/// The room that is in use, and its limits.
#[derive(Debug)]
pub(super) struct Ledger {
    routes: Vec<Places>,
    /// Claimed and not settled.
    in_flight: AtomicUsize,
    /// Bounds the outcomes that wait for the settler. Those that are set aside are not among them.
    in_flight_max: usize,
    /// Events whose outcomes are set aside, since the database refuses them.
    set_aside: AtomicUsize,
    queued: AtomicUsize,
    queue_max: usize,
    /// Bytes of payloads and headers in the queue: a few large events fill it as many small ones
    /// do.
    queued_bytes: AtomicU64,
    bytes_max: u64,
    /// Runs that have ended, and events that a runner gave back unstarted.
    runs_ended: AtomicU64,
    /// The queue length at which the fetcher is woken.
    low_water: AtomicUsize,
    /// Events were given back unstarted while the worker goes on: they lie behind the fetcher's
    /// cursors.
    has_given_back: AtomicBool,
    room: Sender<()>,
    route_room: Sender<()>,
}

/// The signals that wake the fetcher when there is room again.
pub(super) struct Room {
    /// The queue runs low.
    pub(super) queue: Receiver<()>,
    /// A route with a limit has a place again.
    pub(super) route: Receiver<()>,
}

/// The places of one route.
#[derive(Debug)]
struct Places {
    /// Most events of the route that are claimed and not yet run to the end, where that is less
    /// than all runners could handle.
    limit: Option<usize>,
    taken: AtomicUsize,
}

impl Ledger {
    /// Makes a ledger with no room in use.
    pub(super) fn new(config: &Config, routes: &Routes) -> (Ledger, Room) {
        let n_runners = config.max_parallel.get();
        let places = |index| {
            let limit = routes.get(index).max_parallel.map(NonZeroU16::get);
            Places {
                limit: limit.filter(|&limit| limit < n_runners).map(usize::from),
                taken: AtomicUsize::new(0),
            }
        };
        // Two claims: the next one comes while this one is worked off.
        let queue_max = 2 * usize::from(config.claim_events_max());
        let (room, queue) = bounded(1);
        let (route_room, route) = bounded(1);
        let ledger = Ledger {
            routes: (0..routes.len()).map(places).collect(),
            in_flight: AtomicUsize::new(0),
            in_flight_max: 2 * queue_max + usize::from(n_runners),
            set_aside: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            queue_max,
            queued_bytes: AtomicU64::new(0),
            bytes_max: config.max_batch_bytes,
            runs_ended: AtomicU64::new(0),
            low_water: AtomicUsize::new(0),
            has_given_back: AtomicBool::new(false),
            room,
            route_room,
        };
        (ledger, Room { queue, route })
    }

    /// Most events in the queue.
    pub(super) fn queue_max(&self) -> usize {
        self.queue_max
    }

    /// Most events in flight.
    pub(super) fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    /// Events claimed and not settled.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Events whose outcomes are set aside.
    pub(super) fn set_aside(&self) -> usize {
        self.set_aside.load(Ordering::Relaxed)
    }

    /// Events that wait for a runner.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Runs that have ended, and events that a runner gave back unstarted, since the worker
    /// started.
    pub(super) fn runs_ended(&self) -> u64 {
        self.runs_ended.load(Ordering::Relaxed)
    }

    /// How many more events the queue takes.
    pub(super) fn queue_room(&self) -> usize {
        if self.queued_bytes.load(Ordering::Relaxed) >= self.bytes_max {
            return 0;
        }
        let set_aside = self.set_aside();
        if set_aside >= SET_ASIDE_MAX {
            return 0;
        }
        let n_active = self.in_flight().saturating_sub(set_aside);
        let in_flight_room = self.in_flight_max.saturating_sub(n_active);
        self.queue_max
            .saturating_sub(self.queued())
            .min(in_flight_room)
    }

    /// Says whether a route has a limit that matters.
    pub(super) fn is_limited(&self, route: usize) -> bool {
        self.routes[route].limit.is_some()
    }

    /// How many more events of this route may be claimed.
    pub(super) fn route_room(&self, route: usize) -> usize {
        let places = &self.routes[route];
        places
            .limit
            .unwrap_or(usize::MAX)
            .saturating_sub(places.taken.load(Ordering::Relaxed))
    }

    /// Makes the ledger wake the fetcher when the queue has shrunk to this length.
    pub(super) fn tell_at(&self, low_water: usize) {
        self.low_water.store(low_water, Ordering::Relaxed);
    }

    /// Notes that events were given back unstarted.
    pub(super) fn gave_back(&self) {
        self.has_given_back.store(true, Ordering::Relaxed);
    }

    /// Says whether events were given back unstarted since the last call.
    pub(super) fn take_given_back(&self) -> bool {
        self.has_given_back.swap(false, Ordering::Relaxed)
    }

    /// Counts an event in flight, in a place of its route if there is one. Called by the fetcher
    /// alone, so that no place is taken between a look at the room and this.
    pub(super) fn enter(self: &Arc<Self>, route: Option<usize>) -> Ticket {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let has_place = route.is_none_or(|route| self.route_room(route) > 0);
        let place = route.filter(|_| has_place);
        if let Some(route) = place {
            self.routes[route].taken.fetch_add(1, Ordering::Relaxed);
        }
        Ticket {
            ledger: Arc::clone(self),
            queued_bytes: None,
            place,
            has_place,
            is_set_aside: false,
        }
    }

    fn tell_room(&self) {
        if self.queued() <= self.low_water.load(Ordering::Relaxed) {
            // If the channel is full the fetcher has a signal already.
            let _ = self.room.try_send(());
        }
    }
}

/// The room that one event in flight uses.
#[derive(Debug)]
pub(super) struct Ticket {
    ledger: Arc<Ledger>,
    /// Bytes in the queue, while it is there.
    queued_bytes: Option<u64>,
    /// The route in which it has a place.
    place: Option<usize>,
    has_place: bool,
    is_set_aside: bool,
}

impl Ticket {
    /// Says whether the event has a place in its route, or needs none.
    pub(super) fn has_place(&self) -> bool {
        self.has_place
    }

    /// Takes room in the queue. Before the event is sent: a runner may give it back at once.
    pub(super) fn enter_queue(&mut self, bytes: u64) {
        self.ledger.queued.fetch_add(1, Ordering::Relaxed);
        self.ledger.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.queued_bytes = Some(bytes);
    }

    /// Gives back the room in the queue.
    pub(super) fn leave_queue(&mut self) {
        if let Some(bytes) = self.queued_bytes.take() {
            self.ledger.queued.fetch_sub(1, Ordering::Relaxed);
            self.ledger.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.ledger.tell_room();
        }
    }

    /// Gives back the place in the route: its run has ended, or it was not started.
    pub(super) fn ran(&mut self) {
        self.leave_route();
        self.ledger.runs_ended.fetch_add(1, Ordering::Relaxed);
        self.ledger.tell_room();
    }

    /// Notes that the outcome is set aside: it takes no room from other events any more.
    pub(super) fn set_aside(&mut self) {
        if !self.is_set_aside {
            self.is_set_aside = true;
            self.ledger.set_aside.fetch_add(1, Ordering::Relaxed);
            self.ledger.tell_room();
        }
    }

    /// Gives back room and place: the event is given back unstarted.
    pub(super) fn not_started(&mut self) {
        self.leave_queue();
        self.leave_route();
    }

    fn leave_route(&mut self) {
        if let Some(route) = self.place.take() {
            let places = &self.ledger.routes[route];
            places.taken.fetch_sub(1, Ordering::Relaxed);
            if places.limit.is_some() {
                let _ = self.ledger.route_room.try_send(());
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.not_started();
        if self.is_set_aside {
            self.ledger.set_aside.fetch_sub(1, Ordering::Relaxed);
        }
        self.ledger.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.ledger.tell_room();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::config::{HandlerSpec, RouteSpec};
    use crate::handlers::Handlers;

    fn ledger() -> (Arc<Ledger>, Room) {
        let mut config = Config::default();
        config.routes = [("few.*", 1), ("*", 0)]
            .map(|(pattern, limit)| RouteSpec {
                name: None,
                patterns: vec![pattern.to_owned()],
                handler: HandlerSpec::named("log"),
                timeout: config.handler_timeout,
                max_parallel: NonZeroU16::new(limit),
                retry: config.retry,
            })
            .into();
        let routes = Routes::new(&config, &Handlers::default()).expect("the routes are valid");
        let (ledger, room) = Ledger::new(&config, &routes);
        (Arc::new(ledger), room)
    }

    #[test]
    fn whatever_a_ticket_still_holds_is_given_back_when_it_is_dropped() {
        let (ledger, room) = ledger();
        let before = (ledger.queue_room(), ledger.route_room(0));
        let mut ticket = ledger.enter(Some(0));
        ticket.enter_queue(100);
        assert_eq!(ledger.in_flight(), 1);
        assert_eq!(ledger.queue_room(), before.0 - 1);
        assert_eq!(ledger.route_room(0), 0);
        assert!(room.route.is_empty());

        drop(ticket);

        assert_eq!((ledger.queue_room(), ledger.route_room(0)), before);
        assert_eq!((ledger.in_flight(), ledger.queued()), (0, 0));
        assert_eq!((room.queue.len(), room.route.len()), (1, 1));
    }

    #[test]
    fn a_place_is_free_again_after_the_run_and_the_event_stays_in_flight() {
        let (ledger, _room) = ledger();
        let mut ticket = ledger.enter(Some(0));
        assert!(ticket.has_place());
        assert!(!ledger.enter(Some(0)).has_place());

        ticket.ran();

        assert!(ledger.enter(Some(0)).has_place());
        assert_eq!((ledger.in_flight(), ledger.runs_ended()), (1, 1));
    }

    #[test]
    fn what_is_set_aside_takes_no_room_until_there_is_too_much_of_it() {
        let (ledger, _room) = ledger();
        let enter = |_| ledger.enter(None);
        let mut tickets: Vec<Ticket> = (0..ledger.in_flight_max).map(enter).collect();
        assert_eq!(ledger.queue_room(), 0);
        tickets.iter_mut().for_each(Ticket::set_aside);
        assert_eq!(ledger.queue_room(), ledger.queue_max);

        let enter_aside = |_| {
            let mut ticket = ledger.enter(None);
            ticket.set_aside();
            ticket
        };
        tickets.extend((tickets.len()..SET_ASIDE_MAX).map(enter_aside));
        assert_eq!(ledger.queue_room(), 0);
        drop(tickets);
        assert_eq!((ledger.in_flight(), ledger.set_aside()), (0, 0));
    }

    #[test]
    fn a_queue_full_of_bytes_has_no_room() {
        let (ledger, _room) = ledger();
        let mut ticket = ledger.enter(None);
        ticket.enter_queue(ledger.bytes_max);
        assert_eq!(ledger.queue_room(), 0);
        ticket.leave_queue();
        assert_eq!(ledger.queue_room(), ledger.queue_max);
    }
}
