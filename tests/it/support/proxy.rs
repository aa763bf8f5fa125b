//! The network between the daemon and its database, controlled by a test: it loses answers, goes
//! silent, refuses, cuts.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::database::TestDb;
use super::directory::TestDir;

/// What libpq's port 5432 is called on a unix socket.
const SOCKET: &str = ".s.PGSQL.5432";

/// Forwards connections to a server's socket; everything it holds open ends with this value.
pub struct Proxy {
    directory: TestDir,
    shared: Arc<Shared>,
}

struct Shared {
    server: PathBuf,
    state: Mutex<State>,
}

struct State {
    mode: Mode,
    rule: Option<Rule>,
    n_connections: usize,
    connections: Vec<Arc<Connection>>,
}

/// What becomes of new connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Refusing,
    /// Accepted, and never a byte of an answer.
    Silent,
    Stopped,
}

/// A loss that happens once.
enum Rule {
    /// The server gets a request that contains this; its answer is lost, and the connection with
    /// it.
    AnswerTo(Vec<u8>),
    /// An answer that contains this is lost, and the connection with it.
    AnswerWith(Vec<u8>),
    /// A request that contains this is lost; on its connection nothing passes any more, and neither
    /// end is told.
    SilenceFor(Vec<u8>),
}

/// Both ends of one forwarded connection.
struct Connection {
    client: UnixStream,
    /// None for one that was accepted in silence.
    server: Option<UnixStream>,
    /// Nothing passes any more, and neither end is told.
    is_frozen: AtomicBool,
    /// The next answer is lost.
    loses_answer: AtomicBool,
}

impl Connection {
    fn cut(&self) {
        // An end that is closed already needs no cutting.
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(server) = &self.server {
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

impl Proxy {
    /// Starts a proxy in front of the server of this database.
    pub fn to(db: &TestDb) -> Proxy {
        let directory = TestDir::new();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let shared = Arc::new(Shared {
            server: db.directory().join(SOCKET),
            state: Mutex::new(State {
                mode: Mode::Open,
                rule: None,
                n_connections: 0,
                connections: Vec::new(),
            }),
        });
        let for_thread = Arc::clone(&shared);
        // No thread here is joined: they end when their sockets do, in drop.
        thread::spawn(move || accept(&listener, &for_thread));
        Proxy { directory, shared }
    }

    /// The DSN of the database by way of this proxy.
    pub fn dsn(&self, db: &TestDb) -> String {
        let host = self.directory.path().display();
        format!("host={host} user=postgres dbname={}", db.name())
    }

    /// Loses, once, the answer to a request that contains this text: the server has done what was
    /// asked.
    pub fn lose_answer_to(&self, text: &str) {
        self.state().rule = Some(Rule::AnswerTo(text.into()));
    }

    /// Loses, once, an answer that contains this text.
    pub fn lose_answer_with(&self, text: &str) {
        self.state().rule = Some(Rule::AnswerWith(text.into()));
    }

    /// Lets nothing pass any more, once, on the connection that sends a request with this text, and
    /// tells neither end.
    pub fn silence_request(&self, text: &str) {
        self.state().rule = Some(Rule::SilenceFor(text.into()));
    }

    /// Says whether the loss that was asked for has happened.
    pub fn has_lost(&self) -> bool {
        self.state().rule.is_none()
    }

    /// Cuts every connection; new ones are made as before.
    pub fn cut_all(&self) {
        for connection in self.state().connections.drain(..) {
            connection.cut();
        }
    }

    /// Lets nothing pass any more on the connections there are, and tells neither end; new ones are
    /// made as before.
    pub fn freeze(&self) {
        for connection in &self.state().connections {
            connection.is_frozen.store(true, Ordering::Relaxed);
        }
    }

    /// From now on new connections are closed at once.
    pub fn refuse(&self) {
        self.state().mode = Mode::Refusing;
    }

    /// From now on new connections are accepted, and nothing is ever answered on them.
    pub fn silence(&self) {
        self.state().mode = Mode::Silent;
    }

    /// From now on new connections reach the server again; what is frozen or silent stays so.
    pub fn heal(&self) {
        self.state().mode = Mode::Open;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state().mode = Mode::Stopped;
        self.cut_all();
        // Wakes the accepting thread.
        let _ = UnixStream::connect(self.directory.path().join(SOCKET));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Freezes the connection if this is the request that was waited for.
    fn silence(&self, connection: &Connection, request: &[u8]) {
        let mut state = self.state();
        if matches!(&state.rule, Some(Rule::SilenceFor(text)) if contains(request, text)) {
            connection.is_frozen.store(true, Ordering::Relaxed);
            state.rule = None;
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        let mut state = shared.state();
        state.n_connections += 1;
        let server = match state.mode {
            Mode::Stopped => return,
            Mode::Refusing => continue,
            Mode::Silent => None,
            Mode::Open => match UnixStream::connect(&shared.server) {
                Ok(server) => Some(server),
                // The server is away: so is this connection.
                Err(_) => continue,
            },
        };
        let connection = Arc::new(Connection {
            client,
            server,
            is_frozen: AtomicBool::new(false),
            loses_answer: AtomicBool::new(false),
        });
        state.connections.push(Arc::clone(&connection));
        drop(state);
        if connection.server.is_some() {
            for is_answer in [false, true] {
                let (connection, shared) = (Arc::clone(&connection), Arc::clone(shared));
                thread::spawn(move || forward(&connection, is_answer, &shared));
            }
        }
    }
}

/// Passes on what one end says until either end, or the test, closes the connection.
fn forward(connection: &Arc<Connection>, is_answer: bool, shared: &Shared) -> Option<()> {
    let server = connection.server.as_ref()?;
    let (mut from, mut to) = if is_answer {
        (server, &connection.client)
    } else {
        (&connection.client, server)
    };
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut bytes).unwrap_or(0);
        if !is_answer {
            shared.silence(connection, &bytes[..n]);
        }
        if connection.is_frozen.load(Ordering::Relaxed) {
            if n == 0 {
                return None;
            }
            continue;
        }
        let is_lost = n == 0 || loses(connection, &bytes[..n], is_answer, shared);
        if is_lost || to.write_all(&bytes[..n]).is_err() {
            connection.cut();
            shared
                .state()
                .connections
                .retain(|one| !Arc::ptr_eq(one, connection));
            return None;
        }
    }
}

/// Says whether these bytes, and with them the connection, are lost.
fn loses(connection: &Connection, bytes: &[u8], is_answer: bool, shared: &Shared) -> bool {
    let mut state = shared.state();
    match &state.rule {
        Some(Rule::AnswerTo(text)) if !is_answer && contains(bytes, text) => {
            connection.loses_answer.store(true, Ordering::Relaxed);
            false
        }
        Some(Rule::AnswerTo(_)) if is_answer && connection.loses_answer.load(Ordering::Relaxed) => {
            state.rule = None;
            true
        }
        Some(Rule::AnswerWith(text)) if is_answer && contains(bytes, text) => {
            state.rule = None;
            true
        }
        Some(Rule::AnswerTo(_) | Rule::AnswerWith(_) | Rule::SilenceFor(_)) | None => false,
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
