//! What all connections share: their number, by source too, and the word to end.

use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Poll, Waker};
use core::time::Duration;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::options::ServerOptions;
use crate::{Receiver, client_ip};

/// How often a connection looks at its pace, at least.
const TICK: Duration = Duration::from_secs(1);

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) receiver: Receiver,
    pub(super) options: ServerOptions,
    slots: Arc<Semaphore>,
    by_source: Mutex<HashMap<IpAddr, usize>>,
    room: Notify,
    stop: Notify,
    stopping: AtomicBool,
}

/// One connection's share in a source's number of connections.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    state: Arc<ServerState>,
    source: Option<IpAddr>,
}

impl ServerState {
    pub(super) fn new(receiver: Receiver, options: ServerOptions) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(
                options.max_connections.min(Semaphore::MAX_PERMITS),
            )),
            receiver,
            options,
            by_source: Mutex::default(),
            room: Notify::new(),
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Counts a connection from an address; `None` where there are too many from there. Those of
    /// trusted proxies are not counted.
    pub(super) fn share(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPermit> {
        let source = (!self.receiver.is_trusted_proxy(peer)).then(|| client_ip::network(peer));
        if let Some(source) = source {
            let mut by_source = self.by_source();
            let count = by_source.entry(source).or_default();
            if *count >= self.options.max_connections_per_source {
                return None;
            }
            *count += 1;
        }
        let state = Arc::clone(self);
        Some(ConnectionPermit { state, source })
    }

    /// Waits until one more connection may be served. Where none may, asks the one that has waited
    /// longest for its peer to end.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        self.make_room();
        // It is never closed.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Resolves, for the one that waited longest, when a connection is to end for another.
    pub(super) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    pub(super) fn make_room(&self) {
        self.room.notify_one();
    }

    /// Tells all connections to end when they have answered.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }

    /// Resolves when the connections are to end.
    pub(super) async fn stopped(&self) {
        let mut notified = pin!(self.stop.notified());
        let mut registered: Option<Waker> = None;
        // A connection's task is polled for every request, but to be in line for the notification
        // takes a lock that all share; a task keeps its waker, so once is enough.
        poll_fn(|cx| {
            if !registered
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                let _ = notified.as_mut().poll(cx);
                registered = Some(cx.waker().clone());
            }
            if self.stopping.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// How often a connection looks at its pace: several times within each limit.
    pub(super) fn tick(&self) -> Duration {
        let options = &self.options;
        let least = options
            .header_timeout
            .min(options.idle_timeout)
            .min(options.write_timeout);
        (least / 4).clamp(Duration::from_millis(1), TICK)
    }

    fn by_source(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A panic between two of its states is not possible.
        self.by_source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some(source) = self.source else {
            return;
        };
        let mut by_source = self.state.by_source();
        if let Some(count) = by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&source);
            }
        }
    }
}
