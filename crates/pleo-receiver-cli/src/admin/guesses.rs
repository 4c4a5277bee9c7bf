//! Limits how often an address can guess the credentials.

use core::time::Duration;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How many wrong guesses may follow each other at once. After them, one is allowed in an interval.
const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(1);

/// The maximum number of addresses that are remembered.
const ADDRESSES: usize = 1024;

/// Wrong guesses by address: when a complete burst is possible again.
#[derive(Default)]
pub(super) struct Guesses(Mutex<HashMap<IpAddr, Instant>>);

impl Guesses {
    /// Returns whether the guess of this peer is right; `None` if it had too many wrong ones, without
    /// a comparison.
    pub(super) fn check(
        &self,
        peer: IpAddr,
        now: Instant,
        is_right: impl FnOnce() -> bool,
    ) -> Option<bool> {
        let source = source(peer);
        // Locked during the comparison, so that guesses at the same time are counted too.
        let mut guesses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = guesses.get(&source).copied().unwrap_or(now).max(now);
        if full_at - now > INTERVAL * (BURST - 1) {
            return None;
        }
        if is_right() {
            return Some(true);
        }
        if guesses.len() >= ADDRESSES {
            guesses.retain(|_, full_at| *full_at > now);
            let least = guesses.iter().min_by_key(|(_, full_at)| **full_at);
            if let Some((&least, _)) = least
                && guesses.len() >= ADDRESSES
            {
                guesses.remove(&least);
            }
        }
        guesses.insert(source, full_at + INTERVAL);
        Some(false)
    }
}

/// Returns an IPv4 address, or the /64 network of an IPv6 address, of which one client has all.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Ipv6Addr::from_bits(network).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn permits_burst_and_then_one_wrong_guess_per_interval() {
        let (guesses, start) = (Guesses::default(), Instant::now());
        let guess = |peer: &str, seconds, is_right| {
            let now = start + Duration::from_secs(seconds);
            guesses.check(address(peer), now, || is_right)
        };
        for _ in 0..100 {
            assert_eq!(guess("10.0.0.1", 0, true), Some(true), "no wrong guess");
        }
        for _ in 0..BURST {
            assert_eq!(guess("10.0.0.1", 0, false), Some(false));
        }
        for is_right in [false, true] {
            assert_eq!(guess("10.0.0.1", 0, is_right), None);
            assert_eq!(guess("::ffff:10.0.0.1", 0, is_right), None, "the same");
            assert_eq!(guess("10.0.0.2", 0, is_right), Some(is_right), "another");
        }
        assert_eq!(guess("10.0.0.1", 1, true), Some(true));
        assert_eq!(guess("10.0.0.1", 1, false), Some(false));
        assert_eq!(guess("10.0.0.1", 1, true), None);
        for _ in 0..BURST {
            assert_eq!(guess("2001:db8::1", 0, false), Some(false));
        }
        assert_eq!(guess("2001:db8::ffff", 0, true), None, "the same network");
        assert_eq!(guess("2001:db8:0:1::1", 0, true), Some(true));
    }

    #[test]
    fn remembers_limited_number_of_addresses_with_the_most_guesses() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let first = address("10.0.0.1");
        for _ in 0..BURST {
            guesses.check(first, now, || false);
        }
        for number in 0..5000_u16 {
            let [high, low] = number.to_be_bytes();
            let other = IpAddr::from([192, 168, high, low]);
            assert_eq!(guesses.check(other, now, || false), Some(false));
        }
        assert_eq!(guesses.0.lock().unwrap().len(), ADDRESSES);
        assert_eq!(guesses.check(first, now, || true), None);
    }
}
