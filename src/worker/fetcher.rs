//! The fetcher claims due events while there is room and sends them to the runners.
//!
//! It claims back to back while claims come full, then waits from 5 ms up to the poll interval. How
//! many events it asks for follows how quickly they are worked off ([`ClaimSize`]).
//!
//! What may run is said in the claim itself: a route with a `max_parallel` brings the number of
//! events that it has room for, and one that is full is left out, whatever number of event types it
//! has ([`Segments`]). So nothing is claimed to be given back, and no event of a full route waits
//! in the queue in front of others. Where a look starts and how far it reads is the business of
//! [`Cursors`].
//!
//! After a claim whose answer was lost, the database may hold a lease that this worker does not
//! know of ([`Orphans`]): the fetcher releases it before it claims again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, never, select};
use log::{debug, warn};

use crate::domain::event::Outcome;
use crate::domain::figure::counted;
use crate::handlers::Segments;
use crate::store::claim::{ClaimQuery, ClaimedEvents, Looked, Selection};
use crate::store::skip::Reach;
use crate::store::{StoreError, Unreadable, look_waits};
use crate::system::pause::{Waits, jittered, pause};
use crate::worker::claim::{Claim, Finished};
use crate::worker::claim_size::ClaimSize;
use crate::worker::cursor::{Cursors, Look, REST};
use crate::worker::ledger::Room;
use crate::worker::link::{Link, Patience};
use crate::worker::orphans::Orphans;
use crate::worker::shared::Shared;
use crate::worker::stage::Stage;

/// First wait after an empty claim.
const IDLE_FIRST: Duration = Duration::from_millis(5);

/// A call that had waited longer than this when its connection was lost may have been cut because
/// of its duration.
const CUT_OFF: Duration = Duration::from_secs(1);

/// The longest wait because of the cost of a look that found nothing, unless the poll interval is
/// longer.
const COST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The fetcher looks for room at this interval even if it misses the signal of the runners.
const ROOM_BELT: Duration = Duration::from_millis(100);

/// Looks that may time out before the fetcher searches for an event that cannot be read.
const TOO_LONG_MAX: usize = 2;

/// The longest time to read such events one by one. An event that takes more than half of it counts
/// as one whose text has no end.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// The longest time of a step over finished events. Other routes wait for it.
const SKIP_LIMIT: Duration = Duration::from_millis(200);

/// Longest time in which a worker that leaves tries to give back a claim in doubt. A restart of the
/// server is mostly over by then; a server that is stopped together with the daemon is not waited
/// for longer.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// The number of events that one call reads one by one.
const PASS_OVER_STRETCH: i32 = 1_000;

/// The fetcher's ends of its channels.
pub(super) struct Ends {
    /// To the runners.
    pub(super) claims: Sender<Claim>,
    /// To the settler, for what is given back unstarted.
    pub(super) finished: Sender<Finished>,
    /// Says that there is room again.
    pub(super) room: Room,
    /// Disconnected when the worker drains.
    pub(super) stop: Receiver<()>,
}

/// The result of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing may be claimed now.
    NoRoom,
    /// No event was found up to the end of the due events.
    Empty,
    /// Events were found, and the end of the due events was reached.
    Found,
    /// The end of the due events was not reached.
    More,
}

/// Claims until the stop channel is disconnected.
pub(super) fn run(ends: Ends, shared: &Shared) {
    let mut fetcher = Fetcher::new(&ends, shared);
    let idle_first = IDLE_FIRST.min(shared.config.poll_interval);
    let mut idle = idle_first;
    let mut waits = Waits::new();
    while !fetcher.is_stopped() {
        match fetcher.turn() {
            Ok(Turn::More) => (idle, waits) = (idle_first, Waits::new()),
            Ok(Turn::Found) => {
                (idle, waits) = (idle_first, Waits::new());
                fetcher.wait(idle);
            }
            Ok(Turn::NoRoom) => {
                waits = Waits::new();
                fetcher.wait_for_room();
            }
            Ok(Turn::Empty) => {
                waits = Waits::new();
                // A look that takes long is not repeated at once.
                fetcher.wait(jittered(idle).max(fetcher.last_cost.min(COST_WAIT_MAX)));
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
    segments: Segments,
    /// Whether the segments stand in the order of the database.
    is_sorted: bool,
    /// The routes with a limit, in the order of their groups.
    limited: Vec<usize>,
    cursors: Cursors,
    size: ClaimSize,
    /// Events sent to the runners so far.
    n_handed: u64,
    last_cost: Duration,
    /// Looks in a row that took longer than a statement may.
    n_too_long: usize,
    /// Fewer events than the configuration allows, while looks fail for no single row.
    events_max: u16,
    orphans: Orphans,
    /// The queue has enough for now; routes with a limit may still have room.
    wants_room: bool,
    /// A route has no room now.
    wants_route_room: bool,
}

impl<'a> Fetcher<'a> {
    fn new(ends: &'a Ends, shared: &'a Shared) -> Fetcher<'a> {
        let segments = Segments::new(&shared.routes);
        let limited: Vec<usize> = (0..shared.routes.len())
            .filter(|&route| shared.ledger.is_limited(route))
            .collect();
        Fetcher {
            ends,
            shared,
            link: Link::new(shared, Stage::Fetcher),
            // The database's encoding may sort other characters than ASCII differently, or lack
            // them.
            is_sorted: segments.bounds().iter().all(|bound| bound.is_ascii()),
            segments,
            cursors: Cursors::new(limited.len(), Instant::now()),
            limited,
            size: ClaimSize::new(shared.config.claim_events_max()),
            n_handed: 0,
            last_cost: Duration::ZERO,
            n_too_long: 0,
            events_max: u16::MAX,
            orphans: Orphans::default(),
            wants_room: false,
            wants_route_room: false,
        }
    }

    fn is_stopped(&self) -> bool {
        self.ends.stop.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected)
    }

    /// Waits until it is time for the next look, there is room again where there was none, or the
    /// worker drains.
    fn wait(&self, wait: Duration) {
        let none = never();
        let room = if self.wants_room {
            &self.ends.room.queue
        } else {
            &none
        };
        let route_room = if self.wants_route_room {
            &self.ends.room.route
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
            recv(self.ends.room.queue) -> _ => {}
            recv(self.ends.room.route) -> _ => {}
            default(ROOM_BELT) => {}
        }
    }

    /// Makes one look for the groups that have room.
    fn turn(&mut self) -> Result<Turn, StoreError> {
        if self.orphans.release(self.shared, &mut self.link)? {
            self.cursors.given_back();
        }
        if self.shared.ledger.take_given_back() {
            self.cursors.given_back();
        }
        self.size.adapt(self.shared.ledger.runs_ended());
        let rooms = self.rooms();
        let runnable: Vec<usize> = (0..rooms.len()).filter(|&group| rooms[group] > 0).collect();
        if runnable.is_empty() {
            return Ok(Turn::NoRoom);
        }
        let Some(look) = self.cursors.next(&runnable, Instant::now()) else {
            return Ok(Turn::Empty);
        };
        let n_found = self.look(&look, &rooms)?;
        Ok(if self.cursors.has_more(&runnable) {
            Turn::More
        } else if n_found == 0 {
            Turn::Empty
        } else {
            Turn::Found
        })
    }

    /// How many events of each group may be claimed now.
    fn rooms(&mut self) -> Vec<usize> {
        let queue_room = self.shared.ledger.queue_room();
        let rest = self.room();
        let limited = self
            .limited
            .iter()
            .map(|&route| self.shared.ledger.route_room(route).min(queue_room));
        let rooms: Vec<usize> = [rest].into_iter().chain(limited).collect();
        self.wants_room = rooms[REST] == 0;
        self.wants_route_room = rooms[1..].contains(&0);
        rooms
    }

    /// How many events a general claim asks for now; 0 while the queue still has enough.
    fn room(&self) -> usize {
        let runners = usize::from(self.shared.config.max_parallel.get());
        // The number of idle runners is no measure: a runner that has just taken an event from the
        // queue still counts as idle, and a second event claimed for it would wait behind the
        // first, while another worker is idle.
        let ended = self.shared.ledger.runs_ended();
        let handed = usize::try_from(self.n_handed.saturating_sub(ended)).unwrap_or(usize::MAX);
        let idle = runners.saturating_sub(handed);
        let queued = self.shared.ledger.queued();
        let low = self.size.low_water();
        self.shared.ledger.tell_at(low);
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
            .min(self.shared.ledger.queue_room())
    }

    /// Makes one look and hands over what it claimed; returns how many events that were.
    fn look(&mut self, look: &Look, rooms: &[usize]) -> Result<usize, StoreError> {
        if let Some(reach) = look.skip {
            self.skip(look, reach)?;
            return Ok(0);
        }
        self.sort_segments()?;
        let room: usize = look.groups.iter().map(|&group| rooms[group]).sum();
        let limit = u16::try_from(room.min(self.shared.ledger.queue_room()))
            .unwrap_or(u16::MAX)
            .clamp(
                1,
                self.shared.config.claim_events_max().min(self.events_max),
            );
        let groups = self.groups(look);
        let takes = takes(look, rooms);
        let selection = Selection {
            bounds: self.segments.bounds(),
            groups: &groups,
            takes: takes.as_deref(),
        };
        let query = ClaimQuery {
            worker: &self.shared.owner.worker,
            limit,
            lease: self.shared.config.lease,
            after: &look.after,
            stretch: look.stretch,
            selection: (!self.limited.is_empty()).then_some(selection),
            bytes_max: self.shared.config.max_batch_bytes,
        };
        // Timed from the moment when the connection is open: the time to connect says nothing about
        // the table and uses up no lease.
        let mut sent = Instant::now();
        let mut is_sent = false;
        let result = self.link.call(|session| {
            (sent, is_sent) = (Instant::now(), true);
            session.look(&query)
        });
        self.last_cost = sent.elapsed();
        let seconds = &self.shared.metrics.claim_seconds;
        seconds.observe(self.last_cost.as_secs_f64());
        let looked = match result {
            Ok(looked) => looked,
            Err(error) => {
                // Only a call that was cut shows that the look was too long. A lock or an outage
                // does not.
                let is_cut_off = is_sent && error.is_connection_lost() && self.last_cost > CUT_OFF;
                if error.is_statement_timeout() || error.is_refusal() || is_cut_off {
                    self.cursors.failed(look, self.last_cost);
                }
                // Without a connection nothing was claimed.
                if is_sent && error.is_unanswered() {
                    self.orphans.expect(self.shared, &error);
                }
                if error.is_connection_lost() {
                    return Err(error);
                }
                return self.pass_over(look, error);
            }
        };
        self.n_too_long = 0;
        self.events_max = self.events_max.saturating_mul(2);
        Ok(self.found(look, looked, usize::from(limit), sent))
    }

    /// Skips the finished events between the look's position and the next due event. A step that
    /// takes too long is no error: the next one is shorter.
    fn skip(&mut self, look: &Look, reach: Reach) -> Result<(), StoreError> {
        let mut sent = Instant::now();
        let result = self.link.aside(Patience::Part(SKIP_LIMIT), |session| {
            sent = Instant::now();
            match session.skip(&look.after, reach) {
                Err(error) if error.is_statement_timeout() => Ok(None),
                result => result.map(Some),
            }
        })?;
        self.last_cost = sent.elapsed();
        match result {
            Some(skipped) => self.cursors.skipped(look, &skipped, self.last_cost),
            None => self.cursors.failed(look, self.last_cost),
        }
        Ok(())
    }

    /// Passes over events that cannot be read after a look has failed because of them. That look
    /// has claimed nothing.
    fn pass_over(&mut self, look: &Look, error: StoreError) -> Result<usize, StoreError> {
        // If the look only timed out, shorter looks come first.
        self.n_too_long += usize::from(error.is_statement_timeout());
        if !(error.is_refusal() || self.n_too_long > TOO_LONG_MAX) {
            return Err(error);
        }
        let wait = look_waits(&self.shared.config.retry)[0];
        let mut is_found = false;
        // An event that takes too long to read ends a walk; the next walk goes on behind it.
        let mut is_cut = true;
        while is_cut && !self.is_stopped() {
            let passed = self.link.call_with(Patience::Part(READ_LIMIT), |session| {
                session.pass_over(&look.after, PASS_OVER_STRETCH, wait)
            })?;
            for Unreadable { event_id, error } in &passed {
                warn!("event {event_id} is passed over: {error}; it is read again in {wait:.0?}");
            }
            is_found |= !passed.is_empty();
            is_cut = passed.iter().any(|one| one.error.is_statement_timeout());
        }
        if !is_found {
            // No single event is to blame. The look may have claimed too many at once.
            self.events_max =
                (self.events_max.min(self.shared.config.claim_events_max()) / 4).max(1);
            return Err(error);
        }
        self.n_too_long = 0;
        Ok(0)
    }

    /// Notes how far a look came, and hands over what it claimed; returns how many events that
    /// were.
    fn found(&mut self, look: &Look, mut looked: Looked, limit: usize, sent: Instant) -> usize {
        for (group, _) in &mut looked.full {
            // Group numbers in the database begin with 1, because 0 is the group of segments that a
            // look leaves out.
            *group = group.saturating_sub(1);
        }
        let n_events = looked
            .claimed
            .as_ref()
            .map_or(0, |claimed| claimed.events.len());
        let is_full = n_events >= limit;
        // The look returned fewer events than it asked for although more follow: its limit in bytes
        // was reached.
        let last = looked.claimed.as_ref().map(|claimed| claimed.last);
        let is_cut = is_full || (last.is_some() && last == looked.reached);
        let events = looked.claimed.iter().flat_map(|claimed| &claimed.events);
        let routes: Vec<Option<usize>> = events
            .map(|event| self.shared.routes.find(&event.event_type))
            .collect();
        let taken = self.groups_of(&routes);
        self.cursors
            .looked(look, &looked, &taken, is_cut, self.last_cost);
        let Some(claimed) = looked.claimed else {
            return 0;
        };
        debug!(
            "claimed {} in {:.1} ms",
            counted(n_events, "event"),
            self.last_cost.as_secs_f64() * 1000.0
        );
        let at = Instant::now();
        let runs_before = self.shared.ledger.runs_ended();
        let n_queued = self.hand_over(claimed, &routes, sent);
        self.n_handed += n_queued as u64;
        if is_full && look.groups.contains(&REST) {
            self.size.handed_full(at, runs_before + n_queued as u64);
        }
        n_queued
    }

    /// The groups of these events.
    fn groups_of(&self, routes: &[Option<usize>]) -> Vec<usize> {
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

    /// The group of each segment in a look; 0 for a segment that it leaves out.
    fn groups(&self, look: &Look) -> Vec<i32> {
        let number = |&route: &Option<usize>| {
            let group = self.group_of(route);
            let is_wanted = look.groups.contains(&group);
            i32::try_from(group + 1).map_or(0, |number| if is_wanted { number } else { 0 })
        };
        self.segments.routes().iter().map(number).collect()
    }

    /// Puts the segments into the database's order, once it can be asked.
    fn sort_segments(&mut self) -> Result<(), StoreError> {
        if !self.is_sorted {
            let bounds = self.segments.bounds().to_vec();
            let sorted = self
                .link
                .aside(Patience::Usual, |session| session.sort_bounds(&bounds))?;
            self.segments = Segments::sorted(sorted, &self.shared.routes);
            self.is_sorted = true;
        }
        Ok(())
    }

    /// Sends claimed events to the runners, and gives back those that have no room; returns how
    /// many were sent.
    fn hand_over(
        &mut self,
        claimed: ClaimedEvents,
        routes: &[Option<usize>],
        sent: Instant,
    ) -> usize {
        let mut n_queued = 0;
        let n_events = claimed.events.len();
        let shared = self.shared;
        shared.metrics.claimed.inc_by(n_events as u64);
        shared
            .metrics
            .claim_batch_size
            .observe(f64::from(u16::try_from(n_events).unwrap_or(u16::MAX)));
        let lease = shared.leases.hold(claimed.token, n_events, sent);
        let is_stopped = self.is_stopped();
        let now = Instant::now();
        for (event, &route) in claimed.events.into_iter().zip(routes) {
            let age = event.created_at_micros.map_or(Duration::ZERO, |created| {
                Duration::from_micros(
                    u64::try_from(claimed.now_micros.saturating_sub(created)).unwrap_or(0),
                )
            });
            let mut claim = Claim {
                ticket: shared.ledger.enter(route),
                event,
                route,
                lease: Arc::clone(&lease),
                age,
                claimed: now,
            };
            let refused = if is_stopped || !claim.ticket.has_place() {
                Some(claim)
            } else {
                claim.ticket.enter_queue(claim.event.payload.len() as u64);
                let sent = self.ends.claims.try_send(claim);
                sent.err().map(TrySendError::into_inner)
            };
            if let Some(mut claim) = refused {
                claim.ticket.not_started();
                // The settler outlives this stage, and its channel has room for all that is in
                // flight.
                let _ = self.ends.finished.send(claim.finish(Outcome::Released));
            } else {
                n_queued += 1;
            }
        }
        n_queued
    }

    /// Gives back a claim that is in doubt, where there is one: its events would wait for the end
    /// of the lease and be charged then.
    ///
    /// Where the database stays away the worker leaves all the same, well before the drain timeout
    /// would end it: the database may have been stopped together with this daemon, and no handler
    /// has run. The in-hand file stays then, and with it the knowledge that a lease may stand: the
    /// supervisor looks for it, and after that the next start.
    fn leave(&mut self) {
        let limit = LEAVE_MAX.min(self.shared.config.drain_timeout / 2);
        let until = Instant::now() + limit;
        let mut waits = Waits::new();
        let mut is_told = false;
        self.orphans.look_at_once();
        while let Err(error) = self.orphans.release(self.shared, &mut self.link) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                warn!(
                    "leaving while the database is away ({error}): a claim may stand there whose answer was lost; the next daemon on \
                     this host gives its events back, or another one tries them again when the lease ends"
                );
                break;
            }
            if !is_told {
                is_told = true;
                warn!(
                    "the answer of a claim was lost: trying for up to {:.1} s to give its events back before this worker leaves",
                    limit.as_secs_f64()
                );
            }
            pause(waits.take().min(left));
        }
        self.shared
            .may_claim_late
            .store(self.orphans.are_possible(), Ordering::Relaxed);
    }
}

/// The number of events that each group may claim in a look; `None` if the look is only for the
/// rest, whose room is the limit of the look.
fn takes(look: &Look, rooms: &[usize]) -> Option<Vec<Option<i32>>> {
    if look.groups == [REST] {
        return None;
    }
    let take = |&room: &usize| Some(i32::try_from(room).unwrap_or(i32::MAX));
    Some(rooms.iter().map(take).collect())
}
