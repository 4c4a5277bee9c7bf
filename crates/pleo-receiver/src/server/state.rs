//! Shared state of a server: connection permits by source, eviction and shutdown.

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
use crate::client_ip;
use crate::receiver::Receiver;

/// How often a connection checks its state, at least.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The state that all connections of a server share.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) receiver: Receiver,
    pub(super) options: ServerOptions,
    connections: Arc<Semaphore>,
    by_source: Mutex<HashMap<IpAddr, usize>>,
    eviction: Notify,
    shutdown: Notify,
    is_shutting_down: AtomicBool,
}

/// Permits one connection of a source until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    server: Arc<ServerState>,
    source: Option<IpAddr>,
}

impl ServerState {
    pub(super) fn new(receiver: Receiver, options: ServerOptions) -> Self {
        let max_connections = options.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            receiver,
            options,
            connections: Arc::new(Semaphore::new(max_connections)),
            by_source: Mutex::default(),
            eviction: Notify::new(),
            shutdown: Notify::new(),
            is_shutting_down: AtomicBool::new(false),
        }
    }

    /// Permits a connection of this peer, or returns `None` if its source has too many. Trusted
    /// proxies have no limit.
    pub(super) fn source_permit(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPermit> {
        let is_limited = !self.receiver.is_trusted_proxy(peer);
        let source = is_limited.then(|| client_ip::network(peer));
        if let Some(source) = source {
            let mut by_source = self.by_source();
            let count = by_source.entry(source).or_default();
            if *count >= self.options.max_connections_per_source {
                return None;
            }
            *count += 1;
        }
        let server = Arc::clone(self);
        Some(ConnectionPermit { server, source })
    }

    /// Waits until one more connection may be open. Evicts the one that has waited longest for its
    /// peer if all permits are taken.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
            return Some(permit);
        }
        self.evict_one();
        // The semaphore is never closed.
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    /// Resolves for the connection that has waited longest when one must be evicted.
    pub(super) fn evicted(&self) -> Notified<'_> {
        self.eviction.notified()
    }

    /// Evicts the connection that has waited longest.
    pub(super) fn evict_one(&self) {
        self.eviction.notify_one();
    }

    /// Tells all connections to close after their current responses.
    pub(super) fn shut_down(&self) {
        self.is_shutting_down.store(true, Ordering::Release);
        self.shutdown.notify_waiters();
    }

    /// Resolves when the server shuts down.
    pub(super) async fn shutdown(&self) {
        let mut notified = pin!(self.shutdown.notified());
        let mut registered: Option<Waker> = None;
        // A connection's task is polled for every request, and `notified` takes a lock that all
        // connections share. A task keeps its waker, so `notified` is polled once.
        poll_fn(|cx| {
            if !registered
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                let _ = notified.as_mut().poll(cx);
                registered = Some(cx.waker().clone());
            }
            if self.is_shutting_down.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// Returns how often a connection checks its state: several times within each timeout.
    pub(super) fn poll_interval(&self) -> Duration {
        let options = &self.options;
        let shortest = options
            .header_timeout
            .min(options.idle_timeout)
            .min(options.write_timeout);
        (shortest / 4).clamp(Duration::from_millis(1), MAX_POLL_INTERVAL)
    }

    fn by_source(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // No code panics while it holds the lock.
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
        let mut by_source = self.server.by_source();
        if let Some(count) = by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&source);
            }
        }
    }
}
