//! The real daemon as a child of this process, for the demo, the bench and the chaos.
//!
//! Between the two processes is a small shell that holds one end of a pipe. When the pipe ends, for
//! whatever reason, the shell asks the daemon to drain. So a killed demo leaves no daemon behind
//! that would look for its database for ever.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::system::process::children;
use crate::system::threads::{self, Thread};

/// Starts the daemon, waits for it and exits with its status. The guard is the process that waits
/// for the pipe. It must not outlive the daemon, whose number may belong to another process then.
/// Unless it is given a directory, the daemon has files of its own: what it leaves for the next
/// daemon, when it is killed, is of no use then.
const SHELL: &str = r#"
exec 3<&0
own=
if [ -z "$RUNTIME_DIRECTORY" ]; then
  own=$(mktemp -d) || exit
  RUNTIME_DIRECTORY=$own
fi
export RUNTIME_DIRECTORY
"$@" </dev/null 3<&- &
daemon=$!
{ read -r _; kill -s TERM "$daemon"; } <&3 2>/dev/null &
guard=$!
exec 3<&- 0</dev/null
wait "$daemon" 2>/dev/null
status=$?
kill "$guard" 2>/dev/null
[ -z "$own" ] || rm -rf "$own"
exit "$status"
"#;

/// The shell's exit status for a daemon that was ended by SIGTERM: it was asked to drain before it
/// had begun to listen to signals.
const ENDED_BY_TERM: i32 = 128 + 15;

/// Text of the log that stands before the address.
const LISTENING: &str = "listening on ";

/// How to start the daemon.
#[derive(Debug)]
pub struct Launch<'a> {
    /// `run`, or a command with the same options.
    pub command: &'a str,
    /// The DSN. It travels in the environment, which only the same user can read.
    pub dsn: &'a str,
    /// Variables of its environment: libpq's, of which it gets to see no others, and further ones.
    pub variables: &'a BTreeMap<String, String>,
    /// Where it keeps what the next daemon needs if it is killed; without, in a directory that goes
    /// with it.
    pub directory: Option<&'a Path>,
    /// Options of the command.
    pub args: &'a [&'a str],
    /// The file that gets its log; without a file it goes to our standard error.
    pub log: Option<&'a Path>,
}

/// A running daemon. Dropping it lets it drain, and waits for that.
#[derive(Debug)]
pub struct Daemon {
    shell: Child,
    log: Option<Thread<()>>,
    /// Receives the URL once the daemon listens; its end is the end of the daemon.
    pub urls: Receiver<String>,
}

impl Daemon {
    /// Starts the same program.
    pub fn start(launch: &Launch<'_>) -> io::Result<Daemon> {
        let log: Box<dyn Write + Send> = match launch.log {
            Some(path) => Box::new(File::create(path)?),
            None => Box::new(io::stderr()),
        };
        // It is not `/proc/self/exe`, which would be the shell's own program, and not the path, at
        // which another version may be by now.
        let program = format!("/proc/{}/exe", std::process::id());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SHELL, "dispatchbox-daemon", &program, launch.command])
            .args(launch.args);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            // Settings that the user has made for another daemon do not apply to this one.
            if ["DISPATCHBOX_", "PG", "DATABASE_URL", "RUNTIME_DIRECTORY"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
            {
                command.env_remove(&name);
            }
        }
        let mut shell = command
            .env("DISPATCHBOX_DSN", launch.dsn)
            .envs(launch.variables)
            .envs(launch.directory.map(|path| ("RUNTIME_DIRECTORY", path)))
            // Ctrl-C is meant for this process, which closes the pipe.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = shell.stderr.take().expect("stderr was asked to be a pipe");
        let (sender, urls) = bounded(1);
        let log = threads::start("daemon-log", move || pass_on(stderr, log, &sender))?;
        Ok(Daemon {
            shell,
            log: Some(log),
            urls,
        })
    }

    /// The supervisor's process id, once there is one.
    pub fn pid(&self) -> Option<u32> {
        // The shell starts the daemon before the guard.
        children(self.shell.id()).first().copied()
    }

    /// The process of ours that waits for the daemon.
    pub fn shell(&self) -> u32 {
        self.shell.id()
    }

    /// Says whether the daemon has ended, in whatever way. Its workers may live on.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.shell.try_wait(), Ok(None))
    }

    /// Lets the daemon drain and waits for its end; an error says how it ended otherwise.
    pub fn stop(mut self) -> Result<(), String> {
        let has_ended = matches!(self.urls.try_recv(), Err(TryRecvError::Disconnected));
        let status = self
            .end()
            .map_err(|error| format!("the daemon was lost: {error}"))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(ENDED_BY_TERM) if !has_ended => Ok(()),
            Some(code) => Err(format!("the daemon ended with exit code {code}")),
            None => Err(format!("the daemon's shell ended: {status}")),
        }
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        // `wait` closes the pipe first.
        let status = self.shell.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.log.is_some() {
            // A drop cannot return the status.
            let _ = self.end();
        }
    }
}

/// Passes the log on until its end, and sends the URL that stands in it to `urls`.
fn pass_on(stderr: ChildStderr, mut log: impl Write, urls: &Sender<String>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // A closed standard error or a full disk is no reason to stop the daemon.
        let _ = writeln!(log, "{line}");
        if let Some((_, rest)) = line.split_once(LISTENING)
            && let Some(url) = rest.split_whitespace().next()
        {
            // Only the first URL is waited for.
            let _ = urls.try_send(url.to_owned());
        }
    }
}
