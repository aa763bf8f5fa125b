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
//! - *TCP:* the driver hands the socket to what it takes for a maker of TLS ([`Tap`]), and gets it
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

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::dsn::AuthRule;
use crate::store::login::LoginWatch;
use crate::store::new_socket::Search;

/// One connection, as far as another thread may end it.
#[derive(Debug, Default)]
pub(super) struct Line {
    is_cut: AtomicBool,
    /// The handshake of TLS was completed.
    is_encrypted: AtomicBool,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a line under one connection; to the driver it is a maker of TLS.
#[derive(Clone)]
pub(super) struct Tap {
    line: Arc<Line>,
    tls: Option<MakeRustlsConnect>,
    auth_rule: Option<AuthRule>,
    search: Arc<Mutex<Option<Search>>>,
}

impl Tap {
    /// Makes a tap for a connection by TCP, with TLS on top of the wire or without, on which the
    /// server may ask for the login in these ways.
    pub(super) fn of_tcp(
        line: &Arc<Line>,
        tls: Option<MakeRustlsConnect>,
        auth_rule: Option<AuthRule>,
    ) -> Tap {
        Tap {
            line: Arc::clone(line),
            tls,
            auth_rule,
            search: Arc::default(),
        }
    }

    /// Makes a tap for a connection to the Unix socket for this port in `directory`, which is opened
    /// next.
    pub(super) fn of_unix(line: &Arc<Line>, directory: &Path, port: u16) -> Tap {
        Tap {
            line: Arc::clone(line),
            tls: None,
            auth_rule: None,
            search: Arc::new(Mutex::new(Search::begin(directory, port))),
        }
    }
}

impl MakeTlsConnect<Socket> for Tap {
    type Stream = Stream;
    type TlsConnect = Connect;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connect, Infallible> {
        if let Some(search) = lock(&self.search).take() {
            *lock(&self.line.socket) = search.end();
        }
        let tls = match &mut self.tls {
            None => None,
            Some(tls) => Some(MakeTlsConnect::<Wire<Socket>>::make_tls_connect(tls, host)?),
        };
        Ok(Connect {
            line: Arc::clone(&self.line),
            tls,
            login: LoginWatch::new(self.auth_rule.clone()),
        })
    }
}

type Handshake = <MakeRustlsConnect as MakeTlsConnect<Wire<Socket>>>::TlsConnect;
type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Wire<Socket>>>::Stream;

/// Puts a line, and TLS where that is wanted, under a socket that has just been opened.
pub(super) struct Connect {
    line: Arc<Line>,
    tls: Option<Handshake>,
    login: LoginWatch,
}

impl TlsConnect<Socket> for Connect {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let wire = Wire {
            inner: socket,
            line: Arc::clone(&self.line),
        };
        match self.tls {
            None => Box::pin(ready(Ok(Stream {
                login: self.login,
                channel: Channel::Plain(wire),
            }))),
            Some(tls) => Box::pin(Encrypting {
                handshake: Box::pin(tls.connect(wire)),
                line: self.line,
                login: self.login,
            }),
        }
    }
}

/// A handshake under way.
struct Encrypting {
    handshake: Pin<Box<<Handshake as TlsConnect<Wire<Socket>>>::Future>>,
    line: Arc<Line>,
    login: LoginWatch,
}

impl Future for Encrypting {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = self.handshake.as_mut().poll(context);
        poll.map_ok(|stream| {
            self.line.is_encrypted.store(true, Ordering::Release);
            Stream {
                login: mem::take(&mut self.login),
                channel: Channel::Encrypted(Box::new(stream)),
            }
        })
    }
}

/// What the driver reads and writes.
pub(super) struct Stream {
    login: LoginWatch,
    channel: Channel,
}

enum Channel {
    /// The wire itself.
    Plain(Wire<Socket>),
    /// TLS on top of a wire.
    Encrypted(Box<Encrypted>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let n_before = bytes.filled().len();
        let poll = match &mut stream.channel {
            Channel::Plain(stream) => Pin::new(stream).poll_read(context, bytes),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_read(context, bytes),
        };
        stream.login.look(&bytes.filled()[n_before..])?;
        poll
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().channel {
            Channel::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Channel::Plain(stream) => Pin::new(stream).poll_flush(context),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Channel::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.channel {
            Channel::Plain(_) => ChannelBinding::none(),
            Channel::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

/// A stream whose reads and writes fail once its line is cut.
pub(super) struct Wire<S> {
    inner: S,
    line: Arc<Line>,
}

impl<S> Wire<S> {
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
