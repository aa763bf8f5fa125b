//! The fetcher's ends of its channels: what it waits for, and to which stage events go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, never, select};

use crate::domain::event::{Event, Outcome};
use crate::store::ClaimedEvents;
use crate::worker::claim::{Claim, Finished};
use crate::worker::ledger::Room;
use crate::worker::shared::Shared;

/// The fetcher looks for room at this interval even if it misses the signal of the runners.
const ROOM_BELT: Duration = Duration::from_millis(100);

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

/// The room that the fetcher waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// The queue has enough for now; routes with a limit may still have room.
    pub(super) queue: bool,
    /// A route has no room now.
    pub(super) route: bool,
}

impl Ends {
    /// Says whether the worker drains.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits for so long, or until there is room where `wanted` says that there was none, or until
    /// the worker drains.
    pub(super) fn wait(&self, wanted: Wanted, wait: Duration) {
        let none = never();
        let room = if wanted.queue {
            &self.room.queue
        } else {
            &none
        };
        let route_room = if wanted.route {
            &self.room.route
        } else {
            &none
        };
        select! {
            recv(self.stop) -> _ => {}
            recv(room) -> _ => {}
            recv(route_room) -> _ => {}
            default(wait) => {}
        }
    }

    /// Waits until there may be room again, or the worker drains.
    pub(super) fn wait_for_room(&self) {
        select! {
            recv(self.stop) -> _ => {}
            recv(self.room.queue) -> _ => {}
            recv(self.room.route) -> _ => {}
            default(ROOM_BELT) => {}
        }
    }

    /// Sends claimed events to the runners, and gives back those that have no room; returns how
    /// many were sent.
    pub(super) fn hand_over(
        &self,
        shared: &Shared,
        claimed: ClaimedEvents,
        routes: &[Option<usize>],
        sent: Instant,
    ) -> usize {
        let mut n_queued = 0;
        let n_events = claimed.events.len();
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
                claim.ticket.enter_queue(bytes_of(&claim.event));
                let sent = self.claims.try_send(claim);
                sent.err().map(TrySendError::into_inner)
            };
            if let Some(mut claim) = refused {
                claim.ticket.not_started();
                // The settler outlives this stage, and its channel has room for all that is in
                // flight.
                let _ = self.finished.send(claim.finish(Outcome::Released));
            } else {
                n_queued += 1;
            }
        }
        n_queued
    }
}

/// What an event counts for in the queue's limit of bytes, as in that of a claim.
fn bytes_of(event: &Event) -> u64 {
    let headers = event.headers.as_ref().map_or(0, String::len);
    (event.payload.len() + headers) as u64
}
