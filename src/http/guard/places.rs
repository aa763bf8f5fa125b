//! The connections that the guard holds: a bounded number, and the oldest unfinished one makes room
//! for a new one.
//!
//! A client that is slow, silent or hostile keeps its place only until another connection needs it.
//! Refusing the new connection instead would let a hundred silent connections keep every balancer
//! out. The connection to close is chosen in this order. First comes a connection that has had its
//! answer and only has to close. Then comes the oldest connection that waits for its client, but
//! none before it had a moment to send its request, or a flood of connections would push out honest
//! ones unheard. Last comes a request that is being answered: its work ends by itself. A
//! connection whose bytes have arrived and were not read yet is passed over while another one can
//! be closed: its thread has had no turn.
//!
//! The bytes of unfinished bodies are bounded over all connections in the same way.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use rustix::process::{Resource, getrlimit};

/// Most connections at once: those of two bursts of fifty, each of which waits for a stuck
/// database, and room for others.
const PLACES_MAX: u64 = 128;

/// Descriptors of this process per place. A place takes up to four (the client's, one to the server
/// behind the guard, and two of that server's), so at most half of the descriptors go here, and
/// workers and the database never lack theirs.
const DESCRIPTORS_PER_PLACE: u64 = 8;

/// Most bytes of bodies in memory, over all connections: eight whole batches of ids.
const BODIES_MAX: usize = 32 * 1024 * 1024;

/// Time that a connection keeps its place for certain, however many others wait: enough to be
/// scheduled, on a busy machine, too, and to send a request that is at hand. A hundred and
/// twenty-eight places turn over 2,560 times a second with it, so a thousand silent connections in
/// the backlog pass in less than a second.
const UNDISTURBED: Duration = Duration::from_millis(50);

/// How long the accept loop waits for a connection that was closed to make room, before it closes
/// another one.
const EVICTION: Duration = Duration::from_millis(20);

/// The rank of a connection whose request is being answered: the last to go.
const ANSWERING: u8 = 2;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for the client's request.
    Receiving,
    /// The server behind works on the request.
    Answering,
    /// It waits for the client to take the answer.
    Delivering,
    /// It waits for the client to close.
    Leaving,
}

struct Entry {
    id: u64,
    since: Instant,
    client: Arc<TcpStream>,
    upstream: Option<Arc<UnixStream>>,
    phase: Phase,
    body_bytes: usize,
    is_closed: bool,
}

impl Entry {
    /// The connection with the lowest rank is closed first.
    fn rank(&self) -> u8 {
        match self.phase {
            Phase::Leaving => 0,
            Phase::Receiving | Phase::Delivering => 1,
            Phase::Answering => ANSWERING,
        }
    }

    /// Says whether bytes of a request have arrived that were not read yet: on a busy machine its
    /// thread has had no turn.
    fn waits_for_us(&self) -> bool {
        self.phase == Phase::Receiving && ioctl_fionread(&self.client).is_ok_and(|n| n > 0)
    }

    /// Closes the sockets that the connection's thread waits for; the thread then ends by itself.
    fn close(&mut self) {
        self.is_closed = true;
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(upstream) = &self.upstream {
            let _ = upstream.shutdown(Shutdown::Both);
        }
    }
}

/// How many connections this process can afford.
pub(in crate::http) fn affordable() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let places = (descriptors / DESCRIPTORS_PER_PLACE).clamp(1, PLACES_MAX);
    usize::try_from(places).unwrap_or(1)
}

/// All places, in the order of arrival: the front is the oldest.
pub(super) struct ConnectionPlaces {
    n_max: usize,
    entries: Mutex<VecDeque<Entry>>,
    /// A connection has ended.
    freed: Condvar,
}

impl ConnectionPlaces {
    /// So many places, all free.
    pub(super) fn new(n_max: usize) -> ConnectionPlaces {
        ConnectionPlaces {
            n_max,
            entries: Mutex::new(VecDeque::new()),
            freed: Condvar::new(),
        }
    }

    /// Gives a connection a place, if need be that of the oldest one. It has one caller only, the
    /// accept loop.
    pub(super) fn take(self: &Arc<Self>, id: u64, client: Arc<TcpStream>) -> ConnectionPlace {
        let mut entries = self.lock();
        while entries.len() >= self.n_max {
            let moment = evict(&mut entries, UNDISTURBED).unwrap_or(EVICTION);
            entries = self.wait(entries, moment);
        }
        entries.push_back(Entry {
            id,
            since: Instant::now(),
            client,
            upstream: None,
            phase: Phase::Receiving,
            body_bytes: 0,
            is_closed: false,
        });
        ConnectionPlace {
            id,
            places: Arc::clone(self),
        }
    }

    /// Closes the oldest connection, and waits a moment until its descriptors and its thread are
    /// free.
    pub(super) fn make_room(&self) {
        let mut entries = self.lock();
        let _ = evict(&mut entries, Duration::ZERO);
        drop(self.wait(entries, EVICTION));
    }

    /// Closes the connections that await no answer, gives the others until `limit`, then closes
    /// them, too. A connection that was accepted just now may have a request under way, and is
    /// heard.
    pub(super) fn close(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut entries = self.lock();
        for entry in &mut *entries {
            let is_silent = entry.phase == Phase::Receiving && entry.since.elapsed() >= UNDISTURBED;
            if is_silent || entry.phase == Phase::Leaving {
                entry.close();
            }
        }
        while !entries.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                entries.iter_mut().for_each(Entry::close);
                return;
            }
            entries = self.wait(entries, left);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        entries: MutexGuard<'a, VecDeque<Entry>>,
        limit: Duration,
    ) -> MutexGuard<'a, VecDeque<Entry>> {
        self.freed
            .wait_timeout(entries, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// Closes the oldest connection of the lowest rank. When that connection has not been here for
/// `undisturbed` yet, closes none and returns the rest of that time.
fn evict(entries: &mut VecDeque<Entry>, undisturbed: Duration) -> Option<Duration> {
    let mut open: Vec<&mut Entry> = entries
        .iter_mut()
        .filter(|entry| !entry.is_closed)
        .collect();
    // Stable: the oldest of several that are equal goes first.
    open.sort_by_key(|entry| entry.rank());
    let is_first_to_go = |entry: &&mut Entry| entry.rank() < ANSWERING && !entry.waits_for_us();
    let place = open.iter().position(is_first_to_go).unwrap_or(0);
    let entry = open.get_mut(place)?;
    let left = undisturbed.saturating_sub(entry.since.elapsed());
    if entry.phase == Phase::Leaving || left.is_zero() {
        entry.close();
        return None;
    }
    Some(left)
}

/// One connection's place; free again when this is dropped.
pub(super) struct ConnectionPlace {
    id: u64,
    places: Arc<ConnectionPlaces>,
}

impl ConnectionPlace {
    /// Counts bytes of a body. False when there is no room for them.
    pub(super) fn charge(&self, n_bytes: usize) -> bool {
        let mut entries = self.places.lock();
        for entry in entries.iter_mut().filter(|entry| entry.id == self.id) {
            entry.body_bytes += n_bytes;
        }
        let held = |entries: &VecDeque<Entry>| -> usize {
            let open = entries.iter().filter(|entry| !entry.is_closed);
            open.map(|entry| entry.body_bytes).sum()
        };
        while held(&entries) > BODIES_MAX {
            let other = entries.iter_mut().find(|entry| {
                let is_receiving = entry.phase == Phase::Receiving && !entry.is_closed;
                entry.id != self.id && entry.body_bytes > 0 && is_receiving
            });
            match other {
                Some(other) => other.close(),
                None => return false,
            }
        }
        true
    }

    /// Notes that the request goes to the server behind the guard.
    pub(super) fn answering(&self, upstream: Arc<UnixStream>) {
        self.change(|entry| {
            entry.phase = Phase::Answering;
            entry.upstream = Some(upstream);
        });
    }

    /// Notes that the answer has come.
    pub(super) fn delivering(&self) {
        self.change(|entry| entry.phase = Phase::Delivering);
    }

    /// Notes that the answer is delivered, and only the client's close is missing.
    pub(super) fn leaving(&self) {
        self.change(|entry| {
            entry.phase = Phase::Leaving;
            entry.upstream = None;
            entry.body_bytes = 0;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.places.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.id == self.id) {
            change(entry);
            if entry.is_closed {
                // The entry was closed a moment ago, when this socket was not in it yet.
                entry.close();
            }
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.places.lock().retain(|entry| entry.id != self.id);
        self.places.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    fn connection(listener: &TcpListener) -> (TcpStream, Arc<TcpStream>) {
        let address = listener.local_addr().expect("it listens");
        let client = TcpStream::connect(address).expect("it accepts");
        (client, Arc::new(listener.accept().expect("one waits").0))
    }

    #[test]
    fn a_connection_whose_request_was_not_read_yet_is_not_the_first_to_go() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let places = Arc::new(ConnectionPlaces::new(3));
        let (mut honest, accepted) = connection(&listener);
        let _honest = places.take(0, Arc::clone(&accepted));
        honest.write_all(b"GET / HTTP/1.1\r\n").expect("it is open");
        while ioctl_fionread(&accepted).expect("it is open") == 0 {
            std::thread::yield_now();
        }
        let (_silent, accepted) = connection(&listener);
        let _silent_place = places.take(1, accepted);
        let (_answered, accepted) = connection(&listener);
        let answered = places.take(2, accepted);
        answered.change(|entry| entry.phase = Phase::Answering);

        let goes = |places: &ConnectionPlaces| {
            assert_eq!(evict(&mut places.lock(), Duration::ZERO), None);
            let entries = places.lock();
            let gone = entries.iter().filter(|entry| entry.is_closed);
            gone.map(|entry| entry.id).collect::<Vec<u64>>()
        };
        assert_eq!(goes(&places), [1]);
        assert_eq!(goes(&places), [0, 1]);
        assert_eq!(goes(&places), [0, 1, 2]);
    }
}
