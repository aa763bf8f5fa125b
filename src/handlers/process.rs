//! One child process of the `exec` handler: its group, its pipes and its end.
//!
//! Everything is watched by one `poll` in the runner's own thread: the child's end through a pidfd,
//! its output and its input through pipes that never block. So a child that never reads, that
//! floods its output, or that leaves a descendant holding the pipes does not block the runner:
//! there is no thread to join, and no pipe is read to its end.
//!
//! Why not a thread per pipe: a reader ends when the last process that holds the pipe does, and
//! that may be a detached one (`setsid sleep 99 &`); such threads would pile up.
//!
//! The child leads a process group of its own, and **the group ends with it**: what it leaves
//! behind in the background is killed. The group is signalled only while its leader, alive or not
//! yet reaped, keeps its number from being given to others. A descendant that left the group
//! (`setsid`) is on its own.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::system::threads;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// Between SIGTERM and SIGKILL. With the default timeout of 30 s a handler that hangs has ended,
/// and its event is settled, within the default drain timeout of 35 s.
const GRACE: Duration = Duration::from_secs(3);

/// How long a process may take to die of SIGKILL; one that waits for a dead disk or a network file
/// system can take for ever.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Output that is kept, the last of it: an error stands at the end.
pub(super) const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// A pipe holds this much by default, so that one read empties it.
const READ_BYTES: usize = 64 * 1024;

/// How a child ended.
pub(super) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was ended because its time was over.
    TimedOut,
    /// Its time was over, and not even SIGKILL ended it.
    Unkillable,
}

/// A child that runs, or has ended and is not yet reaped.
pub(super) struct Process {
    child: Child,
    group: Pid,
    exit: OwnedFd,
    input: Option<ChildStdin>,
    output: Option<PipeReader>,
    tail: Tail,
    is_reaped: bool,
}

impl Process {
    /// Starts `command` as the leader of a new process group.
    pub(super) fn start(mut command: Command) -> io::Result<Process> {
        // One pipe for both, so that the lines stay in the order in which they were written.
        let (output, writer) = io::pipe()?;
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let mut child = command.spawn()?;
        // The command holds the write end of the pipe, too, and the output would never end.
        drop(command);
        match watch_exit(&child).and_then(|exit| {
            set_nonblocking(&output)?;
            child.stdin.as_ref().map_or(Ok(()), set_nonblocking)?;
            Ok(exit)
        }) {
            Ok(exit) => Ok(Process {
                group: pid_of(&child),
                input: child.stdin.take(),
                child,
                exit,
                output: Some(output),
                tail: Tail::default(),
                is_reaped: false,
            }),
            Err(error) => {
                let _ = kill_process_group(pid_of(&child), Signal::KILL);
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The number of the child's process group.
    pub(super) fn group(&self) -> u32 {
        self.child.id()
    }

    /// Feeds `input` to the child and gathers its output until it ends, or is ended because
    /// `timeout` is over.
    ///
    /// `before_reaping` is called when the group is gone and its number about to become free.
    pub(super) fn finish(
        mut self,
        mut input: &[u8],
        timeout: Duration,
        before_reaping: impl FnOnce(),
    ) -> io::Result<(End, Vec<u8>)> {
        let mut is_over = self.wait(&mut input, timeout)?;
        let timed_out = !is_over;
        if timed_out {
            self.signal(Signal::TERM);
            // A stopped child acts on SIGTERM only once it goes on.
            self.signal(Signal::CONT);
            is_over = self.wait(&mut input, timeout.min(GRACE))?;
        }
        // Either ends a child that outlived its grace, or what an ended one left behind.
        self.signal(Signal::KILL);
        is_over = is_over || self.wait(&mut input, KILL_WAIT)?;
        self.read_rest();
        before_reaping();
        let output = std::mem::take(&mut self.tail).into_bytes();
        if !is_over {
            return Ok((End::Unkillable, output));
        }
        self.is_reaped = true;
        let status = self.child.wait()?;
        let end = if timed_out {
            End::TimedOut
        } else {
            End::Exited(status)
        };
        Ok((end, output))
    }

    fn signal(&self, signal: Signal) {
        // This fails only if the group has no process left, or if the remaining ones run as another
        // user. Neither can be remedied.
        let _ = kill_process_group(self.group, signal);
    }

    /// Moves bytes both ways until the child has ended (`true`) or `limit` is over.
    fn wait(&mut self, input: &mut &[u8], limit: Duration) -> io::Result<bool> {
        let started = Instant::now();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let ready = self.poll(left)?;
            if ready.exit {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            if ready.output {
                self.read_output();
            }
            if ready.input {
                self.write_input(input);
            }
        }
    }

    fn poll(&self, limit: Duration) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(3);
        fds.push(PollFd::new(&self.exit, PollFlags::IN));
        if let Some(output) = &self.output {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        if let Some(input) = &self.input {
            fds.push(PollFd::new(input, PollFlags::OUT));
        }
        let limit = Timespec::try_from(limit).ok();
        match poll(&mut fds, limit.as_ref()) {
            // A signal came in between: nothing is ready, and the caller looks at the time again.
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(Ready {
            exit: ready.next().unwrap_or(false),
            output: self.output.is_some() && ready.next().unwrap_or(false),
            input: self.input.is_some() && ready.next().unwrap_or(false),
        })
    }

    /// Takes what the pipe holds now; says whether there may be more.
    fn read_output(&mut self) -> bool {
        let Some(output) = &mut self.output else {
            return false;
        };
        match self.tail.read_from(output) {
            Ok(n) if n > 0 => true,
            Err(error) if is_passing(&error) => false,
            Ok(_) | Err(_) => {
                self.output = None;
                false
            }
        }
    }

    /// Takes what the child wrote last. A descendant that left the group may go on writing, hence
    /// the limit.
    fn read_rest(&mut self) {
        for _ in 0..=OUTPUT_BYTES_MAX / READ_BYTES {
            if !self.read_output() {
                return;
            }
        }
    }

    fn write_input(&mut self, input: &mut &[u8]) {
        let Some(pipe) = &mut self.input else { return };
        match pipe.write(input) {
            Ok(n) => *input = &input[n..],
            Err(error) if is_passing(&error) => return,
            // The child closed its input: it has what it wants, and its exit status says what came
            // of it.
            Err(_) => *input = &[],
        }
        if input.is_empty() {
            self.input = None;
        }
    }
}

/// Leaves no child behind, however the run ended, a panic of a callback included.
impl Drop for Process {
    fn drop(&mut self) {
        if self.is_reaped {
            return;
        }
        self.signal(Signal::KILL);
        match poll(
            &mut [PollFd::new(&self.exit, PollFlags::IN)],
            Some(&Timespec::default()),
        ) {
            Ok(n) if n > 0 => drop(self.child.wait()),
            _ => reap_later(self.group),
        }
    }
}

#[derive(Clone, Copy)]
struct Ready {
    exit: bool,
    output: bool,
    input: bool,
}

/// The last bytes of an output.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    buffer: Vec<u8>,
}

impl Tail {
    fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.buffer.resize(READ_BYTES, 0);
        let n = source.read(&mut self.buffer)?;
        self.bytes.extend_from_slice(&self.buffer[..n]);
        // Cut rarely, so that a flood costs one move of its bytes.
        if self.bytes.len() > 2 * OUTPUT_BYTES_MAX {
            self.cut();
        }
        Ok(n)
    }

    fn cut(&mut self) {
        let surplus = self.bytes.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.bytes.drain(..surplus);
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.cut();
        self.bytes
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn set_nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(pipe, true)?)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Opens something that becomes readable when the child has ended.
fn watch_exit(child: &Child) -> io::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    if let Ok(pidfd) =
        rustix::process::pidfd_open(pid_of(child), rustix::process::PidfdFlags::empty())
    {
        return Ok(pidfd);
    }
    watch_exit_by_thread(pid_of(child))
}

/// The same for kernels before 5.3, and for sandboxes that refuse pidfds: a thread that waits
/// without reaping.
fn watch_exit_by_thread(pid: Pid) -> io::Result<OwnedFd> {
    let (ended, end) = io::pipe()?;
    threads::detach("exec-wait", move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
        drop(end);
    })?;
    Ok(ended.into())
}

/// Waits for a child that does not die, so that it does not stay a zombie when it does in the end.
fn reap_later(pid: Pid) {
    // Without a thread the zombie stays as long as this worker: a nuisance, no more.
    let _ = threads::detach("exec-reap", move || {
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pidfd_a_thread_tells_the_end_and_leaves_the_child_to_be_reaped() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read -r line; exit 7"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let exit = watch_exit_by_thread(pid_of(&child)).expect("a thread starts");
        let has_ended = |limit| {
            let limit = Timespec::try_from(limit).expect("a short time");
            poll(&mut [PollFd::new(&exit, PollFlags::IN)], Some(&limit)).expect("a good pipe") == 1
        };

        let before = has_ended(Duration::ZERO);
        drop(child.stdin.take());
        let after = has_ended(Duration::from_secs(20));

        assert!(!before);
        assert!(after);
        assert_eq!(child.wait().expect("not yet reaped").code(), Some(7));
    }

    #[test]
    fn the_tail_keeps_the_last_bytes_only() {
        let mut tail = Tail::default();
        let mut source = io::repeat(b'x').take(10_000_000).chain(&b"end"[..]);

        while tail.read_from(&mut source).expect("memory can be read") > 0 {
            assert!(tail.bytes.len() <= 2 * OUTPUT_BYTES_MAX);
        }

        let bytes = tail.into_bytes();
        assert_eq!(bytes.len(), OUTPUT_BYTES_MAX);
        assert!(bytes.ends_with(b"xend"));
    }
}
