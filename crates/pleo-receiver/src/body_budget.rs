//! What is held for requests whose bodies are still to come, all together and by source.
//!
//! Who sent them is not known, so that nothing of theirs may take the room of those that bring their
//! bodies along. A request counts only once it has to wait for its body: whatever arrives whole, as
//! nearly all do, costs nothing here.

use core::mem;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Rejection, client_ip};

/// One source may hold this part of what may be held, and this part of the requests in flight is kept
/// for those that wait for no body.
const PART: usize = 4;

/// What requests that wait for their bodies hold.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    most: Amount,
    most_of_one: Amount,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    in_all: Amount,
    by_source: HashMap<IpAddr, Amount>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    requests: usize,
    bytes: usize,
}

/// One request's part in it, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    unverified: &'a BodyBudget,
    source: Option<IpAddr>,
    amount: Amount,
}

impl BodyBudget {
    /// Any source may have one request with a body as large as there may be, if nobody else has.
    pub(crate) fn new(max_in_flight: usize, bytes: usize, body_limit: usize) -> Self {
        Self {
            most: Amount {
                requests: (max_in_flight - max_in_flight / PART).max(1),
                bytes: bytes.max(body_limit),
            },
            most_of_one: Amount {
                requests: (max_in_flight / PART).max(1),
                bytes: (bytes / PART).max(body_limit),
            },
            held: Mutex::default(),
        }
    }

    /// A request that waits for nothing yet. Where its source isn't known, it counts for no source.
    pub(crate) fn request(&self, source: Option<IpAddr>) -> Waiting<'_> {
        Waiting {
            unverified: self,
            source,
            amount: Amount::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic between two of its states is not possible.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// Whether it is known that it waits with so many bytes.
    pub(crate) const fn holds(&self, bytes: usize) -> bool {
        self.amount.requests == 1 && self.amount.bytes == bytes
    }

    /// It waits, and holds so many bytes.
    ///
    /// # Errors
    /// Its source, or all together, would hold too much; then it holds nothing.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Rejection> {
        let amount = Amount { requests: 1, bytes };
        let source = self.source.map(client_ip::network);
        let mut held = self.unverified.held();
        held.give_back(source, mem::take(&mut self.amount));
        let of_one = source.map(|source| {
            let others = held.by_source.get(&source).copied();
            (source, others.unwrap_or_default().plus(amount))
        });
        let in_all = held.in_all.plus(amount);
        if of_one.is_some_and(|(_, of_one)| of_one.exceeds(self.unverified.most_of_one)) {
            return Err(Rejection::SourceOverloaded);
        }
        if in_all.exceeds(self.unverified.most) {
            return Err(Rejection::Overloaded);
        }
        held.in_all = in_all;
        held.by_source.extend(of_one);
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.amount.requests > 0 {
            let source = self.source.map(client_ip::network);
            self.unverified.held().give_back(source, self.amount);
        }
    }
}

impl Held {
    fn give_back(&mut self, source: Option<IpAddr>, amount: Amount) {
        self.in_all = self.in_all.minus(amount);
        let Some(source) = source else {
            return;
        };
        if let Some(of_one) = self.by_source.get_mut(&source) {
            *of_one = of_one.minus(amount);
            if of_one.requests == 0 {
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

    const fn exceeds(self, most: Self) -> bool {
        self.requests > most.requests || self.bytes > most.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Rejection = Rejection::SourceOverloaded;
    const ALL: Rejection = Rejection::Overloaded;

    /// What comes of a request from there that waits with so many bytes after others do.
    fn outcome(
        unverified: &BodyBudget,
        held: &[(&str, usize)],
        last: (&str, usize),
    ) -> Result<(), Rejection> {
        let request = |(source, bytes): (&str, usize)| {
            let mut waiting = unverified.request(source.parse().ok());
            waiting.hold(bytes).map(|()| waiting)
        };
        let held: Result<Vec<_>, _> = held.iter().copied().map(request).collect();
        let outcome = request(last).err();
        drop(held?);
        assert!(unverified.held().by_source.is_empty());
        assert_eq!(unverified.held().in_all.bytes, 0);
        outcome.map_or(Ok(()), Err)
    }

    #[test]
    fn a_source_has_its_part_and_all_have_theirs() {
        // One source: 2 requests, 25 bytes; all: 6 requests, 100 bytes.
        let unverified = BodyBudget::new(8, 100, 20);
        let (a, b) = ("192.0.2.1", "192.0.2.2");
        #[rustfmt::skip]
        let cases = [
            (&[][..], (a, 25), Ok(())),
            (&[], (a, 26), Err(OWN)),
            (&[(a, 1)], (a, 24), Ok(())),
            (&[(a, 1)], (a, 25), Err(OWN)),
            (&[(a, 0), (a, 0)], (a, 0), Err(OWN)),
            (&[(a, 0), (a, 0)], (b, 0), Ok(())),
            (&[(a, 0), (a, 0)], ("::ffff:192.0.2.1", 0), Err(OWN)),
            // Whoever has one of these addresses has them all.
            (&[("2001:db8::1", 0), ("2001:db8::2", 0)], ("2001:db8::ffff:0:0:3", 0), Err(OWN)),
            (&[("2001:db8::1", 0), ("2001:db8::2", 0)], ("2001:db8:0:1::3", 0), Ok(())),
            // Sources that nobody knows are not one source.
            (&[("", 0), ("", 90), ("", 0), ("", 0), ("", 0)], ("", 10), Ok(())),
            (&[("", 0), ("", 90), ("", 0), ("", 0), ("", 0)], ("", 11), Err(ALL)),
            (&[("", 0), ("", 0), ("", 0), ("", 0), ("", 0), ("", 0)], (a, 0), Err(ALL)),
        ];
        for (held, last, expected) in cases {
            let outcome = outcome(&unverified, held, last);
            assert_eq!(outcome, expected, "{last:?} after {held:?}");
        }
    }

    #[test]
    fn there_is_room_for_one_request_and_its_body_however_narrow_the_limits() {
        let unverified = BodyBudget::new(1, 0, 1000);
        let a = "192.0.2.1";
        assert_eq!(outcome(&unverified, &[], (a, 1000)), Ok(()));
        assert_eq!(outcome(&unverified, &[(a, 0)], (a, 0)), Err(OWN));
        assert_eq!(outcome(&unverified, &[(a, 0)], ("", 0)), Err(ALL));
    }

    #[test]
    fn a_body_that_grows_counts_with_what_it_is_now() {
        let unverified = BodyBudget::new(8, 100, 20);
        let mut waiting = unverified.request("192.0.2.1".parse().ok());
        for bytes in [0, 10, 25] {
            assert!(!waiting.holds(bytes));
            assert_eq!(waiting.hold(bytes), Ok(()));
            assert!(waiting.holds(bytes));
            assert_eq!(unverified.held().in_all.bytes, bytes);
        }
        assert_eq!(waiting.hold(26), Err(OWN));
        assert_eq!(unverified.held().in_all.bytes, 0);
    }
}
