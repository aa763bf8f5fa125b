//! One worker process, as the supervisor knows it: a program with a settings line on standard input, whose end means "drain",
//! reports on standard output, and an in-hand file that tells what it was doing when it died.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{debug, warn};

use crate::in_hand::{self, Remains};
use crate::process;
use crate::report::Report;
use crate::settings::WorkerSettings;
use crate::supervisor::FleetEvent;

/// Longest report line that is read; a worker with a thousand routes writes less.
const REPORT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A program that the worker was just starting may share its lock for a moment.
const UNLOCK_MAX: Duration = Duration::from_millis(100);

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
    settings: WorkerSettings,
    /// When it was started.
    pub(super) started: Instant,
    /// When it last reported, or was started.
    pub(super) last_report: Instant,
    /// How long its longest database call was out at its last report.
    pub(super) longest_call: Duration,
    /// It was told to drain, or killed: its end is no surprise.
    pub(super) is_leaving: bool,
}

/// How a worker ended.
pub(super) struct End {
    /// What `wait` said.
    pub(super) status: ExitStatus,
    /// Who it was.
    pub(super) settings: WorkerSettings,
    /// Its in-hand file, taken over; `None` when it had none any more.
    pub(super) remains: Option<Remains>,
}

impl WorkerProcess {
    /// Starts a worker. Only the main thread does: the worker must not die with another thread of ours.
    pub(super) fn start(
        settings: WorkerSettings,
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
        thread::Builder::new()
            .name(format!("reports-{slot:02}"))
            .spawn(move || read_reports(slot, pid, stdout, &events))?;
        stdin.write_all(line.as_bytes())
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to drain, by the end of its input; needs no signal, so it cannot hit another process.
    pub(super) fn drain(&mut self) {
        self.is_leaving = true;
        drop(self.stdin.take());
    }

    /// Ends it at once. What its handlers run is killed when its end is noticed.
    pub(super) fn kill(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
    }

    /// Cleans up after a worker that has ended or was killed: first what its handlers still run, while its number cannot be reused, then itself.
    pub(super) fn bury(mut self) -> End {
        // Until it is really gone its file is locked, and it might still start something.
        process::wait_for_end(self.pid());
        let path = self.in_hand_path();
        let remains = Remains::take_within(&path, UNLOCK_MAX);
        for group in remains
            .iter()
            .flat_map(|remains| &remains.in_hand)
            .map(|in_hand| in_hand.group)
        {
            process::kill_group(group);
        }
        process::kill_programs_of(&self.settings.owner.worker);
        let status = self.child.wait().unwrap_or_default();
        End {
            status,
            settings: self.settings,
            remains,
        }
    }

    fn in_hand_path(&self) -> PathBuf {
        in_hand::path(&self.settings.directory, &self.settings.in_hand_name)
    }
}

/// The same program as this one, even when its file was replaced since: a supervisor must not mix versions.
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
        match std::str::from_utf8(&line)
            .map_err(|_| ())
            .and_then(|line| Report::decode(line).map_err(|_| ()))
        {
            Ok(report) => {
                if events.send(FleetEvent::Report(slot, pid, report)).is_err() {
                    return;
                }
            }
            Err(()) if has_complained => {}
            Err(()) => {
                has_complained = true;
                warn!(
                    "worker-{slot:02} wrote something to standard output that is no report; a handler must not print there"
                );
            }
        }
    }
    process::wait_for_end(pid);
    debug!("worker-{slot:02} (pid {pid}) has ended");
    // The supervisor may be gone by now, and then nobody needs to know.
    let _ = events.send(FleetEvent::Ended(slot, pid));
}
