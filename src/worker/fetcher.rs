//! The fetcher claims due events while there is room and sends them to the runners.
//!
//! It claims back to back while claims come full, then waits from 5 ms up to the poll interval. How
//! many events it asks for follows how quickly they are worked off ([`ClaimSize`]).
//!
//! What may run is said in the claim itself: a route with a `max_parallel` brings the number of
//! events that it has room for, and one that is full is left out, whatever number of event types it
//! has ([`Groups`]). So nothing is claimed to be given back, and no event of a full route waits
//! in the queue in front of others. Where a look starts and how far it reads is the business of
//! [`Cursors`].
//!
//! After a claim whose answer was lost, the database may hold a lease that this worker does not
//! know of ([`Orphans`]): the fetcher releases it before it claims again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::{debug, warn};

use crate::domain::figure::counted;
use crate::store::claim::{ClaimQuery, Looked, Selection};
use crate::store::skip::Reach;
use crate::store::{StoreError, Unreadable, look_waits};
use crate::system::pause::{Waits, jittered, sleep_uninterruptibly};
use crate::worker::claim_size::ClaimSize;
use crate::worker::cursor::{Cursors, Look, REST};
use crate::worker::ends::{Ends, Wanted};
use crate::worker::groups::{self, Groups, from_database};
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

/// The result of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing may be claimed now.
    NoRoom,
    /// Nothing was claimed: nothing more is due, or all cursors pause.
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
    while !ends.is_stopped() {
        match fetcher.turn() {
            Ok(Turn::More) => (idle, waits) = (idle_first, Waits::new()),
            Ok(Turn::Found) => {
                (idle, waits) = (idle_first, Waits::new());
                ends.wait(fetcher.wanted, idle);
            }
            Ok(Turn::NoRoom) => {
                waits = Waits::new();
                ends.wait_for_room();
            }
            Ok(Turn::Empty) => {
                waits = Waits::new();
                // A look that takes long is not repeated at once.
                ends.wait(
                    fetcher.wanted,
                    jittered(idle).max(fetcher.last_cost.min(COST_WAIT_MAX)),
                );
                idle = (idle * 2).min(shared.config.poll_interval);
            }
            // The link has told the log.
            Err(_) => ends.wait(fetcher.wanted, waits.take()),
        }
    }
    fetcher.leave();
}

struct Fetcher<'a> {
    ends: &'a Ends,
    shared: &'a Shared,
    link: Link<'a>,
    groups: Groups,
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
    wanted: Wanted,
}

impl<'a> Fetcher<'a> {
    fn new(ends: &'a Ends, shared: &'a Shared) -> Fetcher<'a> {
        let groups = Groups::new(shared);
        Fetcher {
            ends,
            shared,
            link: Link::new(shared, Stage::Fetcher),
            cursors: Cursors::new(groups.limited().len(), groups.choose(), Instant::now()),
            groups,
            size: ClaimSize::new(shared.config.claim_events_max()),
            n_handed: 0,
            last_cost: Duration::ZERO,
            n_too_long: 0,
            events_max: u16::MAX,
            orphans: Orphans::default(),
            wanted: Wanted::default(),
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
        let runners = usize::from(self.shared.config.max_parallel.get());
        let rest = self.size.room(&self.shared.ledger, runners, self.n_handed);
        let limited = self
            .groups
            .limited()
            .iter()
            .map(|&route| self.shared.ledger.route_room(route).min(queue_room));
        let rooms: Vec<usize> = [rest].into_iter().chain(limited).collect();
        self.wanted = Wanted {
            queue: rooms[REST] == 0,
            route: rooms[1..].contains(&0),
        };
        rooms
    }

    /// Makes one look and hands over what it claimed; returns how many events that were.
    fn look(&mut self, look: &Look, rooms: &[usize]) -> Result<usize, StoreError> {
        if let Some(reach) = look.skip {
            self.skip(look, reach)?;
            return Ok(0);
        }
        self.groups.sort(self.shared, &mut self.link)?;
        let room: usize = look.groups.iter().map(|&group| rooms[group]).sum();
        let limit = u16::try_from(room.min(self.shared.ledger.queue_room()))
            .unwrap_or(u16::MAX)
            .clamp(
                1,
                self.shared.config.claim_events_max().min(self.events_max),
            );
        let groups = self.groups.numbers(look);
        let takes = groups::takes(look, rooms);
        let selection = Selection {
            bounds: self.groups.bounds(),
            groups: &groups,
            takes: takes.as_deref(),
        };
        let query = ClaimQuery {
            worker: &self.shared.owner.worker,
            limit,
            lease: self.shared.config.lease,
            after: &look.after,
            stretch: look.stretch,
            selection: self.groups.choose().then_some(selection),
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
        if is_sent {
            let seconds = &self.shared.metrics.claim_seconds;
            seconds.observe(self.last_cost.as_secs_f64());
        }
        let looked = match result {
            Ok(looked) => looked,
            // There was no session, so nothing was read or claimed.
            Err(error) if !is_sent => return Err(error),
            Err(error) => {
                // What was cut or refused may have been too much at once. A lock or an outage was
                // not.
                let is_cut_off = error.is_connection_lost() && self.last_cost > CUT_OFF;
                if error.is_statement_timeout() || error.is_refusal() || is_cut_off {
                    self.cursors.failed(look, self.last_cost);
                }
                if error.is_unanswered() {
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
        while is_cut && !self.ends.is_stopped() {
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
            *group = from_database(*group);
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
        let taken = self.groups.of(&routes);
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
        let n_queued = self.ends.hand_over(self.shared, claimed, &routes, sent);
        self.n_handed += n_queued as u64;
        if is_full && look.groups.contains(&REST) {
            self.size.handed_full(at, runs_before + n_queued as u64);
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
            sleep_uninterruptibly(waits.take().min(left));
        }
        self.shared
            .may_claim_late
            .store(self.orphans.are_possible(), Ordering::Relaxed);
    }
}
