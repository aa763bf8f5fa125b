//! A tap: how the socket that the driver has opened becomes a line that can be cut, with TLS on top
//! where that is wanted.
//!
//! The driver hands its socket over only to what it takes for a maker of TLS, and only to make TLS.
//! So it is told that TLS begins at once, whatever is wanted, and the question for it is asked
//! here: that wait can be cut then, too, and a server without TLS is spoken to in plain text over
//! the same connection where that is allowed (`sslmode=prefer`). The driver itself would keep the
//! socket.
//!
//! The answer is one byte, read alone: what a stranger has put behind it is taken for a part of the
//! handshake, and fails there (CVE-2021-23214).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::mem;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::dsn::AuthRule;
use crate::store::line::{Line, Wire, lock};
use crate::store::login::LoginWatch;
use crate::store::new_socket::Search;
use crate::store::ping::QUESTION;

/// What is to become of a socket by TCP.
#[derive(Clone)]
pub(super) enum Encryption {
    /// No TLS.
    Without,
    /// TLS, without a question before.
    Direct(MakeRustlsConnect),
    /// TLS if the server says yes; if it says no, plain text, or a failure.
    Asked {
        tls: MakeRustlsConnect,
        or_plain: bool,
    },
}

/// Puts a line under one connection; to the driver it is a maker of TLS.
#[derive(Clone)]
pub(super) struct Tap {
    line: Arc<Line>,
    encryption: Encryption,
    auth_rule: Option<AuthRule>,
    search: Arc<Mutex<Option<Search>>>,
}

impl Tap {
    /// Makes a tap for a connection by TCP, on which the server may ask for the login in these
    /// ways.
    pub(super) fn of_tcp(
        line: &Arc<Line>,
        encryption: Encryption,
        auth_rule: Option<AuthRule>,
    ) -> Tap {
        Tap {
            line: Arc::clone(line),
            encryption,
            auth_rule,
            search: Arc::default(),
        }
    }

    /// Makes a tap for a connection to the Unix socket for this port in `directory`, which is
    /// opened next.
    pub(super) fn of_unix(line: &Arc<Line>, directory: &Path, port: u16) -> Tap {
        Tap {
            line: Arc::clone(line),
            encryption: Encryption::Without,
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
            self.line.keep_socket(search.end());
        }
        let make = |tls: &mut MakeRustlsConnect| {
            MakeTlsConnect::<Wire<Socket>>::make_tls_connect(tls, host)
        };
        Ok(Connect {
            line: Arc::clone(&self.line),
            login: LoginWatch::new(self.auth_rule.clone()),
            plan: match &mut self.encryption {
                Encryption::Without => Plan::Plain,
                Encryption::Direct(tls) => Plan::Direct(make(tls)?),
                Encryption::Asked { tls, or_plain } => Plan::Asked(make(tls)?, *or_plain),
            },
        })
    }
}

type Handshake = <MakeRustlsConnect as MakeTlsConnect<Wire<Socket>>>::TlsConnect;
type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Wire<Socket>>>::Stream;

/// Puts a line, and TLS where that is wanted, under a socket that has just been opened.
pub(super) struct Connect {
    line: Arc<Line>,
    login: LoginWatch,
    plan: Plan,
}

enum Plan {
    Plain,
    Direct(Handshake),
    /// With whether plain text will do.
    Asked(Handshake, bool),
}

/// The server has no TLS; in the driver's words.
#[derive(Debug, thiserror::Error)]
#[error("server does not support TLS")]
struct NoTls;

impl TlsConnect<Socket> for Connect {
    type Stream = Stream;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Opening;

    fn connect(self, socket: Socket) -> Opening {
        let wire = Wire::new(socket, &self.line);
        Opening {
            line: self.line,
            login: self.login,
            stage: match self.plan {
                Plan::Plain => Stage::Plain(wire),
                Plan::Direct(tls) => Stage::Handshake(Box::pin(tls.connect(wire))),
                Plan::Asked(tls, or_plain) => Stage::Question(Question {
                    wire,
                    n_sent: 0,
                    tls,
                    or_plain,
                }),
            },
        }
    }
}

/// A connection on its way to what the driver speaks over.
pub(super) struct Opening {
    line: Arc<Line>,
    login: LoginWatch,
    stage: Stage,
}

enum Stage {
    Question(Question),
    Handshake(Pin<Box<<Handshake as TlsConnect<Wire<Socket>>>::Future>>),
    Plain(Wire<Socket>),
    Over,
}

/// The question for TLS.
struct Question {
    wire: Wire<Socket>,
    n_sent: usize,
    tls: Handshake,
    or_plain: bool,
}

impl Question {
    /// Asks, and reads the answer, one byte.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<u8>> {
        while self.n_sent < QUESTION.len() {
            let rest = &QUESTION[self.n_sent..];
            match ready!(Pin::new(&mut self.wire).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n_bytes => self.n_sent += n_bytes,
            }
        }
        let mut answer = [0];
        let mut bytes = ReadBuf::new(&mut answer);
        ready!(Pin::new(&mut self.wire).poll_read(context, &mut bytes))?;
        Poll::Ready(match bytes.filled() {
            [answer] => Ok(*answer),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    /// What follows from the answer.
    fn answered(self, answer: u8) -> Result<Stage, NoTls> {
        match answer {
            b'S' => Ok(Stage::Handshake(Box::pin(self.tls.connect(self.wire)))),
            b'N' if self.or_plain => Ok(Stage::Plain(self.wire)),
            _ => Err(NoTls),
        }
    }
}

impl Future for Opening {
    type Output = Result<Stream, <Connect as TlsConnect<Socket>>::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Question(question) = &mut self.stage {
            let answer = ready!(question.poll(context))?;
            if let Stage::Question(question) = mem::replace(&mut self.stage, Stage::Over) {
                self.stage = question.answered(answer)?;
                if matches!(self.stage, Stage::Plain(_)) {
                    self.line.note_lack_of_tls();
                }
            }
        }
        if let Stage::Handshake(handshake) = &mut self.stage {
            let stream = ready!(handshake.as_mut().poll(context))?;
            self.line.note_encrypted();
            return Poll::Ready(Ok(Stream {
                login: mem::take(&mut self.login),
                channel: Channel::Encrypted(Box::new(stream)),
            }));
        }
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Plain(wire) => Poll::Ready(Ok(Stream {
                login: mem::take(&mut self.login),
                channel: Channel::Plain(wire),
            })),
            Stage::Question(_) | Stage::Handshake(_) | Stage::Over => Poll::Pending,
        }
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
