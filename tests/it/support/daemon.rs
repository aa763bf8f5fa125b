//! The real program, started as an operator starts it.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::database::TestDb;
use super::directory::TestDir;
use super::exchange::{self, Answer, metric_in};
use super::recorder::Recorder;
use super::{process, wait_until};

/// What stands before the address in the log.
const LISTENING: &str = "listening on http://";

/// How a daemon is to be started: `dispatchbox run --dsn … --http-host 127.0.0.1 --http-port 0` and
/// what is added here.
pub struct Daemon {
    dsn: Vec<String>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    host: Option<String>,
    port: String,
    program: PathBuf,
}

impl Daemon {
    /// A daemon on this database.
    pub fn new(db: &TestDb) -> Daemon {
        Daemon::with(["--dsn".to_owned(), db.dsn()])
    }

    /// A daemon on the database that a file names.
    pub fn at(dsn_file: &str) -> Daemon {
        Daemon::with(["--dsn-file".to_owned(), dsn_file.to_owned()])
    }

    fn with(dsn: [String; 2]) -> Daemon {
        Daemon {
            dsn: dsn.to_vec(),
            args: Vec::new(),
            env: Vec::new(),
            host: Some("127.0.0.1".to_owned()),
            port: "0".to_owned(),
            program: env!("CARGO_BIN_EXE_dispatchbox").into(),
        }
    }

    /// Sets another DSN, which leads to the database by another way.
    #[must_use]
    pub fn dsn(mut self, dsn: String) -> Daemon {
        self.dsn = vec!["--dsn".to_owned(), dsn];
        self
    }

    /// Gives the DSN in a file.
    #[must_use]
    pub fn dsn_file(mut self, path: &str) -> Daemon {
        self.dsn = vec!["--dsn-file".to_owned(), path.to_owned()];
        self
    }

    /// Gives no DSN: arguments or variables that are added say where the database is.
    #[must_use]
    pub fn without_dsn(mut self) -> Daemon {
        self.dsn.clear();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Daemon {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Starts another program that is a whole daemon, too.
    #[must_use]
    pub fn program(mut self, program: PathBuf) -> Daemon {
        self.program = program;
        self
    }

    /// Listens at this address instead of 127.0.0.1.
    #[must_use]
    pub fn host(mut self, host: &str) -> Daemon {
        self.host = Some(host.to_owned());
        self
    }

    /// Names no address to listen at.
    #[must_use]
    pub fn without_host(mut self) -> Daemon {
        self.host = None;
        self
    }

    /// Asks for this port instead of any free one.
    #[must_use]
    pub fn port(mut self, port: &str) -> Daemon {
        port.clone_into(&mut self.port);
        self
    }

    /// Adds one argument pair `--route pattern=…`.
    #[must_use]
    pub fn route(self, route: impl Into<OsString>) -> Daemon {
        self.args([OsString::from("--route"), route.into()])
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Daemon {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it with one route, to handlers that wait until the recorder's gate is opened, and
    /// waits until `n` of them run.
    #[track_caller]
    pub fn start_gated(self, n: usize) -> (Recorder, RunningDaemon) {
        let recorder = Recorder::new().gated();
        let daemon = self.route(recorder.route("*")).start();
        recorder.wait_runs(n);
        (recorder, daemon)
    }

    /// Starts the program; does not wait for anything.
    pub fn start(self) -> RunningDaemon {
        let directory = TestDir::new();
        // What a developer has set for a daemon of their own, libpq's variables included.
        let foreign = env::vars_os().map(|(name, _)| name).filter(|name| {
            let name = name.to_string_lossy();
            ["DISPATCHBOX_", "DATABASE_URL", "PG"]
                .iter()
                .any(|begin| name.starts_with(begin))
        });
        let mut command = Command::new(&self.program);
        foreign.for_each(|name| {
            command.env_remove(name);
        });
        let mut child = command
            .arg("run")
            .args(&self.dsn)
            .args(self.host.iter().flat_map(|host| ["--http-host", host]))
            .args(["--http-port", &self.port])
            .args(&self.args)
            .env_remove("RUNTIME_DIRECTORY")
            .env("TMPDIR", directory.path())
            .envs(self.env)
            // The daemon has a process group of its own, as under a shell with job control, so that
            // a signal to its group is no signal to the tests.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let for_thread = Arc::clone(&log);
        let pause = LogPause::default();
        let its_pause = pause.clone();
        let logger = thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                its_pause.wait();
                let mut log = for_thread.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
            }
        });
        RunningDaemon {
            child,
            directory,
            log,
            pause,
            logger: Some(logger),
        }
    }
}

/// Keeps the log from being read while it is set.
#[derive(Clone, Default)]
struct LogPause(Arc<(Mutex<bool>, Condvar)>);

impl LogPause {
    fn set(&self, is_paused: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = is_paused;
        self.0.1.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let paused = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_while(paused, |is_paused| *is_paused);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// A daemon that was started. Dropping it kills what is left of it, and prints its log if the test
/// has failed.
pub struct RunningDaemon {
    child: Child,
    directory: TestDir,
    log: Arc<Mutex<String>>,
    pause: LogPause,
    logger: Option<JoinHandle<()>>,
}

impl RunningDaemon {
    /// The supervisor's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// Reads its stderr no more, until [`RunningDaemon::resume_log`].
    pub fn pause_log(&self) {
        self.pause.set(true);
    }

    /// Reads its stderr again.
    pub fn resume_log(&self) {
        self.pause.set(false);
    }

    /// Waits for the port and returns it.
    #[track_caller]
    pub fn http_port(&self) -> u16 {
        let port = || {
            let log = self.log();
            let (address, _) = log.split_once(LISTENING)?.1.split_once('\n')?;
            address.rsplit_once(':')?.1.parse().ok()
        };
        wait_until("the daemon logs its port", || port().is_some());
        port().unwrap()
    }

    /// Waits until /ready answers 200.
    #[track_caller]
    pub fn wait_ready(&self) -> &RunningDaemon {
        wait_until("the daemon is ready", || {
            self.try_request("GET", "/ready", "", "")
                .is_some_and(|(status, _)| status == 200)
        });
        self
    }

    /// GETs a path: status and body.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, "", "")
    }

    /// POSTs a body: status and body.
    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.request("POST", path, "", body)
    }

    /// Sends one request with further header lines, each with its `\r\n`: status and body.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        self.try_request(method, path, headers, body)
            .unwrap_or_else(|| panic!("no HTTP answer to {method} {path}"))
    }

    /// Sends one request as `request` does; `None` when there is no complete answer.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Option<(u16, String)> {
        let host = format!("127.0.0.1:{}", self.http_port());
        let headers = format!("Host: {host}\r\n{headers}");
        let answer = self.try_exchange("127.0.0.1", method, path, &headers, body)?;
        Some((answer.status, answer.body))
    }

    /// Sends one request to this address with exactly these header lines beside Connection and
    /// Content-Length.
    #[track_caller]
    pub fn exchange(
        &self,
        address: &str,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Answer {
        self.try_exchange(address, method, path, headers, body)
            .unwrap_or_else(|| panic!("no HTTP answer to {method} {path}"))
    }

    fn try_exchange(
        &self,
        address: &str,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Option<Answer> {
        exchange::ask((address, self.http_port()), method, path, headers, body)
    }

    /// The sum of the metric's time series that have all these labels; `None` when there is none.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        metric_in(&text, name, labels)
    }

    /// Signals the supervisor.
    pub fn signal(&self, signal: Signal) {
        signal_pid(self.pid(), signal);
    }

    /// Kills the supervisor alone, and waits for it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills the supervisor and all its workers, so that none of them notices the end of another
    /// one.
    ///
    /// The supervisor is stopped meanwhile, and not the workers: a stopped worker would be woken by
    /// its supervisor's death, since the kernel sends SIGHUP and SIGCONT to a group that is
    /// orphaned while a member is stopped.
    pub fn kill_tree(&mut self) {
        let workers = self.worker_pids();
        self.signal(Signal::STOP);
        wait_until("the supervisor is stopped", || {
            process::is_stopped(self.pid())
        });
        for &worker in &workers {
            signal_pid(worker, Signal::KILL);
        }
        wait_until("the workers are gone", || {
            !workers.iter().any(|&worker| process::is_alive(worker))
        });
        self.kill();
    }

    /// Waits until the log holds this text.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        wait_until(&format!("`{text}` in the log"), || {
            self.log().contains(text)
        });
    }

    /// Waits for the supervisor's end.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.read_log_to_its_end();
        status.unwrap()
    }

    /// Waits for the supervisor's end, and for this exit code.
    #[track_caller]
    pub fn assert_exits(&mut self, code: i32) {
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(code), "{}", self.log());
    }

    /// Waits until all that the ended supervisor wrote is in the log; a worker that outlives it may
    /// hold the pipe open for longer.
    fn read_log_to_its_end(&self) {
        const LIMIT: Duration = Duration::from_secs(2);
        let since = Instant::now();
        let is_read = || self.logger.as_ref().is_none_or(JoinHandle::is_finished);
        while !is_read() && !self.pause.is_set() && since.elapsed() < LIMIT {
            super::wait::pause(Duration::from_millis(1));
        }
    }

    /// Sends SIGTERM and waits for the end: the exit code, or the negative number of the signal
    /// that ended it.
    #[track_caller]
    pub fn terminate(&mut self) -> i32 {
        self.signal(Signal::TERM);
        let status = self.wait_exit();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        status.code().unwrap_or_else(|| -signal.unwrap())
    }

    /// The running workers: the children that run the supervisor's own program (a handler's orphans
    /// are its children, too).
    pub fn worker_pids(&self) -> Vec<u32> {
        let program = process::program(self.pid());
        process::children(self.pid())
            .into_iter()
            .filter(|&pid| program.is_some() && process::program(pid) == program)
            .collect()
    }

    /// Waits for `n` workers and returns them.
    #[track_caller]
    pub fn wait_workers(&self, n: usize) -> Vec<u32> {
        wait_until("all workers run", || self.worker_pids().len() == n);
        self.worker_pids()
    }

    /// Every process that still runs on behalf of this daemon.
    pub fn processes(&self) -> Vec<u32> {
        process::with_environment(&format!("TMPDIR={}\0", self.directory.path().display()))
    }

    /// What lies in its temporary directory.
    pub fn remaining_files(&self) -> Vec<PathBuf> {
        self.directory.entries()
    }

    /// Nothing lies in its temporary directory.
    #[track_caller]
    pub fn assert_no_files(&self) {
        let files = self.remaining_files();
        assert!(files.is_empty(), "{files:?}");
    }
}

impl Drop for RunningDaemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Workers notice the end of the supervisor by themselves; a worker that a test has stopped,
        // or whose handler it blocks, must not be left behind.
        for pid in self.processes() {
            signal_pid(pid, Signal::KILL);
        }
        self.resume_log();
        if let Some(logger) = self.logger.take() {
            let _ = logger.join();
        }
        if thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}---", self.log());
        }
    }
}

/// Signals a process; one that is gone already needs none.
pub fn signal_pid(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}
