//! A connection to the first address of a receiver that answers, of either family, in the
//! resolver's order.
//!
//! The client's own connector gives the first of two addresses two thirds of the time, for each
//! connection anew. Here each gets a second, then what time is left is shared; one that swallowed
//! the attempt stands last from then on, so only the first connection pays. Once in [`AVOIDED`] one
//! connection tries it again in its place: addresses recover, and the resolver's order spreads the
//! load.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;

use crate::handlers::transport::wait::Deadline;

/// How long one of several addresses is waited for at first: a handshake around the world takes a
/// third of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Least time for one attempt: none at all is refused.
const SHARE_MIN: Duration = Duration::from_millis(1);

/// How long an address that swallowed an attempt is tried last.
const AVOIDED: Duration = Duration::from_mins(5);

/// The addresses that swallowed an attempt, of one receiver.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Until when each is tried last.
    avoided: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Addresses {
    /// Connects to the first of `addresses` that answers.
    pub(super) fn connect(
        &self,
        addresses: &[SocketAddr],
        deadline: Deadline,
    ) -> Result<TcpStream, Error> {
        let mut in_order = self.in_order(addresses, Instant::now());
        let mut patience = if in_order.len() > 1 {
            PATIENCE
        } else {
            Duration::MAX
        };
        let mut refusal = Error::HostNotFound;
        // In a second round, each that was silent gets its share of all the time that is left.
        loop {
            let mut silent = Vec::new();
            let n = in_order.len();
            for (at, address) in in_order.into_iter().enumerate() {
                let share = deadline.left()? / u32::try_from(n - at).unwrap_or(u32::MAX);
                match TcpStream::connect_timeout(&address, share.clamp(SHARE_MIN, patience)) {
                    Ok(stream) => {
                        self.answered(address);
                        return Ok(stream);
                    }
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        self.swallowed(address);
                        silent.push(address);
                    }
                    Err(error) => refusal = Error::Io(error),
                }
            }
            if silent.is_empty() {
                return Err(refusal);
            }
            patience = Duration::MAX;
            in_order = silent;
        }
    }

    /// The addresses with the avoided ones behind the others. The first call after the time of an
    /// avoided address puts it in its place again, and the calls after that go on avoiding it until
    /// it has answered.
    fn in_order(&self, addresses: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.retain(|address, _| addresses.contains(address));
        let (mut first, mut last) = (Vec::with_capacity(addresses.len()), Vec::new());
        for address in addresses {
            match avoided.get_mut(address) {
                Some(until) if *until > now => last.push(*address),
                Some(until) => {
                    *until = now + AVOIDED;
                    first.push(*address);
                }
                None => first.push(*address),
            }
        }
        first.append(&mut last);
        first
    }

    fn swallowed(&self, address: SocketAddr) {
        let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.insert(address, Instant::now() + AVOIDED);
    }

    fn answered(&self, address: SocketAddr) {
        let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_swallowed_is_tried_last_and_by_one_connection_again() {
        let [a, b, c] = [1, 2, 3].map(|n| SocketAddr::from(([127, 0, 0, n], 80)));
        let addresses = Addresses::default();
        let now = Instant::now();
        assert_eq!(addresses.in_order(&[a, b, c], now), [a, b, c]);

        addresses.swallowed(a);

        assert_eq!(addresses.in_order(&[a, b, c], now), [b, c, a]);
        assert_eq!(addresses.in_order(&[c, a, b], now), [c, b, a]);
        let later = now + 2 * AVOIDED;
        assert_eq!(addresses.in_order(&[a, b, c], later), [a, b, c]);
        assert_eq!(addresses.in_order(&[a, b, c], later), [b, c, a]);
        addresses.answered(a);
        assert_eq!(addresses.in_order(&[a, b, c], later), [a, b, c]);
    }
}
