//! The addresses of one receiver, looked up at most once at a time and kept for a moment.
//!
//! The HTTP client asks for the addresses before every request, also when it goes on to use an open
//! connection, and its own resolver starts a thread for each question and panics when it gets none.
//! Here a literal address needs no thread, a busy route asks once in [`KEPT`], and a name server
//! that hangs costs one thread per route, however many runners wait. A name server that fails or
//! hangs for a moment costs no attempt while an earlier answer is at hand.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

use crate::system::threads;

use crate::handlers::transport::LIFE;

/// How long an answer is used: short beside any time a person waits for a change of addresses, long
/// beside a busy route's pace.
const KEPT: Duration = Duration::from_secs(2);

/// How long an answer stands in for one that cannot be had: as long as a connection may live.
const STANDS_IN: Duration = LIFE;

/// How long an answer is waited for where an earlier one can stand in.
const PATIENCE: Duration = Duration::from_secs(1);

/// The resolver of one route; it serves one host.
#[derive(Default)]
pub(super) struct Lookup {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    /// When the question under way began.
    asking_since: Option<Instant>,
    /// The number of answers so far, by which a waiting thread recognizes a new one.
    answers: u64,
    last: Option<Answer>,
    /// The last answer that had addresses.
    good: Option<(Instant, Vec<SocketAddr>)>,
}

impl State {
    /// Addresses that may stand in for an answer that cannot be had.
    fn stand_in(&self) -> Option<&Vec<SocketAddr>> {
        let (at, addresses) = self.good.as_ref()?;
        (at.elapsed() < STANDS_IN).then_some(addresses)
    }
}

struct Answer {
    at: Instant,
    addresses: Result<Vec<SocketAddr>, (io::ErrorKind, String)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after each statement that changes it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, addresses: io::Result<Vec<SocketAddr>>) {
        let mut state = self.lock();
        state.asking_since = None;
        state.answers += 1;
        if let Ok(addresses) = &addresses {
            state.good = Some((Instant::now(), addresses.clone()));
        }
        state.last = Some(Answer {
            at: Instant::now(),
            addresses: addresses.map_err(|error| (error.kind(), error.to_string())),
        });
        self.answered.notify_all();
    }
}

impl Lookup {
    /// Finds the addresses of `host`, asking `ask` unless an answer is fresh or on its way.
    fn find(
        &self,
        ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
        limit: Duration,
        reason: Timeout,
    ) -> Result<Vec<SocketAddr>, Error> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        if let Some(Answer {
            at,
            addresses: Ok(addresses),
        }) = &state.last
            && at.elapsed() < KEPT
        {
            return Ok(addresses.clone());
        }
        let before = state.answers;
        if state.asking_since.is_none() {
            let shared = Arc::clone(&self.shared);
            threads::detach("lookup", move || shared.answer(ask()))?;
            state.asking_since = Some(started);
        }
        while state.answers == before {
            let mut left = limit.saturating_sub(started.elapsed());
            if let Some(addresses) = state.stand_in() {
                let since = state.asking_since.unwrap_or(started);
                left = left.min(PATIENCE.saturating_sub(since.elapsed()));
                if left.is_zero() {
                    return Ok(addresses.clone());
                }
            }
            if left.is_zero() {
                return Err(Error::Timeout(reason));
            }
            state = self
                .shared
                .answered
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        match state.last.as_ref().map(|answer| &answer.addresses) {
            Some(Ok(addresses)) => Ok(addresses.clone()),
            Some(Err(_)) if let Some(addresses) = state.stand_in() => Ok(addresses.clone()),
            Some(Err((kind, text))) => Err(Error::Io(io::Error::new(*kind, text.clone()))),
            None => Err(Error::HostNotFound),
        }
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        });
        let addresses = if let Ok(address) = host.parse::<IpAddr>() {
            vec![SocketAddr::new(address, port)]
        } else {
            let ask = move || Ok((host.as_str(), port).to_socket_addrs()?.collect());
            self.find(ask, *timeout.after, timeout.reason)?
        };
        let mut result = self.empty();
        for address in config.ip_family().keep_wanted(addresses.into_iter()) {
            if result.try_push(address).is_err() {
                // More addresses than a client would try.
                break;
            }
        }
        if result.is_empty() {
            return Err(Error::HostNotFound);
        }
        Ok(result)
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn address() -> Vec<SocketAddr> {
        vec![SocketAddr::from(([127, 0, 0, 1], 80))]
    }

    fn find(
        lookup: &Lookup,
        ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Result<Vec<SocketAddr>, String> {
        lookup
            .find(ask, LONG, Timeout::Resolve)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_is_kept_for_a_moment_and_a_failure_is_not() {
        let lookup = Lookup::default();
        let fails = || Err(io::Error::other("no such name"));

        let first = find(&lookup, fails);
        let second = find(&lookup, || Ok(address()));
        let third = find(&lookup, fails);

        assert_eq!(first, Err("io: no such name".to_owned()));
        assert_eq!(second, Ok(address()));
        assert_eq!(third, Ok(address()));
    }

    /// Makes the last answer too old to be used as it is.
    fn age(lookup: &Lookup) {
        if let Some(answer) = lookup.shared.lock().last.as_mut() {
            answer.at -= 2 * KEPT;
        }
    }

    #[test]
    fn an_earlier_answer_stands_in_while_the_name_server_fails_or_hangs() {
        let lookup = Lookup::default();
        let (release, released) = sync_channel::<()>(0);
        let fails = || Err(io::Error::other("no such name"));
        assert_eq!(find(&lookup, || Ok(address())), Ok(address()));

        age(&lookup);
        assert_eq!(find(&lookup, fails), Ok(address()));
        assert_eq!(find(&lookup, fails), Ok(address()));
        let hangs = move || {
            let _ = released.recv();
            Ok(Vec::new())
        };
        let started = Instant::now();
        assert_eq!(find(&lookup, hangs), Ok(address()));
        for _ in 0..100 {
            assert_eq!(find(&lookup, fails), Ok(address()));
        }
        assert!(started.elapsed() < LONG);
        drop(release);
    }

    #[test]
    fn a_question_without_answer_costs_one_thread_however_many_wait() {
        let lookup = Lookup::default();
        let (release, released) = sync_channel(0);
        let is_not_asked_again = || Err(io::Error::other("asked again"));
        let short = Duration::from_millis(10);
        let ask = move || {
            let _ = released.recv();
            Ok(address())
        };

        let first = lookup.find(ask, short, Timeout::Resolve);
        let second = lookup.find(is_not_asked_again, short, Timeout::Global);
        release.send(()).expect("it waits to be released");
        let third = find(&lookup, is_not_asked_again);

        assert!(matches!(first, Err(Error::Timeout(Timeout::Resolve))));
        assert!(matches!(second, Err(Error::Timeout(Timeout::Global))));
        assert_eq!(third, Ok(address()));
    }
}
