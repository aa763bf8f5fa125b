//! The fetcher claims due events while there is room and sends them to the runners.
//!
//! It claims back to back while claims come full, then waits from 5 ms up to the poll interval. How many events it asks for follows how
//! quickly they are worked off ([`ClaimSize`]).
//!
//! A route with a `max_parallel` has a lane of its own once its event types are known: the general claim leaves those types out,
//! and the lane claims just as many as the route has room for. So a full route is never waiting in the queue in front of others.
//!
//! After a claim whose answer was lost, a lease may stand in the database that is in nobody's hand ([`Strays`]): it is released first.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};
use log::debug;

use crate::event::Outcome;
use crate::pause::{Waits, jittered, pause};
use crate::store::claim::{ClaimQuery, ClaimedEvents, Position};
use crate::store::{Session, StoreError};
use crate::worker::claim::{Claim, Finished};
use crate::worker::claim_size::ClaimSize;
use crate::worker::lane::Lane;
use crate::worker::link::Link;
use crate::worker::pulse::Stage;
use crate::worker::shared::Shared;
use crate::worker::strays::Strays;

/// First wait after an empty claim.
const IDLE_FIRST: Duration = Duration::from_millis(5);

/// Belt to the runners' signal that there is room.
const ROOM_BELT: Duration = Duration::from_millis(100);

/// A scan that takes longer than this and finds nothing is not repeated from the same place.
const DEAR: Duration = Duration::from_millis(20);

/// Transactions that insert events rarely take longer; what commits later than this after it became due waits for a front scan.
const LATE_COMMIT: Duration = Duration::from_secs(10);

/// Event types whose route is remembered; a system with more has types that carry data, and pays a look-up per event.
const KNOWN_TYPES_MAX: usize = 10_000;

/// The fetcher's ends of its channels.
pub(super) struct Ends {
    /// To the runners.
    pub(super) claims: Sender<Claim>,
    /// To the settler, for what is given back unstarted.
    pub(super) finished: Sender<Finished>,
    /// Says that the queue runs low.
    pub(super) room: Receiver<()>,
    /// Says that a route with a limit has room again.
    pub(super) route_room: Receiver<()>,
    /// Disconnected when the worker drains.
    pub(super) stop: Receiver<()>,
}

/// What one look at the table came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    NoRoom,
    Empty,
    Some,
    Full,
}

/// Claims until the stop channel is disconnected.
pub(super) fn run(ends: Ends, shared: &Shared) {
    let mut fetcher = Fetcher::new(&ends, shared);
    let idle_first = IDLE_FIRST.min(shared.config.poll_interval);
    let mut idle = idle_first;
    let mut waits = Waits::new();
    while !fetcher.is_stopped() {
        match fetcher.look() {
            Ok(Look::Full) => (idle, waits) = (idle_first, Waits::new()),
            Ok(Look::Some) => {
                (idle, waits) = (idle_first, Waits::new());
                fetcher.wait(idle);
            }
            Ok(Look::NoRoom) => {
                waits = Waits::new();
                fetcher.wait_for_room();
            }
            Ok(Look::Empty) => {
                waits = Waits::new();
                // A look that takes long, over the events of a full route for example, is not repeated at once.
                fetcher.wait(jittered(idle).max(fetcher.last_cost));
                idle = (idle * 2).min(shared.config.poll_interval);
            }
            // The link has told the log.
            Err(_) => fetcher.wait(waits.take()),
        }
    }
    fetcher.leave();
}

struct Fetcher<'a> {
    ends: &'a Ends,
    shared: &'a Shared,
    link: Link<'a>,
    /// The general lane, then one per route with a limit.
    lanes: Vec<Lane>,
    route_of: HashMap<String, Option<usize>>,
    size: ClaimSize,
    /// Events sent to the runners so far.
    n_handed: u64,
    last_cost: Duration,
    strays: Strays,
    /// The queue has enough for now; other lanes may still wait for events.
    wants_room: bool,
    /// A lane has events for which its route has no room.
    wants_route_room: bool,
}

impl<'a> Fetcher<'a> {
    fn new(ends: &'a Ends, shared: &'a Shared) -> Fetcher<'a> {
        let limited = (0..shared.routes.len()).filter(|&route| shared.is_limited(Some(route)));
        let lanes = [None]
            .into_iter()
            .chain(limited.map(Some))
            .map(Lane::new)
            .collect();
        Fetcher {
            ends,
            shared,
            link: Link::new(shared, Stage::Fetcher, &shared.pool),
            lanes,
            route_of: HashMap::new(),
            size: ClaimSize::new(shared.config.claim_events_max()),
            n_handed: 0,
            last_cost: Duration::ZERO,
            strays: Strays::default(),
            wants_room: false,
            wants_route_room: false,
        }
    }

    fn is_stopped(&self) -> bool {
        self.ends.stop.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected)
    }

    /// Waits until it is time for the next look, there is room again where there was none, or the worker drains.
    fn wait(&self, wait: Duration) {
        let none = never();
        let room = if self.wants_room {
            &self.ends.room
        } else {
            &none
        };
        let route_room = if self.wants_route_room {
            &self.ends.route_room
        } else {
            &none
        };
        select! {
            recv(self.ends.stop) -> _ => {}
            recv(room) -> _ => {}
            recv(route_room) -> _ => {}
            default(wait) => {}
        }
    }

    /// Waits until the queue runs low.
    fn wait_for_room(&self) {
        select! {
            recv(self.ends.stop) -> _ => {}
            recv(self.ends.room) -> _ => {}
            recv(self.ends.route_room) -> _ => {}
            default(ROOM_BELT) => {}
        }
    }

    /// Looks once in every lane that has room.
    fn look(&mut self) -> Result<Look, StoreError> {
        self.strays.release(self.shared, &mut self.link)?;
        self.size
            .adapt(self.shared.runs_ended.load(Ordering::Relaxed));
        (self.wants_room, self.wants_route_room) = (false, false);
        let mut found = Look::NoRoom;
        for lane in 0..self.lanes.len() {
            if self.is_stopped() {
                break;
            }
            found = found.max(self.look_in(lane)?);
        }
        Ok(found)
    }

    fn look_in(&mut self, lane: usize) -> Result<Look, StoreError> {
        let Some(route) = self.lanes[lane].route() else {
            let limit = self.room();
            if limit == 0 {
                self.wants_room = true;
                return Ok(Look::NoRoom);
            }
            return self.claim(lane, limit);
        };
        if self.lanes[lane].types().is_empty() {
            return Ok(Look::NoRoom);
        }
        let limit = self.shared.route_room(route).min(self.queue_room());
        if limit == 0 {
            self.wants_route_room = true;
            return Ok(Look::NoRoom);
        }
        let looked = self.claim(lane, limit)?;
        // A full claim took all the room there was: more can only be claimed when a handler returns.
        self.wants_route_room |= looked == Look::Full;
        Ok(looked.min(Look::Some))
    }

    /// How many events a general claim asks for now; 0 while the queue still has enough.
    fn room(&self) -> usize {
        let runners = usize::from(self.shared.config.max_parallel.get());
        // Not by what the runners say of themselves: one that has just taken an event from the queue has not said so yet, and a second
        // event claimed for it would wait behind the first, while another worker is idle.
        let ended = self.shared.runs_ended.load(Ordering::Relaxed);
        let handed = usize::try_from(self.n_handed.saturating_sub(ended)).unwrap_or(usize::MAX);
        let idle = runners.saturating_sub(handed);
        let queued = self.ends.claims.len();
        let low = self.size.low_water();
        self.shared.low_water.store(low, Ordering::Relaxed);
        if queued > low {
            return 0;
        }
        // Where handlers are slow, claim no more than can start at once.
        let ask = if low == 0 {
            idle
        } else {
            self.size.get().max(idle)
        };
        ask.min(usize::from(self.shared.config.claim_events_max()))
            .min(self.queue_room())
    }

    fn queue_room(&self) -> usize {
        if self.shared.queued_bytes.load(Ordering::Relaxed) >= self.shared.config.max_batch_bytes {
            return 0;
        }
        let in_flight = self.shared.in_flight();
        let free = self
            .ends
            .claims
            .capacity()
            .unwrap_or(0)
            .saturating_sub(self.ends.claims.len());
        free.min(self.shared.in_flight_max.saturating_sub(in_flight))
    }

    fn claim(&mut self, lane: usize, limit: usize) -> Result<Look, StoreError> {
        let limit = u16::try_from(limit)
            .unwrap_or(u16::MAX)
            .min(self.shared.config.claim_events_max());
        let after = self.lanes[lane].start();
        let query = ClaimQuery {
            worker: &self.shared.owner.worker,
            limit,
            lease: self.shared.config.lease,
            after: &after,
            filter: self.lanes[lane].filter(),
            bytes_max: self.shared.config.max_batch_bytes,
        };
        // Timed once the connection is there: what it took to connect says nothing about the table, and uses up no lease.
        let mut sent = Instant::now();
        let result = self.link.call(|session| {
            sent = Instant::now();
            session.claim(&query)
        });
        self.last_cost = sent.elapsed();
        let seconds = &self.shared.metrics.claim_seconds;
        seconds.observe(self.last_cost.as_secs_f64());
        let claimed = match result {
            Ok(claimed) => claimed,
            Err(error) => {
                if error.is_connection_lost() {
                    self.strays.expect(self.shared);
                }
                return Err(error);
            }
        };
        let n_events = claimed.as_ref().map_or(0, |claimed| claimed.events.len());
        let is_full = n_events >= usize::from(limit);
        let last = claimed.as_ref().map(|claimed| &claimed.last);
        self.lanes[lane].looked(&after, self.last_cost, last, is_full);
        let Some(claimed) = claimed else {
            if after == Position::FRONT && self.last_cost > DEAR {
                self.skip_ahead(lane)?;
            }
            return Ok(Look::Empty);
        };
        debug!(
            "claimed {n_events} events in {:.1} ms",
            self.last_cost.as_secs_f64() * 1000.0
        );
        let at = Instant::now();
        let runs_before = self.shared.runs_ended.load(Ordering::Relaxed);
        let n_queued = self.hand_over(claimed, sent);
        self.n_handed += n_queued as u64;
        if is_full && lane == 0 {
            self.size.handed_full(at, runs_before + n_queued as u64);
        }
        Ok(match n_queued {
            // All given back, since their routes are full: nothing to hurry for.
            0 => Look::Empty,
            _ if is_full => Look::Full,
            _ => Look::Some,
        })
    }

    /// Lets the next claims start where events became due lately.
    fn skip_ahead(&mut self, lane: usize) -> Result<(), StoreError> {
        let now = self.link.aside(Session::now)?;
        let seen = self.last_cost + LATE_COMMIT;
        let horizon = now.saturating_sub(i64::try_from(seen.as_micros()).unwrap_or(i64::MAX));
        self.lanes[lane].nothing_before(Position::at(horizon));
        Ok(())
    }

    /// Sends what was claimed to the runners, and gives back what has no room; returns how many were sent.
    fn hand_over(&mut self, claimed: ClaimedEvents, sent: Instant) -> usize {
        let mut n_queued = 0;
        let n_events = claimed.events.len();
        let shared = self.shared;
        shared.metrics.claimed.inc_by(n_events as u64);
        shared
            .metrics
            .claim_batch_size
            .observe(f64::from(u16::try_from(n_events).unwrap_or(u16::MAX)));
        shared
            .metrics
            .in_flight
            .add(i64::try_from(n_events).unwrap_or(i64::MAX));
        let lease = shared.leases.hold(claimed.token, n_events, sent);
        let is_stopped = self.is_stopped();
        let now = Instant::now();
        for event in claimed.events {
            let route = self.route(&event.event_type);
            let age = event.created_at_micros.map_or(Duration::ZERO, |created| {
                Duration::from_micros(
                    u64::try_from(claimed.now_micros.saturating_sub(created)).unwrap_or(0),
                )
            });
            let has_room = shared.enter_route(route);
            let claim = Claim {
                event,
                route,
                lease: std::sync::Arc::clone(&lease),
                age,
                claimed: now,
            };
            if shared.is_limited(route) {
                self.learn(&claim.event.event_type, route);
            }
            if !has_room || is_stopped {
                if has_room {
                    shared.left_route(route);
                }
                // The settler outlives this stage, and its channel has room for all that is in flight.
                let _ = self.ends.finished.send(claim.finish(Outcome::Released));
                continue;
            }
            let bytes = claim.event.payload.len() as u64;
            // Before it is sent: a runner may take it, and its bytes off, at once.
            shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            match self.ends.claims.try_send(claim) {
                Ok(()) => n_queued += 1,
                Err(refused) => {
                    let claim = refused.into_inner();
                    shared.left_queue(&claim);
                    shared.left_route(claim.route);
                    let _ = self.ends.finished.send(claim.finish(Outcome::Released));
                }
            }
        }
        n_queued
    }

    fn route(&mut self, event_type: &str) -> Option<usize> {
        if let Some(&route) = self.route_of.get(event_type) {
            return route;
        }
        if self.route_of.len() >= KNOWN_TYPES_MAX {
            self.route_of.clear();
        }
        let route = self.shared.routes.find(event_type);
        self.route_of.insert(event_type.to_owned(), route);
        route
    }

    /// From now on this event type is claimed in its route's own lane.
    fn learn(&mut self, event_type: &str, route: Option<usize>) {
        let is_of = |lane: &Lane| lane.route().is_none() || lane.route() == route;
        if self
            .lanes
            .iter()
            .any(|lane| is_of(lane) && lane.is_full_for(event_type))
        {
            // All together: a type that one lane leaves out must stand in another.
            self.lanes.iter_mut().for_each(Lane::forget_types);
        }
        for lane in self.lanes.iter_mut().filter(|lane| is_of(lane)) {
            lane.add_type(event_type);
        }
    }

    /// Gives back a claim that is in doubt, as long as it takes: once this worker is gone nobody knows of it, and its events would
    /// wait for the end of the lease and be charged then.
    fn leave(&mut self) {
        let mut waits = Waits::new();
        self.strays.look_at_once();
        while self.strays.release(self.shared, &mut self.link).is_err() {
            // Only the end of the process, by the drain timeout for instance, cuts this short.
            pause(waits.take());
        }
        self.shared
            .may_claim_late
            .store(self.strays.are_possible(), Ordering::Relaxed);
    }
}
