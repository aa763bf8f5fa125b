//! The settler gathers outcomes and writes them in batches; the only writer of results.
//!
//! An outcome of a handler that has finished is kept until the database says what became of it: written, or fenced off because
//! the event's lease is gone. A batch whose answer never came is sent again before any later one; what the repetition does not
//! write is read back, since it may have been written the first time.
//!
//! A batch that cannot be written because of one of its rows, locked by somebody else or refused by a trigger, is halved until
//! the culprit stands alone. It is set aside and tried again each second, with little patience, so that it holds up nobody.
//!
//! It is never given up while the worker lives, however long that takes: its handler has run, and an outcome that is let go of would
//! make it run again. Its lease is renewed like any other, and it counts as in flight, so where every row is refused the worker claims
//! no more once its limit is reached. A drain waits for it as long as a drain may take; then the worker is ended, its event is released
//! uncharged, and another one runs the handler again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{debug, warn};

use crate::event::{Outcome, obituary};
use crate::pause::{Waits, pause};
use crate::store::StoreError;
use crate::store::settle::{SettleBatch, Settlement, Written};
use crate::worker::claim::Finished;
use crate::worker::link::{Link, Patience};
use crate::worker::pulse::Stage;
use crate::worker::refusals::Refusals;
use crate::worker::shared::Shared;

/// Outcomes per write: a larger batch saves next to nothing, and a failure repeats all of it.
const BATCH_EVENTS: usize = 500;

/// Longest time that an outcome waits for company.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// While outcomes pour in, the settler looks at this rhythm instead of being woken by each of them.
const BATCH_STEP: Duration = Duration::from_millis(1);

/// How often what was set aside is tried again.
const ASIDE_EVERY: Duration = Duration::from_secs(1);

/// Failed writes per round of halving: enough to isolate two culprits among 500; a locked table fails them all.
const HALVINGS_MAX: usize = 40;

/// A batch that the server cannot finish in time may be too large, for slow triggers for instance; once is bad luck.
const TOO_LONG_MAX: usize = 2;

/// Longest wait before such a repetition; chance decides, so that the two do not meet again.
const CONFLICT_WAIT: Duration = Duration::from_millis(50);

/// Repetitions of a write that a deadlock or a serialization failure undid.
const CONFLICT_TRIES: usize = 3;

/// Writes outcomes until their channel is disconnected and everything is settled.
pub(super) fn run(finished: Receiver<Finished>, shared: &Shared) {
    let mut settler = Settler {
        link: Link::new(shared, Stage::Settler, &shared.pool),
        shared,
        aside: Vec::new(),
        aside_tried: Instant::now(),
        refusals: Refusals::default(),
    };
    while let Some(batch) = settler.gather(&finished) {
        settler.settle(batch);
    }
    while !settler.aside.is_empty() {
        pause(ASIDE_EVERY);
        settler.retry_aside();
    }
}

struct Settler<'a> {
    link: Link<'a>,
    shared: &'a Shared,
    /// Outcomes whose rows are locked or refused.
    aside: Vec<Finished>,
    aside_tried: Instant,
    refusals: Refusals,
}

/// What the database says about a batch.
enum Answer {
    Known(Vec<Written>),
    /// Some row of the batch is in the way.
    RowInTheWay(StoreError),
    /// The server could not finish it in the time that a statement has.
    TooLong,
}

impl Settler<'_> {
    /// Waits for outcomes; `None` when no more can come.
    fn gather(&mut self, finished: &Receiver<Finished>) -> Option<Vec<Finished>> {
        let first = loop {
            if self.aside.is_empty() {
                break finished.recv().ok()?;
            }
            if self.aside_tried.elapsed() >= ASIDE_EVERY {
                // Also while outcomes pour in, when no wait would ever end without one.
                self.retry_aside();
                continue;
            }
            match finished.recv_timeout(ASIDE_EVERY.saturating_sub(self.aside_tried.elapsed())) {
                Ok(first) => break first,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        let mut batch = Vec::with_capacity(BATCH_EVENTS);
        batch.push(first);
        let deadline = Instant::now() + BATCH_WAIT;
        loop {
            batch.extend(finished.try_iter().take(BATCH_EVENTS - batch.len()));
            // Nothing else is in flight: waiting longer could bring no company.
            let is_alone = self.shared.in_flight() <= batch.len() + self.aside.len();
            if batch.len() >= BATCH_EVENTS || is_alone || Instant::now() >= deadline {
                return Some(batch);
            }
            pause(BATCH_STEP);
        }
    }

    /// Writes a batch, in parts where it cannot be written at once.
    fn settle(&mut self, mut batch: Vec<Finished>) {
        for _ in 0..TOO_LONG_MAX {
            match self.send(&mut batch, Patience::Usual) {
                Answer::Known(written) => return self.account(&batch, &written),
                Answer::RowInTheWay(_) => break,
                Answer::TooLong => {}
            }
        }
        self.halve(batch);
    }

    /// Sends a batch until the database says something about it.
    fn send(&mut self, batch: &mut [Finished], patience: Patience) -> Answer {
        let mut waits = Waits::new();
        let mut n_conflicts = 0;
        loop {
            match self.write(batch, patience) {
                Ok(written) => return Answer::Known(written),
                Err(error) if error.is_connecting() => pause(waits.take()),
                Err(error) if error.is_connection_lost() => {
                    for finished in &mut *batch {
                        finished.is_in_doubt = true;
                    }
                    pause(waits.take());
                }
                Err(error) if error.is_conflict() && n_conflicts < CONFLICT_TRIES => {
                    n_conflicts += 1;
                    pause(CONFLICT_WAIT.mul_f64(fastrand::f64()));
                }
                Err(error) if error.is_about_a_row() => return Answer::RowInTheWay(error),
                Err(error) if error.is_statement_timeout() => return Answer::TooLong,
                Err(_) => pause(waits.take()),
            }
        }
    }

    fn write(
        &mut self,
        batch: &[Finished],
        patience: Patience,
    ) -> Result<Vec<Written>, StoreError> {
        let outcomes: Vec<Settlement> = batch
            .iter()
            .map(|finished| Settlement {
                token: finished.lease.token,
                event_id: finished.event_id,
                outcome: finished.outcome.clone(),
            })
            .collect();
        let ended = ended_by(batch);
        let batch = SettleBatch {
            worker: &self.shared.owner.worker,
            outcomes: &outcomes,
            ended: &ended,
            expired: false,
        };
        let seconds = &self.shared.metrics.settle_seconds;
        self.link.call_with(patience, |session| {
            seconds.observe_closure_duration(|| session.settle(&batch))
        })
    }

    /// Writes what can be written, smaller and smaller parts of it, and sets the rest aside.
    fn halve(&mut self, batch: Vec<Finished>) {
        let mut parts = vec![batch];
        let mut n_failed = 0;
        while let Some(mut part) = parts.pop() {
            if n_failed >= HALVINGS_MAX {
                self.set_aside(part);
                continue;
            }
            let answer = self.send(&mut part, Patience::Short);
            if let Answer::Known(written) = answer {
                self.account(&part, &written);
                continue;
            }
            n_failed += 1;
            if part.len() > 1 {
                let half = part.split_off(part.len() / 2);
                parts.extend([part, half]);
                continue;
            }
            if let Answer::RowInTheWay(error) = answer {
                self.refusals.refused(&part[0], &error);
            }
            self.set_aside(part);
        }
    }

    fn set_aside(&mut self, part: Vec<Finished>) {
        debug!(
            "set {} outcomes aside: their rows are locked or refused",
            part.len()
        );
        self.aside.extend(part);
        self.aside_tried = Instant::now();
    }

    fn retry_aside(&mut self) {
        let aside = std::mem::take(&mut self.aside);
        self.halve(aside);
        self.aside_tried = Instant::now();
    }

    /// Counts what was written, and says what was not.
    fn account(&mut self, batch: &[Finished], written: &[Written]) {
        let written: HashMap<i64, bool> = written
            .iter()
            .map(|written| (written.event_id, written.written))
            .collect();
        // A first try whose answer was lost may have written them.
        let doubted: Vec<&Finished> = batch
            .iter()
            .filter(|finished| finished.is_in_doubt)
            .filter(|finished| written.get(&finished.event_id) != Some(&true))
            .collect();
        let written_before = self.read_back(&doubted);
        for finished in batch {
            let id = finished.event_id;
            self.refusals.is_over(finished);
            match written.get(&id) {
                Some(true) => self.count(finished),
                _ if written_before.contains(&id) => self.count(finished),
                Some(false) => {
                    self.shared.metrics.events_missing.inc();
                    warn!(
                        "event {id} was removed or finished by somebody else while it was handled; its outcome `{}` was not \
                         written",
                        finished.outcome.name()
                    );
                }
                None => {
                    self.shared.metrics.leases_lost.inc();
                    warn!(
                        "lease lost for event {id}: its outcome `{}` was not written, another worker has it or had it",
                        finished.outcome.name()
                    );
                }
            }
        }
        self.let_go(batch);
    }

    /// Which of these events, whose write was never answered, were written all the same.
    fn read_back(&mut self, doubted: &[&Finished]) -> Vec<i64> {
        if doubted.is_empty() {
            return Vec::new();
        }
        let ids: Vec<i64> = doubted.iter().map(|finished| finished.event_id).collect();
        let states = loop {
            match self.link.call(|session| session.read_back(&ids)) {
                Ok(states) => break states,
                Err(_) => pause(Waits::MAX),
            }
        };
        let states: HashMap<i64, _> = states
            .into_iter()
            .map(|state| (state.event_id, state))
            .collect();
        doubted
            .iter()
            .filter(
                |finished| match (&finished.outcome, states.get(&finished.event_id)) {
                    // A release writes nothing to the row: a lease that no longer names it says that it was given back.
                    (Outcome::Released, _) => true,
                    (outcome, Some(state)) => {
                        state.status == outcome.name() && state.attempts == finished.attempt
                    }
                    (_, None) => false,
                },
            )
            .map(|finished| finished.event_id)
            .collect()
    }

    fn count(&self, finished: &Finished) {
        let metrics = &self.shared.metrics;
        metrics.settled(finished.route, &finished.outcome, finished.attempt);
        match &finished.outcome {
            Outcome::Done => metrics
                .delivery_latency
                .observe((finished.age + finished.claimed.elapsed()).as_secs_f64()),
            Outcome::Dead { reason } => {
                warn!("{}", obituary(finished.event_id, finished.attempt, reason));
            }
            Outcome::Retry { .. } | Outcome::Released => {}
        }
    }

    /// The outcomes are known: their leases have fewer events left, or none.
    fn let_go(&mut self, batch: &[Finished]) {
        for (token, part) in by_token(batch) {
            if part[0].lease.close(part.len()) == 0 {
                self.shared.leases.end(token);
            }
        }
        self.shared
            .metrics
            .in_flight
            .sub(i64::try_from(batch.len()).unwrap_or(i64::MAX));
        self.shared.queue_moved();
    }
}

/// The leases that have nothing left once this batch is written.
fn ended_by(batch: &[Finished]) -> Vec<i64> {
    by_token(batch)
        .into_iter()
        .filter(|(_, part)| part.len() >= part[0].lease.open())
        .map(|(token, _)| token)
        .collect()
}

fn by_token(batch: &[Finished]) -> HashMap<i64, Vec<&Finished>> {
    let mut parts: HashMap<i64, Vec<&Finished>> = HashMap::new();
    for finished in batch {
        parts
            .entry(finished.lease.token)
            .or_default()
            .push(finished);
    }
    parts
}
