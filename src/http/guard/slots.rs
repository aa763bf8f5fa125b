//! The connections that the guard holds: so many, no more, and the oldest unfinished one makes room.
//!
//! A client that is slow, silent or hostile keeps its place only until somebody else needs it; refusing the newcomer instead would
//! let a hundred silent connections keep every balancer out. First goes who has had its answer and only has to leave; then the
//! oldest that waits for its client, but nobody before it had a moment to speak, or a flood of connections would push out honest
//! ones unheard; last a request that is being answered: its work is done for somebody, and ends by itself.
//!
//! The bytes of unfinished bodies are bounded over all connections in the same way.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bodies in memory, over all connections: eight whole batches of ids.
const BODIES_MAX: usize = 32 * 1024 * 1024;

/// What a connection has to itself, whoever waits outside: enough to be scheduled, on a busy machine, too, and to send a request that
/// is at hand. A hundred and twenty-eight places turn over 2,560 times a second with it, so a thousand silent connections in the backlog pass in less
/// than a second.
const UNDISTURBED: Duration = Duration::from_millis(50);

/// A connection that was closed to make room is waited for this long before another one is.
const EVICTION: Duration = Duration::from_millis(20);

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
    /// The lower, the sooner it goes.
    fn rank(&self) -> u8 {
        match self.phase {
            Phase::Leaving => 0,
            Phase::Receiving | Phase::Delivering => 1,
            Phase::Answering => 2,
        }
    }

    /// Ends what its thread waits for. The thread does the rest.
    fn close(&mut self) {
        self.is_closed = true;
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(upstream) = &self.upstream {
            let _ = upstream.shutdown(Shutdown::Both);
        }
    }
}

/// All places. In the order of arrival, so the front is the oldest.
pub(super) struct Slots {
    n_max: usize,
    entries: Mutex<VecDeque<Entry>>,
    /// A connection has ended.
    freed: Condvar,
}

impl Slots {
    /// So many places, all free.
    pub(super) fn new(n_max: usize) -> Slots {
        Slots {
            n_max,
            entries: Mutex::new(VecDeque::new()),
            freed: Condvar::new(),
        }
    }

    /// Gives a connection a place, the oldest one's if need be. One caller only: the accept loop.
    pub(super) fn take(self: &Arc<Self>, id: u64, client: Arc<TcpStream>) -> Slot {
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
        Slot {
            id,
            slots: Arc::clone(self),
        }
    }

    /// Closes the oldest connection, and waits a moment for what it held.
    pub(super) fn make_room(&self) {
        let mut entries = self.lock();
        let _ = evict(&mut entries, Duration::ZERO);
        drop(self.wait(entries, EVICTION));
    }

    /// Closes what has no answer to get, gives the others until `limit`, then closes them, too. Who has just come may have a request
    /// under way, and is heard.
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

/// Closes the oldest connection of those that go first. When it has not been here for `undisturbed` yet, nothing is closed, and what
/// is left of that time is given back.
fn evict(entries: &mut VecDeque<Entry>, undisturbed: Duration) -> Option<Duration> {
    // The first of several that are equal: the oldest.
    let entry = entries
        .iter_mut()
        .filter(|entry| !entry.is_closed)
        .min_by_key(|entry| entry.rank())?;
    let left = undisturbed.saturating_sub(entry.since.elapsed());
    if entry.phase == Phase::Leaving || left.is_zero() {
        entry.close();
        return None;
    }
    Some(left)
}

/// One connection's place; free again when this is dropped.
pub(super) struct Slot {
    id: u64,
    slots: Arc<Slots>,
}

impl Slot {
    /// Counts bytes of a body. False when there is no room for them.
    pub(super) fn charge(&self, n_bytes: usize) -> bool {
        let mut entries = self.slots.lock();
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

    /// The request goes to the server behind.
    pub(super) fn answering(&self, upstream: Arc<UnixStream>) {
        self.change(|entry| {
            entry.phase = Phase::Answering;
            entry.upstream = Some(upstream);
        });
    }

    /// The answer has come.
    pub(super) fn delivering(&self) {
        self.change(|entry| entry.phase = Phase::Delivering);
    }

    /// The answer is out; what remains is the client's end.
    pub(super) fn leaving(&self) {
        self.change(|entry| {
            entry.phase = Phase::Leaving;
            entry.upstream = None;
            entry.body_bytes = 0;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.slots.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.id == self.id) {
            change(entry);
            if entry.is_closed {
                // Closed a moment ago, without what has been added since.
                entry.close();
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().retain(|entry| entry.id != self.id);
        self.slots.freed.notify_all();
    }
}
