//! A line: a connection to the server that another thread can cut.
//!
//! A call waits for its answer inside the driver, and a server that is stopped without being gone
//! lets it wait for ever: the server's own time limits are stopped with it, and over a Unix socket
//! no keepalive detects that. Therefore each call notes until when it waits. One thread of the
//! process looks at all calls at intervals, and cuts the line of a call that is overdue. The call
//! fails then as if the server had closed the connection, its thread goes on, and the socket is
//! closed with the session. Opening and closing a connection are such calls, too.
//!
//! How a line is cut depends on the kind of socket, since the driver owns its socket and does not
//! expose it:
//!
//! - *TCP:* the driver hands the socket to what it takes for a maker of TLS ([`Tap`](crate::store::tap::Tap)), and gets it
//!   back in a [`Wire`], whose reads and writes fail once the line is cut. TLS goes on top of that
//!   wire.
//! - *Unix socket:* the driver makes no TLS there and hands nothing over, but the same maker is
//!   called when the socket has just been opened: it finds the new one in /proc/self/fd and keeps a
//!   duplicate, made by `pidfd_getfd` of the process itself, to shut down. Where the kernel's
//!   filter forbids that call (Docker does without CAP_SYS_PTRACE) such a line cannot be cut, and
//!   the supervisor replaces a worker that is held up for long.
//!
//! Why not duplicates for both: in a container, where databases are reached by TCP, they are mostly
//! forbidden. Why not the wire for both: the driver offers no place for it in a Unix socket. Why
//! not a thread per call that could be abandoned: the callers lend what they send.
//!
//! The traits that the driver asks for are those of an asynchronous stream; nothing here is
//! asynchronous by itself.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One connection, as far as another thread may end it.
#[derive(Debug, Default)]
pub(super) struct Line {
    is_cut: AtomicBool,
    /// The handshake of TLS was completed.
    is_encrypted: AtomicBool,
    /// The server has said that it has no TLS, and is spoken to without.
    lacks_tls: AtomicBool,
    /// Milliseconds after the epoch at which the call under way is overdue, 0 while there is none.
    due_ms: AtomicU64,
    /// The thread that waits for the wire.
    waker: Mutex<Option<Waker>>,
    /// The duplicate of a Unix socket.
    socket: Mutex<Option<OwnedFd>>,
}

impl Line {
    /// Notes that a call begins which may take this long.
    pub(super) fn begin(&self, limit: Duration) {
        self.due_ms.store(now_ms(limit).max(1), Ordering::Relaxed);
    }

    /// Notes that the call is over.
    pub(super) fn end(&self) {
        self.due_ms.store(0, Ordering::Relaxed);
    }

    /// Says whether the line was cut, so that no call on it can succeed any more.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Says whether the handshake of TLS was completed.
    pub(super) fn is_encrypted(&self) -> bool {
        self.is_encrypted.load(Ordering::Acquire)
    }

    /// Says whether the server has said that it has no TLS, and is spoken to without.
    pub(super) fn lacks_tls(&self) -> bool {
        self.lacks_tls.load(Ordering::Acquire)
    }

    /// Notes that a connection is opened anew.
    pub(super) fn note_opening(&self) {
        self.is_encrypted.store(false, Ordering::Release);
        self.lacks_tls.store(false, Ordering::Release);
    }

    /// Notes that the server has no TLS, and is spoken to without.
    pub(super) fn note_lack_of_tls(&self) {
        self.lacks_tls.store(true, Ordering::Release);
    }

    /// Notes that the handshake of TLS was completed.
    pub(super) fn note_encrypted(&self) {
        self.is_encrypted.store(true, Ordering::Release);
    }

    /// Takes the duplicate of a Unix socket, by which the line can be cut.
    pub(super) fn keep_socket(&self, socket: Option<OwnedFd>) {
        *lock(&self.socket) = socket;
    }

    /// Cuts the line if its call is overdue.
    pub(super) fn cut_if_overdue(&self) {
        let due = self.due_ms.load(Ordering::Relaxed);
        if due == 0 || now_ms(Duration::ZERO) < due || self.is_cut.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(socket) = &*lock(&self.socket) {
            // An error means that the socket is closed already.
            let _ = shutdown(socket, Shutdown::Both);
        }
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    /// The result of a read or write that cannot go on now. Cutting the line wakes this thread.
    fn wait<T>(&self, context: &Context<'_>) -> Poll<io::Result<T>> {
        let mut waker = lock(&self.waker);
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
        drop(waker);
        if self.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Pending
    }
}

fn now_ms(wait: Duration) -> u64 {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from((EPOCH.elapsed() + wait).as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream whose reads and writes fail once its line is cut.
pub(super) struct Wire<S> {
    inner: S,
    line: Arc<Line>,
}

impl<S> Wire<S> {
    pub(super) fn new(inner: S, line: &Arc<Line>) -> Wire<S> {
        Wire {
            inner,
            line: Arc::clone(line),
        }
    }

    fn or_cut<T>(&self, poll: Poll<io::Result<T>>, context: &Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_pending() {
            return self.line.wait(context);
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_read(context, bytes);
        self.or_cut(poll, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.or_cut(poll, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.or_cut(poll, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.or_cut(poll, context)
    }
}
