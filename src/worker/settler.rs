//! The settler gathers outcomes and writes them in batches; the only writer of what this worker's
//! handlers came to.
//!
//! The outcome of a handler that has finished is kept until the database has answered whether it
//! was written or fenced off because the event's lease is gone. A batch without an answer is sent
//! again before any later one. Outcomes that the repetition does not write are read back, since
//! they may have been written the first time.
//!
//! A batch that cannot be written because of one of its rows is narrowed down: parts of it are
//! written as a whole, and small ones outcome by outcome, with little patience, until only those
//! are left that the database does not take. These are set aside ([`Aside`]). A batch that takes
//! too long goes outcome by outcome at once: each part that holds a slow row would cost its whole
//! time again. A round of narrowing is bounded in time; what it does not come to is left for the
//! next, so that new outcomes get their turn.
//!
//! When a drain has come so far that no handler runs, what is set aside is tried once more; an
//! event whose outcome is refused again is given back, and its handler will run again. Only what is
//! locked is tried until the drain timeout: a lock ends by itself.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::warn;

use crate::domain::event::{Outcome, dead_letter_message};
use crate::store::settle::{EACH_MAX, SettleBatch, SettleResult, Written};
use crate::store::{Session, StoreError};
use crate::system::pause::{Waits, sleep_uninterruptibly};
use crate::worker::aside::Aside;
use crate::worker::batch;
use crate::worker::claim::Finished;
use crate::worker::link::{Link, Patience};
use crate::worker::pace::{Pace, Round};
use crate::worker::shared::Shared;
use crate::worker::stage::Stage;

/// The longest time that an outcome waits for others of the same batch.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// While many outcomes arrive, the settler looks for them at this interval instead of being woken
/// by each.
const BATCH_STEP: Duration = Duration::from_millis(1);

/// Outcomes that are set aside wait at least this many times as long as their last tries took.
const ASIDE_SHARE: u32 = 4;

/// The interval at which a drain tries the outcomes that are set aside.
const ASIDE_EVERY: Duration = Duration::from_secs(1);

/// Longest time for a part of a batch that has failed; a row that takes more than half of it is
/// slow.
const PART_LIMIT: Duration = Duration::from_millis(600);

/// Parts that a batch which was refused is cut into.
const PARTS: usize = 4;

/// Outcomes that are written one by one as soon as they were refused as a part.
const PART_MIN: usize = 16;

/// The longest wait before a write that a conflict undid is repeated. The wait is random, so that
/// the two writes do not meet again.
const CONFLICT_WAIT: Duration = Duration::from_millis(50);

/// Repetitions of a write that a deadlock or a serialization failure undid.
const CONFLICT_TRIES: usize = 3;

/// The longest age that counts as latency, ten years: an event with `created_at` in the far past,
/// such as BC, would hide all others in the sum.
const AGE_MAX: Duration = Duration::from_hours(10 * 366 * 24);

/// Writes outcomes until their channel is disconnected and everything is settled.
pub(super) fn run(finished: Receiver<Finished>, shared: &Shared) {
    let mut settler = Settler {
        link: Link::new(shared, Stage::Settler),
        shared,
        aside: Aside::new(shared),
        aside_from: Instant::now(),
        pace: Pace::default(),
        round: Round::new(),
    };
    while let Some(batch) = settler.gather(&finished) {
        settler.settle(batch);
        settler.aside.tell();
    }
    settler.aside.begin_last_tries();
    settler.settle_given_up();
    while !settler.aside.is_empty() {
        sleep_uninterruptibly(ASIDE_EVERY);
        settler.aside.hurry();
        settler.retry_aside();
        settler.settle_given_up();
    }
}

struct Settler<'a> {
    link: Link<'a>,
    shared: &'a Shared,
    /// Outcomes that the database refuses now.
    aside: Aside<'a>,
    /// The earliest time at which they are tried.
    aside_from: Instant,
    pace: Pace,
    round: Round,
}

impl Settler<'_> {
    /// Waits for outcomes; `None` when no more can come.
    fn gather(&mut self, finished: &Receiver<Finished>) -> Option<Vec<Finished>> {
        let first = loop {
            let Some(wait) = self.aside.wait() else {
                break finished.recv().ok()?;
            };
            let turn = self.aside_from.saturating_duration_since(Instant::now());
            if wait.is_zero() && (turn.is_zero() || finished.is_empty()) {
                // Outcomes that are set aside get their turn also while new ones keep arriving. New
                // ones get most of the time.
                let began = Instant::now();
                self.retry_aside();
                self.aside_from = Instant::now() + began.elapsed() * ASIDE_SHARE;
                continue;
            }
            match finished.recv_timeout(wait) {
                Ok(first) => break first,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        let batch_max = self.pace.batch_max();
        let mut batch = Vec::with_capacity(batch_max);
        batch.push(first);
        let deadline = Instant::now() + BATCH_WAIT;
        loop {
            batch.extend(finished.try_iter().take(batch_max - batch.len()));
            // No other event is in flight, so no other outcome can arrive.
            let is_alone = self.shared.ledger.in_flight() <= batch.len() + self.aside.len();
            if batch.len() >= batch_max || is_alone || Instant::now() >= deadline {
                return Some(batch);
            }
            sleep_uninterruptibly(BATCH_STEP);
        }
    }

    /// Writes a batch, in parts where it cannot be written at once.
    fn settle(&mut self, mut batch: Vec<Finished>) {
        let patience = Patience::Batch(self.pace.limit());
        match self.send(&mut batch, patience, Session::settle) {
            Ok(written) => {
                self.pace.went_well();
                self.account(batch, &written);
            }
            Err(error) => {
                self.round = Round::new();
                if error.is_statement_timeout() {
                    self.pace.took_too_long(batch.len());
                    self.each(batch, PART_LIMIT);
                } else {
                    self.narrow(batch);
                }
            }
        }
    }

    /// Sends a batch until the database answers, or until the answer is that a row is refused or
    /// that the batch takes too long.
    fn send<T>(
        &mut self,
        batch: &mut [Finished],
        patience: Patience,
        settle: impl Fn(&mut Session, &SettleBatch<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut waits = Waits::new();
        let mut n_conflicts = 0;
        loop {
            match self.write(batch, patience, &settle) {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_connecting() => sleep_uninterruptibly(waits.take()),
                Err(error) if error.is_connection_lost() => {
                    for finished in &mut *batch {
                        finished.is_in_doubt = true;
                    }
                    sleep_uninterruptibly(waits.take());
                }
                Err(error) if error.is_conflict() && n_conflicts < CONFLICT_TRIES => {
                    n_conflicts += 1;
                    sleep_uninterruptibly(CONFLICT_WAIT.mul_f64(fastrand::f64()));
                }
                // The error is the same whether a trigger of some rows misses an object or the
                // outbox schema does.
                Err(error)
                    if error.is_about_a_row()
                        || error.is_statement_timeout()
                        || error.is_schema() =>
                {
                    return Err(error);
                }
                Err(_) => sleep_uninterruptibly(waits.take()),
            }
        }
    }

    fn write<T>(
        &mut self,
        batch: &[Finished],
        patience: Patience,
        settle: impl Fn(&mut Session, &SettleBatch<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (outcomes, ended) = (batch::settlements(batch), batch::ended_by(batch));
        let batch = SettleBatch {
            worker: &self.shared.owner.worker,
            outcomes: &outcomes,
            ended: &ended,
            expired: false,
        };
        let seconds = &self.shared.metrics.settle_seconds;
        self.link.call_with(patience, |session| {
            seconds.observe_closure_duration(|| settle(session, &batch))
        })
    }

    /// Writes a refused batch in smaller and smaller parts, as far as the database accepts them.
    fn narrow(&mut self, batch: Vec<Finished>) {
        let mut refused = vec![batch];
        while let Some(mut batch) = refused.pop() {
            if batch.len() <= PART_MIN {
                self.each(batch, PART_LIMIT);
                continue;
            }
            let part_len = batch.len().div_ceil(PARTS);
            while !batch.is_empty() {
                let mut part = batch.split_off(batch.len().saturating_sub(part_len));
                if self.round.is_over() {
                    self.aside.untried(part);
                    continue;
                }
                match self.send(&mut part, Patience::Part(PART_LIMIT), Session::settle) {
                    Ok(written) => self.account(part, &written),
                    Err(error) if error.is_statement_timeout() => self.each(part, PART_LIMIT),
                    Err(error) => {
                        self.round.refused(&error);
                        refused.push(part);
                    }
                }
            }
        }
    }

    /// Writes outcome by outcome, and sets aside those that the database refuses.
    fn each(&mut self, mut rest: Vec<Finished>, limit: Duration) {
        // Leases are locked in this order everywhere.
        rest.sort_by_key(|finished| finished.lease.token);
        while !rest.is_empty() {
            if self.round.is_over() {
                return self.aside.untried(rest);
            }
            let later = rest.split_off(rest.len().min(EACH_MAX));
            let sent = self.send(&mut rest, Patience::Part(limit), Session::settle_each);
            let Ok(results) = sent else {
                // None of these outcomes has a result: its lease is locked, its time was over
                // between two rows, a function is missing.
                self.aside.untried(rest);
                return self.aside.untried(later);
            };
            rest = self.account_each(rest, results);
            rest.extend(later);
        }
    }

    /// Takes the results of outcomes that were written one by one; returns the outcomes that have
    /// none yet.
    fn account_each(&mut self, batch: Vec<Finished>, results: Vec<SettleResult>) -> Vec<Finished> {
        let answered = batch::answered(batch, results);
        for (finished, error) in answered.refused {
            self.round.refused(&error);
            if error.is_statement_timeout() {
                self.pace.slow_row();
            }
            self.aside.refused(finished, &error);
        }
        self.account(answered.known, &answered.written);
        answered.untried
    }

    /// Releases the events whose outcomes were given up.
    fn settle_given_up(&mut self) {
        let mut given_up = self.aside.take_given_up();
        while !given_up.is_empty() {
            let later = given_up.split_off(given_up.len().min(self.pace.batch_max()));
            self.settle(given_up);
            given_up = later;
        }
    }

    fn retry_aside(&mut self) {
        let (quick, slow) = self.aside.take_due();
        self.round = Round::new();
        self.each(quick, PART_LIMIT);
        for finished in slow {
            let limit = Aside::slow_limit(&finished);
            self.each(vec![finished], limit);
        }
        self.aside.tell();
    }

    /// Counts the outcomes that were written, and logs those that were not.
    fn account(&mut self, batch: Vec<Finished>, answer: &[Written]) {
        let kept: HashSet<i64> = answer
            .iter()
            .filter(|written| written.kept)
            .map(|written| written.event_id)
            .collect();
        let (swallowed, batch): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|finished| kept.contains(&finished.event_id));
        for finished in swallowed {
            self.aside.swallowed(finished);
        }
        let written: HashMap<i64, bool> = answer
            .iter()
            .map(|written| (written.event_id, written.written))
            .collect();
        // An earlier try without an answer may have written them.
        let doubted: Vec<&Finished> = batch
            .iter()
            .filter(|finished| finished.is_in_doubt)
            .filter(|finished| written.get(&finished.event_id) != Some(&true))
            .collect();
        let written_before = self.read_back(&doubted);
        for finished in &batch {
            let id = finished.event_id;
            self.aside.settled(finished);
            match written.get(&id) {
                Some(true) => self.count(finished),
                _ if written_before.contains(&id) => self.count(finished),
                Some(false) => {
                    self.shared.metrics.events_missing.inc();
                    warn!(
                        "event {id} was removed or finished elsewhere while it was handled; its outcome `{}` was not \
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
        self.let_go(&batch);
    }

    /// Finds out which of these events were written by a call that had no answer.
    fn read_back(&mut self, doubted: &[&Finished]) -> Vec<i64> {
        if doubted.is_empty() {
            return Vec::new();
        }
        let ids: Vec<i64> = doubted.iter().map(|finished| finished.event_id).collect();
        let states = loop {
            match self.link.call(|session| session.read_back(&ids)) {
                Ok(states) => break states,
                Err(_) => sleep_uninterruptibly(Waits::MAX),
            }
        };
        batch::written_before(doubted, states)
    }

    fn count(&self, finished: &Finished) {
        let metrics = &self.shared.metrics;
        metrics.settled(finished.route, &finished.outcome, finished.attempt);
        match &finished.outcome {
            Outcome::Done => {
                let latency = finished.age.min(AGE_MAX) + finished.claimed.elapsed();
                metrics.delivery_latency.observe(latency.as_secs_f64());
            }
            Outcome::Dead { reason } => {
                warn!(
                    "{}",
                    dead_letter_message(finished.event_id, finished.attempt, reason)
                );
            }
            Outcome::Released => self.shared.ledger.gave_back(),
            Outcome::Retry { .. } => {}
        }
    }

    /// Takes events whose outcomes are settled from their leases, and ends the leases that have
    /// none left.
    fn let_go(&mut self, batch: &[Finished]) {
        for (token, part) in batch::by_token(batch) {
            if part[0].lease.close(part.len()) == 0 {
                self.shared.leases.end(token);
            }
        }
    }
}
