//! The daemons: started, killed, frozen, and started again. Each has a runtime directory of its
//! own, as if it ran on a host of its own.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::dev::chaos::handler::CHAOS_DAEMON;
use crate::dev::chaos::kind::LEASE;
use crate::dev::chaos::plan::HOSTS;
use crate::dev::launch::{Daemon, Launch};
use crate::system::pause::sleep_uninterruptibly;
use crate::system::process::{self, children};

/// Workers of each daemon.
const PROCESSES: usize = 2;

/// Runners of each worker.
pub(super) const MAX_PARALLEL: usize = 6;

/// Longest drain of a daemon, in seconds: longer than a slow event and a locked table together.
const DRAIN_SECONDS: u32 = 20;

/// How long the processes of killed daemons may take to go.
const GONE_MAX: Duration = Duration::from_secs(30);

/// Pause between two looks whether they have gone.
const GONE_LOOK: Duration = Duration::from_millis(50);

/// The daemons.
pub(super) struct Fleet {
    hosts: Vec<Host>,
    place: Place,
    /// Daemons that have ended, or whose workers are just ending.
    ended: Vec<Daemon>,
    /// Children of ours that are no daemons.
    others: Vec<u32>,
}

/// Where the daemons run.
pub(super) struct Place {
    /// The DSN.
    pub(super) dsn: String,
    /// Variables of their environment.
    pub(super) variables: BTreeMap<String, String>,
    /// Their configuration file.
    pub(super) config: PathBuf,
    /// The directory of their logs and of their runtime directories.
    pub(super) directory: PathBuf,
}

struct Host {
    number: usize,
    n_starts: u32,
    daemon: Option<Daemon>,
    /// When the next one is started, where none runs.
    start_at: Instant,
    /// How long after its end.
    away: Duration,
    /// The runtime directory is lost with the daemon.
    is_lost: bool,
    /// The daemon was told to drain.
    is_leaving: bool,
}

impl Fleet {
    /// Starts the daemons.
    pub(super) fn start(place: Place) -> io::Result<Fleet> {
        let now = Instant::now();
        let host = |number| Host {
            number,
            n_starts: 0,
            daemon: None,
            start_at: now,
            away: Duration::ZERO,
            is_lost: false,
            is_leaving: false,
        };
        let mut fleet = Fleet {
            hosts: (0..HOSTS).map(host).collect(),
            place,
            ended: Vec::new(),
            others: children(std::process::id()),
        };
        fleet.look()?;
        Ok(fleet)
    }

    /// Starts what is to be started, and notes what has ended.
    pub(super) fn look(&mut self) -> io::Result<()> {
        for host in &mut self.hosts {
            if host.daemon.as_mut().is_some_and(Daemon::has_ended) {
                self.ended.extend(host.daemon.take());
                host.start_at = Instant::now() + std::mem::take(&mut host.away);
            }
            if host.daemon.is_none() && host.start_at <= Instant::now() {
                if std::mem::take(&mut host.is_lost) {
                    fs::remove_dir_all(host.directory(&self.place.directory))?;
                }
                host.start(&self.place)?;
            }
        }
        let known: Vec<u32> = self.daemons().map(Daemon::shell).collect();
        process::reap_orphans(|child| known.contains(&child) || self.others.contains(&child));
        Ok(())
    }

    /// The supervisor of a host, if it runs.
    pub(super) fn supervisor(&self, host: usize) -> Option<u32> {
        let pid = self.hosts[host].daemon.as_ref()?.pid()?;
        is_program(pid, CHAOS_DAEMON).then_some(pid)
    }

    /// The workers of a host whose supervisor runs.
    pub(super) fn workers(&self, host: usize) -> Vec<u32> {
        let supervisor = self.supervisor(host);
        let mut workers: Vec<u32> = supervisor.map_or_else(Vec::new, children);
        workers.retain(|&pid| is_program(pid, "worker"));
        workers
    }

    /// Says how long the host stays away after the end of its daemon, and whether its files go.
    pub(super) fn stays_away(&mut self, host: usize, away: Duration, is_lost: bool) {
        self.hosts[host].away = away;
        self.hosts[host].is_lost |= is_lost;
    }

    /// Tells the daemon of a host to drain, unless it does already: a second order would kill its
    /// workers, which is another fault.
    pub(super) fn drain(&mut self, host: usize) {
        if self.hosts[host].is_leaving {
            return;
        }
        if let Some(supervisor) = self.supervisor(host) {
            signal(supervisor, Signal::TERM);
            self.hosts[host].is_leaving = true;
        }
    }

    /// Says whether a daemon runs on each host, and is to stay. To tell one to drain twice ends it
    /// at once.
    pub(super) fn is_whole(&self) -> bool {
        let stays = |host: &Host| host.daemon.is_some() && !host.is_leaving;
        self.hosts.iter().all(stays)
    }

    /// Starts all that is to be started, whenever that was to be.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        for host in &mut self.hosts {
            host.start_at = Instant::now();
            host.away = Duration::ZERO;
        }
        self.look()
    }

    /// Stops the daemons, and returns how those ended that did not end well.
    pub(super) fn stop(&mut self) -> Vec<String> {
        let mut bad_ends = Vec::new();
        let mut running: Vec<(String, Daemon)> = Vec::new();
        for host in &mut self.hosts {
            let name = host.log_name();
            running.extend(host.daemon.take().map(|daemon| (name, daemon)));
        }
        for (name, daemon) in running {
            bad_ends.extend(daemon.stop().err().map(|how| format!("{how} ({name})")));
        }
        for daemon in self.ended.drain(..) {
            // It was ended, in one way or another.
            let _ = daemon.stop();
        }
        bad_ends
    }

    /// Kills all daemons at once: the person does not want to wait.
    pub(super) fn kill(&mut self) {
        for host in 0..HOSTS {
            if let Some(supervisor) = self.supervisor(host) {
                for pid in tree(supervisor) {
                    signal(pid, Signal::KILL);
                }
            }
        }
    }

    /// The processes and files that are left when the daemons have been stopped.
    pub(super) fn left(&self) -> Vec<String> {
        let began = Instant::now();
        let own = std::process::id();
        let strangers = || {
            process::reap_orphans(|child| self.others.contains(&child));
            let mut children = children(own);
            children.retain(|child| !self.others.contains(child));
            children
        };
        while !strangers().is_empty() && began.elapsed() < GONE_MAX {
            sleep_uninterruptibly(GONE_LOOK);
        }
        let processes = strangers().into_iter().map(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("process {pid}, {}", command.replace('\0', " ").trim_end())
        });
        let files = self
            .hosts
            .iter()
            .flat_map(|host| fs::read_dir(host.directory(&self.place.directory)))
            .flatten()
            .flatten()
            .map(|entry| format!("file {}", entry.path().display()));
        processes.chain(files).collect()
    }

    fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        let running = self.hosts.iter().filter_map(|host| host.daemon.as_ref());
        running.chain(&self.ended)
    }
}

impl Host {
    fn directory(&self, parent: &Path) -> PathBuf {
        parent.join(format!("host-{}", self.number))
    }

    fn log_name(&self) -> String {
        format!("daemon-{}-{:03}.log", self.number, self.n_starts)
    }

    fn start(&mut self, place: &Place) -> io::Result<()> {
        self.n_starts += 1;
        self.is_leaving = false;
        let directory = self.directory(&place.directory);
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&directory)?;
        let [processes, max_parallel] = [PROCESSES, MAX_PARALLEL].map(|n| n.to_string());
        let (lease, drain) = (LEASE.as_secs().to_string(), DRAIN_SECONDS.to_string());
        let config = place.config.display().to_string();
        self.daemon = Some(Daemon::start(&Launch {
            command: CHAOS_DAEMON,
            dsn: &place.dsn,
            variables: &place.variables,
            directory: Some(&directory),
            args: &[
                "--config",
                &config,
                "--processes",
                &processes,
                "--max-parallel",
                &max_parallel,
                "--lease-seconds",
                &lease,
                "--drain-timeout",
                &drain,
                "--poll-interval",
                "0.5",
                "--http-host",
                "127.0.0.1",
                "--http-port",
                "0",
            ],
            log: Some(&place.directory.join(self.log_name())),
        })?);
        Ok(())
    }
}

/// A process and all below it.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut at = 0;
    while at < pids.len() {
        pids.extend(children(pids[at]));
        at += 1;
    }
    pids
}

/// Sends a signal. A process that has just ended needs none.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Says whether the process is this program with this command.
fn is_program(pid: u32, command: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).nth(1) == Some(command.as_bytes())
}
