//! A runner takes a claim, runs its handler, and sends the outcome to the settler.
//!
//! Whatever a handler does, a value, an error or a panic, becomes an outcome: a runner never dies
//! of its handler. It starts an event only while the event's lease is surely ours; otherwise it
//! gives the event back unstarted.
//!
//! The in-hand file names the event until the runner takes its next one, or finds none: an outcome
//! may wait for the settler for long, while the database does not take it, and if the worker is
//! killed then its event was not to blame.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use log::{debug, warn};

use crate::domain::event::Outcome;
use crate::handlers::{Run, no_route_reason, outcome_of};
use crate::worker::claim::{Claim, Finished};
use crate::worker::shared::Shared;

/// Runs claims until their channel is disconnected and empty.
pub(super) fn run(
    slot: usize,
    claims: Receiver<Claim>,
    finished: Sender<Finished>,
    shared: &Shared,
) {
    while let Some(mut claim) = next(slot, &claims, shared) {
        claim.ticket.leave_queue();
        let is_wanted =
            !shared.is_draining.load(Ordering::Relaxed) && shared.leases.may_start(&claim.lease);
        let outcome = if is_wanted {
            handle(slot, &claim, shared)
        } else {
            Outcome::Released
        };
        claim.ticket.ran();
        if finished.send(claim.finish(outcome)).is_err() {
            return;
        }
    }
}

/// Takes the next claim; `None` when no more can come.
fn next(slot: usize, claims: &Receiver<Claim>, shared: &Shared) -> Option<Claim> {
    if let Ok(claim) = claims.try_recv() {
        return Some(claim);
    }
    // No event starts in this slot at once, so its note has to be cleared.
    if let Err(error) = shared.in_hand.clear(slot) {
        debug!("could not clear a slot of the in-hand file: {error}");
    }
    claims.recv().ok()
}

fn handle(slot: usize, claim: &Claim, shared: &Shared) -> Outcome {
    let (event, token) = (&claim.event, claim.lease.token);
    if let Err(error) = shared.in_hand.start(slot, event.id, token) {
        // Without the note the event is released uncharged if the worker crashes now, which is
        // safe.
        debug!(
            "could not note event {} in the in-hand file: {error}",
            event.id
        );
    }
    let Some(route) = claim.route.map(|index| shared.routes.get(index)) else {
        let reason = no_route_reason(&event.event_type);
        let policy = &shared.config.retry;
        return policy.failed(event.attempt, &reason, None, fastrand::f64());
    };
    let on_group = |group| {
        if let Err(error) = shared.in_hand.note_group(slot, event.id, token, group) {
            warn!("could not note a process group in the in-hand file: {error}");
        }
    };
    let run = Run {
        timeout: route.timeout,
        on_group: &on_group,
        worker: &shared.owner.worker,
    };
    let watch = route
        .is_library()
        .then(|| shared.watchdog.watch(slot, route.timeout));
    let began = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| route.run(event, &run)));
    let seconds = began.elapsed().as_secs_f64();
    drop(watch);
    let outcome = outcome_of(result, event.attempt, &route.retry, fastrand::f64());
    shared
        .metrics
        .route(claim.route)
        .ran(outcome.name(), seconds);
    match &outcome {
        Outcome::Retry { delay, reason } => debug!(
            "event {} failed attempt {} and is due again in {:.1} s: {reason}",
            event.id,
            event.attempt,
            delay.as_secs_f64()
        ),
        Outcome::Done | Outcome::Dead { .. } | Outcome::Released => {
            debug!(
                "event {} {} in {:.1} ms",
                event.id,
                outcome.name(),
                seconds * 1000.0
            );
        }
    }
    outcome
}
