//! Admission: who gets a connection, a request slot and memory for a body.
//!
//! These are shared fairly by source, and a source that has delivered something authentic lately
//! goes first. When one of them runs out, the source that holds most of it makes room, and never the
//! sender.

mod pool;
mod source;
mod trusted;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::rejection::Rejection;
use crate::telemetry::Telemetry;
pub(crate) use pool::{FairPool, Permit, Refused, Standing};
pub(crate) use source::Source;
use trusted::TrustedSources;

/// Decides which requests a receiver takes.
#[derive(Debug)]
pub(crate) struct Admission {
    storing: Semaphore,
    waiting: Arc<FairPool>,
    waiting_bytes: Arc<FairPool>,
    trusted: TrustedSources,
    telemetry: Arc<Telemetry>,
}

/// The slot and the memory that a request holds while it waits for its body.
///
/// A request whose body arrives with its headers, as most do, never waits and holds nothing.
#[derive(Debug)]
pub(crate) struct BodyPermit<'a> {
    admission: &'a Admission,
    source: Source,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    slot: Permit,
    memory: Permit,
    bytes: usize,
}

impl Admission {
    /// Creates limits: `max_in_flight` requests wait for their bodies, as many messages are being
    /// stored, and incomplete bodies hold `bytes` together, at least one of the size `body_limit`.
    pub(crate) fn new(
        max_in_flight: usize,
        bytes: usize,
        body_limit: usize,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            storing: Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS)),
            waiting: FairPool::new(max_in_flight, usize::MAX),
            waiting_bytes: FairPool::new(bytes.max(body_limit), usize::MAX),
            trusted: TrustedSources::default(),
            telemetry,
        }
    }

    /// Takes a slot to store an authentic message.
    pub(crate) fn store(&self) -> Result<SemaphorePermit<'_>, Rejection> {
        self.storing
            .try_acquire()
            .map_err(|_| Rejection::Overloaded)
    }

    /// Prepares to hold what a request's body needs.
    pub(crate) const fn body(&self, source: Source) -> BodyPermit<'_> {
        BodyPermit {
            admission: self,
            source,
            held: None,
        }
    }

    /// Records that a source delivered something authentic at this time.
    pub(crate) fn delivered(&self, source: Source, at: Instant) {
        self.trusted.record(source, at);
    }

    /// Returns how a source stands to others.
    pub(crate) fn standing(&self, source: Source) -> Standing {
        if self.trusted.contains(source, Instant::now()) {
            Standing::Trusted
        } else {
            Standing::Unknown
        }
    }
}

impl BodyPermit<'_> {
    /// Returns whether the request is known to wait with so many bytes.
    pub(crate) fn holds(&self, bytes: usize) -> bool {
        self.held.as_ref().is_some_and(|held| held.bytes == bytes)
    }

    /// Holds a slot and memory for a body of which so many bytes are there.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Rejection> {
        let admission = self.admission;
        let standing = |source| admission.standing(source);
        let rejection = |refused| match refused {
            Refused::SourceLimit => Rejection::SourceOverloaded,
            Refused::Full => Rejection::Overloaded,
        };
        if let Some(held) = &mut self.held {
            held.memory.resize(bytes, &standing).map_err(rejection)?;
            held.bytes = bytes;
            return Ok(());
        }
        let slot = admission.waiting.acquire(self.source, 1, &standing);
        let slot = slot.map_err(rejection)?;
        let memory = admission
            .waiting_bytes
            .acquire(self.source, bytes, &standing)
            .map_err(rejection)?;
        self.held = Some(Held {
            slot,
            memory,
            bytes,
        });
        Ok(())
    }

    /// Resolves when what is held goes to another source.
    pub(crate) async fn evicted(&self) -> Rejection {
        match &self.held {
            Some(held) => tokio::select! {
                () = held.slot.evicted() => {}
                () = held.memory.evicted() => {}
            },
            None => core::future::pending().await,
        }
        self.admission.telemetry.evicted("request", self.source);
        Rejection::SourceOverloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max_in_flight: usize, bytes: usize, body_limit: usize) -> Admission {
        Admission::new(
            max_in_flight,
            bytes,
            body_limit,
            Arc::new(Telemetry::new(None)),
        )
    }

    fn source(text: &str) -> Source {
        Source::from(text.parse::<core::net::IpAddr>().unwrap())
    }

    fn waiting<'a>(admission: &'a Admission, from: &str, bytes: usize) -> BodyPermit<'a> {
        let mut body = admission.body(source(from));
        assert_eq!(body.hold(bytes), Ok(()), "{bytes} bytes from {from}");
        body
    }

    async fn is_evicted(body: &BodyPermit<'_>) -> bool {
        let evicted = body.evicted();
        tokio::time::timeout(core::time::Duration::ZERO, evicted)
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_new_source_gets_memory_while_others_hold_all_of_it() {
        let admission = admission(100, 90, 30);
        let attackers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let held = attackers.map(|one| waiting(&admission, one, 30));
        let sender = waiting(&admission, "198.51.100.1", 20);
        assert!(!is_evicted(&sender).await);
        let mut lost = 0;
        for body in &held {
            lost += u32::from(is_evicted(body).await);
        }
        assert_eq!(lost, 1);
    }

    #[tokio::test]
    async fn a_source_that_delivered_keeps_what_it_holds() {
        let admission = admission(6, 1000, 1);
        admission.delivered(source("198.51.100.1"), Instant::now());
        let sender = [0; 6].map(|bytes| waiting(&admission, "198.51.100.1", bytes));
        let mut other = admission.body(source("192.0.2.1"));
        assert_eq!(other.hold(0), Err(Rejection::Overloaded));
        for body in &sender {
            assert!(!is_evicted(body).await);
        }
    }

    #[test]
    fn incomplete_requests_take_no_slot_of_messages_being_stored() {
        let admission = admission(6, 1000, 1);
        let _waiting = [0; 6].map(|bytes| waiting(&admission, "192.0.2.1", bytes));
        let mut seventh = admission.body(source("192.0.2.1"));
        assert_eq!(seventh.hold(0), Err(Rejection::SourceOverloaded));
        let taken = [(); 6].map(|()| admission.store().unwrap());
        assert_eq!(admission.store().unwrap_err(), Rejection::Overloaded);
        drop(taken);
        assert!(admission.store().is_ok());
    }

    #[test]
    fn there_is_room_for_one_body_however_narrow_the_limits() {
        let admission = admission(1, 0, 1000);
        let mut body = waiting(&admission, "192.0.2.1", 1000);
        assert_eq!(body.hold(1001), Err(Rejection::SourceOverloaded));
    }
}
