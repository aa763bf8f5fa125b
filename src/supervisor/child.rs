//! One worker process, as the supervisor knows it: a program with a settings line on standard
//! input, whose end means "drain", reports on standard output, and an in-hand file that names the
//! events that it was handling when it died.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{debug, warn};

use crate::domain::protocol::{Report, WorkerSettings};
use crate::store::dsn::Dsn;
use crate::supervisor::FleetEvent;
use crate::system::in_hand::{self, Leader, Remains};
use crate::system::{process, threads};

/// Longest report line that is read; a worker with a thousand routes writes less.
const REPORT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long to wait for the lock on the in-hand file of a dead worker: a program that the worker
/// was just starting may share it for a moment.
const UNLOCK_MAX: Duration = Duration::from_millis(100);

/// How long the supervisor waits for the last reports of a worker that has ended. A process that a
/// library handler started may hold the pipe open, so the pipe may never end.
const LAST_REPORTS_MAX: Duration = Duration::from_millis(500);

/// Variables that hold or point to the password: a worker gets its database through the pipe.
const SECRET_VARIABLES: &[&str] = &[
    "DISPATCHBOX_DSN",
    "DISPATCHBOX_DSN_FILE",
    "DATABASE_URL",
    "PGPASSWORD",
    "PGPASSFILE",
];

/// A running worker.
pub(super) struct WorkerProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    settings: WorkerSettings<Dsn>,
    /// When it was started.
    pub(super) started: Instant,
    /// When it last reported, or was started.
    last_report: Instant,
    /// How long its longest database call was out at its last report.
    longest_call: Duration,
    /// It was told to drain, or killed, so its end is expected.
    pub(super) is_leaving: bool,
    /// When it was seen to have ended.
    ended: Option<Instant>,
}

/// The condition of a worker.
pub(super) enum Condition {
    /// Nothing has to be done.
    Well,
    /// It has ended, and its report pipe has not.
    Gone,
    /// It is stuck, and has been for this time.
    Wedged(Duration),
}

/// How a worker ended.
pub(super) struct End {
    /// The exit status.
    pub(super) status: ExitStatus,
    /// Its settings.
    pub(super) settings: WorkerSettings<Dsn>,
    /// Its in-hand file, taken over; `None` when it had none any more.
    pub(super) remains: Option<Remains>,
}

impl WorkerProcess {
    /// Starts a worker. Only the main thread does: the worker must not die with another thread of
    /// ours.
    pub(super) fn start(
        settings: WorkerSettings<Dsn>,
        events: &Sender<FleetEvent>,
    ) -> io::Result<WorkerProcess> {
        let mut child = command().spawn()?;
        let started = Instant::now();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let mut worker = WorkerProcess {
            child,
            stdin,
            settings,
            started,
            last_report: started,
            longest_call: Duration::ZERO,
            is_leaving: false,
            ended: None,
        };
        if let Err(error) = worker.greet(stdout, events) {
            worker.kill();
            let _ = worker.child.wait();
            return Err(error);
        }
        Ok(worker)
    }

    fn greet(
        &mut self,
        stdout: Option<ChildStdout>,
        events: &Sender<FleetEvent>,
    ) -> io::Result<()> {
        let (Some(stdout), Some(stdin)) = (stdout, &mut self.stdin) else {
            return Err(io::Error::other("its pipes are missing"));
        };
        let mut line = serde_json::to_string(&self.settings)?;
        line.push('\n');
        let (slot, pid, events) = (self.settings.slot, self.child.id(), events.clone());
        threads::detach(&format!("reports-{slot:02}"), move || {
            read_reports(slot, pid, stdout, &events);
        })?;
        stdin.write_all(line.as_bytes())
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to drain, by the end of its input; needs no signal, so it cannot hit another
    /// process.
    pub(super) fn drain(&mut self) {
        self.is_leaving = true;
        drop(self.stdin.take());
    }

    /// Kills it at once. The processes of its handlers are killed when its end is noticed.
    pub(super) fn kill(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
    }

    /// Notes a report.
    pub(super) fn reported(&mut self, report: &Report) {
        self.last_report = Instant::now();
        self.longest_call = Duration::from_millis(report.longest_call_ms);
    }

    /// Forgets how long it has been silent.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.last_report = now;
        self.longest_call = Duration::ZERO;
    }

    /// Checks the worker. The thread that reads its reports sends its end after the last report.
    /// This check reports the end only if the thread does not.
    pub(super) fn look(&mut self, now: Instant, wedged_after: Duration) -> Condition {
        if self.ended.is_none() && process::has_ended(self.pid()) {
            self.ended = Some(now);
        }
        if let Some(ended) = self.ended {
            return if now.duration_since(ended) >= LAST_REPORTS_MAX {
                Condition::Gone
            } else {
                Condition::Well
            };
        }
        let silent = now.duration_since(self.last_report).max(self.longest_call);
        if silent >= wedged_after && !self.is_leaving {
            return Condition::Wedged(silent);
        }
        Condition::Well
    }

    /// Cleans up after a worker that has ended or was killed. It first ends the processes that
    /// handlers of the worker still run, while the worker's process id cannot be reused. Then it
    /// reaps the worker.
    pub(super) fn reap(mut self) -> End {
        // Until the process is really gone its file is locked, and it might still start a program.
        process::wait_for_end(self.pid());
        let path = self.in_hand_path();
        let remains = Remains::take_within(&path, UNLOCK_MAX);
        if let Some(remains) = &remains {
            remains.kill_groups(Leader::MayBeGone);
        }
        process::kill_programs_of(&self.settings.owner.worker);
        let status = self.child.wait().unwrap_or_default();
        End {
            status,
            settings: self.settings,
            remains,
        }
    }

    /// The path of its in-hand file.
    pub(super) fn in_hand_path(&self) -> PathBuf {
        in_hand::path(&self.settings.directory, &self.settings.in_hand_name)
    }
}

/// The same program as this one, even when its file was replaced since: a supervisor must not mix
/// versions.
fn command() -> Command {
    let own = Path::new("/proc/self/exe");
    let program: OsString = if own.exists() {
        own.into()
    } else {
        std::env::current_exe().map_or_else(|_| "dispatchbox".into(), Into::into)
    };
    let mut command = Command::new(program);
    command
        .arg0("dispatchbox")
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A group of its own: Ctrl-C in a shell reaches the supervisor alone.
        .process_group(0);
    for variable in SECRET_VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// Passes reports on until the pipe ends, and then the worker's end itself.
fn read_reports(slot: u16, pid: u32, stdout: ChildStdout, events: &Sender<FleetEvent>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    let mut has_complained = false;
    loop {
        line.clear();
        match reader
            .by_ref()
            .take(REPORT_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if line == b"\n" {
            // Each report begins with one.
            continue;
        }
        match Report::decode(&line) {
            Ok(report) => {
                if events.send(FleetEvent::Report(slot, pid, report)).is_err() {
                    return;
                }
            }
            Err(_) if has_complained => {}
            Err(_) => {
                has_complained = true;
                warn!(
                    "worker-{slot:02} wrote something to standard output that is no report; a handler must not print there"
                );
            }
        }
    }
    process::wait_for_end(pid);
    debug!("worker-{slot:02} (pid {pid}) has ended");
    // If the supervisor is gone the event is of no use.
    let _ = events.send(FleetEvent::Ended(slot, pid));
}
