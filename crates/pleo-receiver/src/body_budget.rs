//! Limits requests with incomplete bodies, in total and per source.
//!
//! Their senders are not authenticated yet, so they must not use up the capacity for complete
//! requests. A request counts only while it waits for the rest of its body. Most requests arrive
//! complete and never count.

use core::mem;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::client_ip;
use crate::rejection::Rejection;

/// A source may use a quarter of the budget. A quarter of the requests in flight is kept for
/// complete requests.
const QUARTER: usize = 4;

/// The budget of requests with incomplete bodies.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    max_total: Amount,
    max_per_source: Amount,
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    total: Amount,
    by_source: HashMap<IpAddr, Amount>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    requests: usize,
    bytes: usize,
}

/// One request's share of the budget. Dropping it returns the share.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    budget: &'a BodyBudget,
    source: Option<IpAddr>,
    amount: Amount,
}

impl BodyBudget {
    /// Creates a budget that always fits one request with a body of `body_limit` bytes.
    pub(crate) fn new(max_in_flight: usize, bytes: usize, body_limit: usize) -> Self {
        Self {
            max_total: Amount {
                requests: (max_in_flight - max_in_flight / QUARTER).max(1),
                bytes: bytes.max(body_limit),
            },
            max_per_source: Amount {
                requests: (max_in_flight / QUARTER).max(1),
                bytes: (bytes / QUARTER).max(body_limit),
            },
            usage: Mutex::default(),
        }
    }

    /// Creates an empty reservation. Without a source, only the total limits it.
    pub(crate) fn reservation(&self, source: Option<IpAddr>) -> Reservation<'_> {
        Reservation {
            budget: self,
            source,
            amount: Amount::default(),
        }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        // No code panics while it holds the lock.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// Returns `true` if one request with this many bytes is reserved.
    pub(crate) const fn covers(&self, bytes: usize) -> bool {
        self.amount.requests == 1 && self.amount.bytes == bytes
    }

    /// Reserves one request with this many bytes, in place of what was reserved before.
    ///
    /// # Errors
    /// The source or the total is over its limit. Then nothing is reserved any more.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), Rejection> {
        let amount = Amount { requests: 1, bytes };
        let source = self.source.map(client_ip::network);
        let mut usage = self.budget.usage();
        usage.release(source, mem::take(&mut self.amount));
        let of_source = source.map(|source| {
            let used = usage.by_source.get(&source).copied();
            (source, used.unwrap_or_default().plus(amount))
        });
        let total = usage.total.plus(amount);
        if of_source.is_some_and(|(_, used)| used.exceeds(self.budget.max_per_source)) {
            return Err(Rejection::SourceOverloaded);
        }
        if total.exceeds(self.budget.max_total) {
            return Err(Rejection::Overloaded);
        }
        usage.total = total;
        usage.by_source.extend(of_source);
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.amount.requests > 0 {
            let source = self.source.map(client_ip::network);
            self.budget.usage().release(source, self.amount);
        }
    }
}

impl Usage {
    fn release(&mut self, source: Option<IpAddr>, amount: Amount) {
        self.total = self.total.minus(amount);
        let Some(source) = source else {
            return;
        };
        if let Some(used) = self.by_source.get_mut(&source) {
            *used = used.minus(amount);
            if used.requests == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Amount {
    const fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            bytes: self.bytes + other.bytes,
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests - other.requests,
            bytes: self.bytes - other.bytes,
        }
    }

    const fn exceeds(self, max: Self) -> bool {
        self.requests > max.requests || self.bytes > max.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_SOURCE: Rejection = Rejection::SourceOverloaded;
    const TOTAL: Rejection = Rejection::Overloaded;

    /// Reserves for each of `held`, then for `last`. Returns the outcome of the last.
    fn outcome(
        budget: &BodyBudget,
        held: &[(&str, usize)],
        last: (&str, usize),
    ) -> Result<(), Rejection> {
        let reserve = |(source, bytes): (&str, usize)| {
            let mut reservation = budget.reservation(source.parse().ok());
            reservation.reserve(bytes).map(|()| reservation)
        };
        let held: Result<Vec<_>, _> = held.iter().copied().map(reserve).collect();
        let outcome = reserve(last).err();
        drop(held?);
        assert!(budget.usage().by_source.is_empty());
        assert_eq!(budget.usage().total.bytes, 0);
        outcome.map_or(Ok(()), Err)
    }

    #[test]
    fn limits_each_source_and_the_total() {
        // Per source: 2 requests, 25 bytes. In total: 6 requests, 100 bytes.
        let budget = BodyBudget::new(8, 100, 20);
        let (a, b) = ("192.0.2.1", "192.0.2.2");
        #[rustfmt::skip]
        let cases = [
            (&[][..], (a, 25), Ok(())),
            (&[], (a, 26), Err(OF_SOURCE)),
            (&[(a, 1)], (a, 24), Ok(())),
            (&[(a, 1)], (a, 25), Err(OF_SOURCE)),
            (&[(a, 0), (a, 0)], (a, 0), Err(OF_SOURCE)),
            (&[(a, 0), (a, 0)], (b, 0), Ok(())),
            (&[(a, 0), (a, 0)], ("::ffff:192.0.2.1", 0), Err(OF_SOURCE)),
            // An IPv6 /64 is one source.
            (&[("2001:db8::1", 0), ("2001:db8::2", 0)], ("2001:db8::ffff:0:0:3", 0), Err(OF_SOURCE)),
            (&[("2001:db8::1", 0), ("2001:db8::2", 0)], ("2001:db8:0:1::3", 0), Ok(())),
            // Unknown sources share only the total.
            (&[("", 0), ("", 90), ("", 0), ("", 0), ("", 0)], ("", 10), Ok(())),
            (&[("", 0), ("", 90), ("", 0), ("", 0), ("", 0)], ("", 11), Err(TOTAL)),
            (&[("", 0), ("", 0), ("", 0), ("", 0), ("", 0), ("", 0)], (a, 0), Err(TOTAL)),
        ];
        for (held, last, expected) in cases {
            let outcome = outcome(&budget, held, last);
            assert_eq!(outcome, expected, "{last:?} after {held:?}");
        }
    }

    #[test]
    fn admits_one_request_with_the_largest_body_under_any_limits() {
        let budget = BodyBudget::new(1, 0, 1000);
        let a = "192.0.2.1";
        assert_eq!(outcome(&budget, &[], (a, 1000)), Ok(()));
        assert_eq!(outcome(&budget, &[(a, 0)], (a, 0)), Err(OF_SOURCE));
        assert_eq!(outcome(&budget, &[(a, 0)], ("", 0)), Err(TOTAL));
    }

    #[test]
    fn replaces_the_reservation_of_a_growing_body() {
        let budget = BodyBudget::new(8, 100, 20);
        let mut reservation = budget.reservation("192.0.2.1".parse().ok());
        for bytes in [0, 10, 25] {
            assert!(!reservation.covers(bytes));
            assert_eq!(reservation.reserve(bytes), Ok(()));
            assert!(reservation.covers(bytes));
            assert_eq!(budget.usage().total.bytes, bytes);
        }
        assert_eq!(reservation.reserve(26), Err(OF_SOURCE));
        assert_eq!(budget.usage().total.bytes, 0);
    }
}
