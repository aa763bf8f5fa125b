//! The shell that stands between this process and the server: it executes commands, and cleans up
//! when the process that sends them has ended.
//!
//! Why not a `Drop`: it does not run in a static, nor after SIGKILL. Why not a signal from the
//! kernel (PDEATHSIG): the server would get it when the thread ends, not when the process ends, and
//! the directory would stay.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use rustix::process::Pid;

use crate::dev::cluster::programs::{find_programs, server_user};
use crate::dev::cluster::{ClusterError, ServerSettings};
use crate::system::process::Stat;

/// Parent of the directories. Socket paths end at 107 bytes, so it is not `TMPDIR`, which may be
/// long.
const PARENT: &str = "/tmp";

/// Longest wait for the server to accept connections: a start takes 0.1 s, a recovery after an
/// immediate stop some seconds.
const START_MAX: Duration = Duration::from_mins(1);

/// Pause between two looks at whether the server is ready.
const START_POLL: Duration = Duration::from_millis(5);

/// Lines of the server's log that an error shows.
const LOG_LINES: usize = 8;

/// Executes one command per line and answers each with `exit status, pid of the server`. SIGQUIT
/// alone would leave a stopped server (SIGSTOP) hanging for ever, hence SIGCONT for the server and
/// the processes it has forked. After `keep` the server outlives the pipe; the directory is removed
/// when the server ends. An answer to a closed pipe must not end the shell before it has cleaned
/// up, hence the trap. Were the signal ignored instead, the server would inherit that and ignore
/// it, too.
const DEADMAN: &str = r#"
trap : PIPE
directory=$1 binaries=$2; shift 2
exec 2>>"$directory/log"
server= keep=
while read -r command argument; do
  case $command in
    init) "$binaries/initdb" -N -D "$directory/data" -U postgres -A trust -E UTF8 --locale=C </dev/null >&2 ;;
    copy) cp -Rp "$argument/data" "$directory/data" >&2 ;;
    follow)
      # Of a running server some files vanish meanwhile; what has to be there is missed at the start.
      cp -Rp "$argument/data" "$directory/data" >&2
      cd "$directory/data" && rm -f postmaster.pid postmaster.opts && : >standby.signal && : >backup_label
      ok=$?; cd /; [ "$ok" = 0 ] ;;
    start) "$binaries/postgres" -D "$directory/data" "$@" </dev/null >&2 & server=$! ;;
    stop) kill -s "$argument" "$server"; wait "$server"; server=; true ;;
    keep) keep=1 ;;
  esac
  echo "$? $server"
done
if [ -n "$server" ]; then
  if [ -z "$keep" ]; then
    kill -s QUIT "$server"
    kill -s CONT "$server" $(cat "/proc/$server/task/$server/children")
  fi
  wait "$server"
fi
rm -rf "$directory"
"#;

/// The shell that owns the directory and the server, and the pipe whose end makes it stop the
/// server and exit.
#[derive(Debug)]
pub(super) struct Deadman {
    pub(super) directory: PathBuf,
    shell: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Deadman {
    pub(super) fn start(settings: &ServerSettings) -> Result<Deadman, ClusterError> {
        let programs = find_programs()?;
        let user = server_user()?;
        let directory = make_directory(user)?;

        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", DEADMAN, "dispatchbox-cluster"])
            .args([&directory, &programs])
            .arg("-k")
            .arg(&directory)
            .args(
                settings
                    .parameters
                    .iter()
                    .map(|(name, value)| format!("--{name}={value}")),
            )
            // The server's user may not enter the caller's directory.
            .current_dir("/")
            .env("LC_ALL", "C")
            // Ctrl-C is for the caller, which then ends the cluster in its own order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.envs(settings.variables.iter().map(|(name, value)| (name, value)));
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        let mut shell = command.spawn().map_err(|source| {
            // No other code removes this directory. It is empty, and an error here is also the
            // error below.
            let _ = fs::remove_dir(&directory);
            ClusterError::Shell {
                doing: "start a private cluster".to_owned(),
                source,
            }
        })?;
        let orders = shell.stdin.take();
        let answers = shell.stdout.take().expect("stdout was asked to be a pipe");
        Ok(Deadman {
            directory,
            shell,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Sends one command to the shell and waits for its answer; returns the server's pid, if there
    /// is a server.
    pub(super) fn order(
        &mut self,
        doing: &'static str,
        order: &str,
    ) -> Result<Option<Pid>, ClusterError> {
        let answer = self.exchange(order).map_err(|source| ClusterError::Shell {
            doing: doing.to_owned(),
            source,
        })?;
        let mut words = answer.split_whitespace();
        let status: Option<i32> = words.next().and_then(|word| word.parse().ok());
        let server = words.next().and_then(|word| word.parse().ok());
        match status {
            Some(0) => Ok(server.and_then(Pid::from_raw)),
            _ => Err(self.refused(doing)),
        }
    }

    fn exchange(&mut self, order: &str) -> io::Result<String> {
        let orders = self
            .orders
            .as_mut()
            .expect("the pipe is closed only in drop");
        writeln!(orders, "{order}")?;
        let mut answer = String::new();
        match self.answers.read_line(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer),
        }
    }

    /// Waits until the server accepts connections, as `pg_ctl` does: by the status line of its pid
    /// file. The pid is compared, because an immediate stop leaves the old file behind.
    pub(super) fn wait_ready(&self, server: Pid) -> Result<(), ClusterError> {
        let since = Instant::now();
        let pid = server.as_raw_nonzero().to_string();
        while since.elapsed() < START_MAX && is_alive(server) {
            let file =
                fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = file.lines().map(str::trim).collect();
            if lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready") {
                return Ok(());
            }
            let _ = after(START_POLL).recv();
        }
        Err(self.refused("start the server"))
    }

    pub(super) fn refused(&self, doing: &'static str) -> ClusterError {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        ClusterError::Refused {
            doing,
            log: lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"),
        }
    }
}

impl Drop for Deadman {
    fn drop(&mut self) {
        drop(self.orders.take());
        // A shell that has ended has cleaned up already.
        let _ = self.shell.wait();
    }
}

/// Makes a new directory and never takes an existing one: any user can guess a name under /tmp and
/// create it first.
fn make_directory(user: Option<(u32, u32)>) -> Result<PathBuf, ClusterError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{PARENT}/dispatchbox-{}-{n}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => break path,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(ClusterError::Directory { path, source }),
        }
    };
    if let Some((uid, gid)) = user
        && let Err(source) = chown(&path, Some(uid), Some(gid))
    {
        // The directory is empty and ours; the error that matters is the one above.
        let _ = fs::remove_dir(&path);
        return Err(ClusterError::Directory { path, source });
    }
    Ok(path)
}

/// Says whether the process runs; a zombie does not.
fn is_alive(pid: Pid) -> bool {
    Stat::of(pid.as_raw_nonzero().get().unsigned_abs()).is_some_and(|stat| stat.state != 'Z')
}
