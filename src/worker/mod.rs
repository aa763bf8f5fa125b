//! A worker process: fetcher → queue → runners → settler, with keeper, sweeper and reporter beside
//! them.
//!
//! It reads its settings from standard input and takes that input's end as the order to drain: the
//! end also comes when the supervisor dies, however it dies, so no worker is orphaned. Stages end
//! by ownership: the fetcher returns when its stop channel is disconnected and drops its end of the
//! queue, the runners return when the queue is disconnected and empty, and the settler when the
//! last sender of outcomes is gone. A stage that ends before it was asked to ends the worker: there
//! is no half-dead one.

mod aside;
mod batch;
mod claim;
mod claim_size;
mod cursor;
mod ends;
mod fetcher;
mod groups;
mod keeper;
mod leases;
mod ledger;
mod link;
mod orphans;
mod outage;
mod pace;
mod pools;
mod refusals;
mod reporter;
mod runner;
mod settler;
mod shared;
mod skip;
mod spawner;
mod stage;
mod stretch;
mod sweeper;
mod watchdog;

use std::io::{self, BufRead as _, Read as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, tick};
use log::{debug, error, info, warn};

use crate::domain::config::LogLevel;
use crate::domain::event::Outcome;
use crate::domain::figure::counted;
use crate::domain::protocol::{LINE_BYTES_MAX, WorkerSettings};
use crate::handlers::Handlers;
use crate::store::dsn::Dsn;
use crate::system::signal::{self, SignalThread};
use crate::system::threads::{self, Thread};
use crate::system::{logging, process};
use claim::{Claim, Finished};
use shared::{Channels, Shared};
use spawner::Spawner;

/// How often the main loop looks for stuck handlers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the worker waits for its last report to be written, since the pipe may be full.
const LAST_REPORT_WAIT: Duration = Duration::from_secs(1);

/// All that can happen to a worker.
enum WorkerEvent {
    /// Standard input has ended.
    InputEnded,
    /// This process has received a signal.
    Signal(i32),
    /// A thread has returned, or died.
    StageEnded(String),
    /// Time to look for stuck handlers.
    Look,
    /// The drain has taken too long.
    DrainTimedOut,
}

/// Runs a worker until it has drained.
pub fn main(handlers: &Handlers) -> ExitCode {
    let settings = match read_settings() {
        Ok(settings) => settings,
        Err(reason) => {
            logging::init_daemon(LogLevel::Info, "worker");
            error!("could not read the settings from standard input: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let process = format!("worker-{:02}-pid{}", settings.slot, std::process::id());
    logging::init_daemon(settings.config.log_level, &process);
    match Worker::start(settings, handlers) {
        Ok(worker) => worker.run(),
        Err(reason) => {
            error!("could not start: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn read_settings() -> Result<WorkerSettings<Dsn>, String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(LINE_BYTES_MAX)
        .read_line(&mut line)
        .map_err(|error| error.to_string())?;
    // The error of a wrong line could quote it, and with it the password.
    serde_json::from_str(&line).map_err(|error| {
        format!(
            "line 1, column {}: not the settings of this version",
            error.column()
        )
    })
}

struct Worker {
    shared: Arc<Shared>,
    fetcher_stop: Option<Sender<()>>,
    keeper_stop: Option<Sender<()>>,
    reporter: Option<Sender<()>>,
    finished: Option<Sender<Finished>>,
    /// The runners' end of the queue, from which a drain takes the events that are still queued.
    queue: Receiver<Claim>,
    stages: Vec<Thread>,
    /// The keeper and the sweeper, which run as long as there are leases to renew.
    keepers: Vec<Thread>,
    reporter_ended: Receiver<()>,
    ended: Receiver<String>,
    input_ended: Receiver<()>,
    signals: SignalThread,
}

impl Worker {
    fn start(settings: WorkerSettings<Dsn>, handlers: &Handlers) -> Result<Worker, String> {
        let signals = SignalThread::start().map_err(|error| format!("signal thread: {error}"))?;
        let (shared, channels) = Shared::new(settings, handlers)?;
        let shared = Arc::new(shared);
        let Channels {
            claims,
            queue,
            finished,
            outcomes,
            room,
        } = channels;
        let n_runners = shared.watchdog.n_runners();
        let (fetcher_stop, fetcher_stopped) = bounded(0);
        let (keeper_stop, keeper_stopped) = bounded(0);
        let (reporter, asked) = bounded(1);
        let (last_report, reporter_ended) = bounded::<()>(0);
        let (ended_sender, ended) = bounded(n_runners + 5);
        let (input_sender, input_ended) = bounded(0);

        let spawner = Spawner::new(Arc::clone(&shared), ended_sender);
        let mut stages = Vec::new();
        let ends = ends::Ends {
            claims,
            finished: finished.clone(),
            room,
            stop: fetcher_stopped,
        };
        stages.push(spawner.spawn("fetcher", move |shared| fetcher::run(ends, shared))?);
        for slot in 0..n_runners {
            let (queue, finished) = (queue.clone(), finished.clone());
            let name = format!("runner-{slot:02}");
            stages.push(spawner.spawn(&name, move |shared| {
                runner::run(slot, queue, finished, shared);
            })?);
        }
        stages.push(spawner.spawn("settler", move |shared| settler::run(outcomes, shared))?);
        // The channel holds nothing: the keeper hands over expired leases only while the sweeper
        // waits for them.
        let (expired_sender, expired) = bounded(0);
        let keepers = vec![
            spawner.spawn("keeper", move |shared| {
                keeper::run(keeper_stopped, expired_sender, shared);
            })?,
            spawner.spawn("sweeper", move |shared| sweeper::run(expired, shared))?,
        ];
        spawner.spawn("reporter", move |shared| {
            // The reporter drops it when the last report is written.
            let _last_report = last_report;
            reporter::run(asked, shared);
        })?;
        watch_input(input_sender).map_err(|error| format!("input thread: {error}"))?;
        Ok(Worker {
            shared,
            fetcher_stop: Some(fetcher_stop),
            keeper_stop: Some(keeper_stop),
            reporter: Some(reporter),
            finished: Some(finished),
            queue,
            stages,
            keepers,
            reporter_ended,
            ended,
            input_ended,
            signals,
        })
    }

    fn run(self) -> ExitCode {
        // Each log line of a worker begins with its name. This line is always written, so a program
        // that reads the log learns which worker runs in which slot.
        info!("started");
        debug!("its leases name it {}", self.shared.owner.worker);
        let looks = tick(LOOK_EVERY);
        loop {
            match self.next_event(&looks, &never()) {
                WorkerEvent::InputEnded => return self.drain(false),
                WorkerEvent::Signal(signal) => {
                    info!("{} received: draining", signal::name(signal));
                    return self.drain(true);
                }
                WorkerEvent::StageEnded(name) => {
                    error!("the {name} thread has ended unexpectedly; this worker ends, too");
                    self.give_up();
                }
                WorkerEvent::Look => {
                    let n_stuck = self.shared.watchdog.n_stuck();
                    self.shared
                        .metrics
                        .handlers_stuck
                        .set(i64::try_from(n_stuck).unwrap_or(i64::MAX));
                    if n_stuck == self.shared.watchdog.n_runners() {
                        error!(
                            "each runner is stuck in a handler over its timeout ({n_stuck} in all); this worker ends"
                        );
                        self.give_up();
                    }
                }
                WorkerEvent::DrainTimedOut => {}
            }
        }
    }

    fn next_event(&self, looks: &Receiver<Instant>, deadline: &Receiver<Instant>) -> WorkerEvent {
        select! {
            recv(self.input_ended) -> _ => WorkerEvent::InputEnded,
            recv(self.signals.received) -> signal => WorkerEvent::Signal(signal.expect("the signal thread outlives the loop")),
            recv(self.ended) -> name => WorkerEvent::StageEnded(name.expect("the reporter holds a sender")),
            recv(looks) -> _ => WorkerEvent::Look,
            recv(deadline) -> _ => WorkerEvent::DrainTimedOut,
        }
    }

    /// Stops claiming, gives back the events that were not started, lets the handlers finish, and
    /// settles everything. `is_signalled` says whether a signal was the order.
    fn drain(mut self, is_signalled: bool) -> ExitCode {
        let began = Instant::now();
        let n_in_flight = self.shared.ledger.in_flight();
        let deadline = after(self.shared.config.drain_timeout);
        self.stop_claiming();
        self.wait_for_stages(&deadline, is_signalled);
        let n_died = self
            .stages
            .drain(..)
            .chain(self.keepers.drain(..))
            .map(Thread::join)
            .filter(Result::is_err)
            .count();
        info!(
            "drained {} in flight in {} ms",
            counted(n_in_flight, "event"),
            began.elapsed().as_millis()
        );
        self.reporter = None;
        let _ = self.reporter_ended.recv_timeout(LAST_REPORT_WAIT);
        if n_died > 0 || self.shared.ledger.in_flight() > 0 {
            error!(
                "ended with {} in flight",
                counted(self.shared.ledger.in_flight(), "event")
            );
            return ExitCode::FAILURE;
        }
        if !self.shared.may_claim_late.load(Ordering::Relaxed) {
            self.shared.in_hand.remove();
        }
        ExitCode::SUCCESS
    }

    /// Ends the fetcher, at once or when its call does, and with it the queue's only sender.
    fn stop_claiming(&mut self) {
        self.shared.is_draining.store(true, Ordering::Relaxed);
        // A full channel means that a report is due anyway.
        let _ = self.reporter.as_ref().map(|reporter| reporter.try_send(()));
        self.fetcher_stop = None;
        self.release_queued();
        self.finished = None;
        // The channel is disconnected, and the loop would select it again and again.
        self.input_ended = never();
    }

    /// Waits until all stages have ended, and then the keeper and the sweeper, or gives up.
    fn wait_for_stages(&mut self, deadline: &Receiver<Instant>, mut is_signalled: bool) {
        let mut n_left = self.stages.len();
        let mut n_keepers = self.keepers.len();
        while n_left > 0 || n_keepers > 0 {
            if n_left == 0 {
                // There are no leases left to renew.
                self.keeper_stop = None;
            }
            match self.next_event(&never(), deadline) {
                WorkerEvent::StageEnded(name) => {
                    debug!("the {name} thread has ended");
                    match name.as_str() {
                        "keeper" | "sweeper" => n_keepers -= 1,
                        "reporter" => {}
                        _ => n_left -= 1,
                    }
                }
                WorkerEvent::DrainTimedOut => {
                    warn!(
                        "drain timed out with {} in flight",
                        counted(self.shared.ledger.in_flight(), "event")
                    );
                    self.give_up();
                }
                WorkerEvent::Signal(signal) if !is_signalled => {
                    // A signal to all processes of the daemon is one order, and the end of the
                    // input may have arrived before the signal.
                    is_signalled = true;
                    info!("{} received: draining already", signal::name(signal));
                }
                WorkerEvent::Signal(signal) => {
                    warn!(
                        "{} while draining: ending at once with {} in flight",
                        signal::name(signal),
                        counted(self.shared.ledger.in_flight(), "event")
                    );
                    self.give_up();
                }
                WorkerEvent::InputEnded | WorkerEvent::Look => {}
            }
        }
    }

    /// Gives back what waits in the queue. Runners that are free do the same with what they take
    /// from it while draining.
    fn release_queued(&self) {
        let Some(finished) = &self.finished else {
            return;
        };
        for mut claim in self.queue.try_iter() {
            claim.ticket.not_started();
            // The settler outlives this loop, and its channel has room for all that is in flight.
            let _ = finished.send(claim.finish(Outcome::Released));
        }
    }

    /// Ends the process without waiting for its threads. What was in hand stands in the in-hand
    /// file; the leases stay.
    fn give_up(&self) -> ! {
        self.shared.in_hand.kill_groups();
        process::kill_programs_of(&self.shared.owner.worker);
        logging::flush();
        // Returning would drop the connections, and dropping a connection to a stalled server could
        // block for ever.
        std::process::exit(1)
    }
}

/// Waits for the end of standard input, the order to drain. The thread is never joined: its read
/// may never return.
fn watch_input(ended: Sender<()>) -> io::Result<()> {
    threads::detach("input", move || {
        // Only another version would write more lines. An error means that the supervisor is gone.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(ended);
    })
}
