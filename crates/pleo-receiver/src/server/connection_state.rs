//! Tracks the phase of a connection and enforces its timeout.

use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;

use tokio::time::{self, Instant};

use super::state::ServerState;

/// How long a closed connection is still read.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How long a connection may take to close once all its requests are answered.
const CLOSE_TIMEOUT: Duration = LINGER.saturating_add(Duration::from_secs(1));

/// The state of a connection, updated by the tasks that read, answer and write.
///
/// An update is one atomic store. [`timed_out`](Self::timed_out) polls the state, so that no request
/// needs a timer of its own.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// Bytes arrived that belong to no known request yet.
    has_unparsed: AtomicBool,
    /// The peer doesn't take the bytes that are written.
    is_write_blocked: AtomicBool,
    /// The last request was rejected, perhaps before it was read completely.
    is_rejected: AtomicBool,
    /// How many requests started.
    started: AtomicU32,
    /// How many requests are not answered yet.
    in_flight: AtomicU32,
    is_http2: AtomicBool,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first request, or the rest of a request's headers.
    Headers,
    /// The next request, after this many.
    Idle(u32),
    /// The peer, to take the bytes that are written.
    Write,
    /// This server's response. Bodies and appends have their own timeouts.
    Response,
}

/// Why a connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Timeout {
    #[error("the peer exceeded a timeout ({0:?})")]
    Slow(Phase),
    #[error("evicted for a new connection ({0:?})")]
    Evicted(Phase),
}

impl ConnectionState {
    /// Marks the connection as HTTP/2, in which bytes also arrive outside of requests.
    #[cfg(feature = "tls")]
    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// Records that bytes arrived.
    pub(super) fn on_read(&self) {
        let is_http2 = self.is_http2.load(Ordering::Relaxed);
        self.has_unparsed.store(!is_http2, Ordering::Relaxed);
    }

    /// Records an attempt to write.
    pub(super) fn on_write(&self, is_blocked: bool) {
        self.is_write_blocked.store(is_blocked, Ordering::Relaxed);
    }

    /// Records the start of a request.
    pub(super) fn request_started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the response to a request.
    pub(super) fn request_ended(&self, is_rejected: bool) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.is_rejected.store(is_rejected, Ordering::Relaxed);
        // The bytes since the headers were its body.
        self.has_unparsed.store(false, Ordering::Relaxed);
    }

    /// Returns `true` if the peer may still be sending when it gets the last response.
    pub(super) fn peer_may_send(&self) -> bool {
        self.has_unparsed.load(Ordering::Relaxed) || self.is_rejected.load(Ordering::Relaxed)
    }

    /// Resolves when the connection must close: a timeout is exceeded, or the connection is evicted.
    /// If it `is_closing`, only a short time remains after the last response.
    pub(super) async fn timed_out(&self, server: &ServerState, is_closing: bool) -> Timeout {
        let mut evicted = pin!(server.evicted());
        let (mut phase, mut since) = (self.phase(), Instant::now());
        let mut is_unchanged = false;
        loop {
            let is_evictable = is_unchanged && phase.is_for_request() && !is_closing;
            tokio::select! {
                () = time::sleep(server.poll_interval()) => {}
                () = &mut evicted, if is_evictable => {
                    if self.phase() == phase {
                        server.receiver.counters().refused_connection("room");
                        return Timeout::Evicted(phase);
                    }
                    // A request arrived meanwhile: evict another connection.
                    server.evict_one();
                }
            }
            let now = self.phase();
            is_unchanged = now == phase;
            if !is_unchanged {
                (phase, since) = (now, Instant::now());
                // It starts again at the end of the eviction queue.
                evicted.set(server.evicted());
            } else if (phase.timeout(server, is_closing))
                .is_some_and(|timeout| since.elapsed() >= timeout)
            {
                return Timeout::Slow(phase);
            }
        }
    }

    fn phase(&self) -> Phase {
        if self.is_write_blocked.load(Ordering::Relaxed) {
            return Phase::Write;
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Phase::Response;
        }
        match self.started.load(Ordering::Relaxed) {
            0 => Phase::Headers,
            _ if self.has_unparsed.load(Ordering::Relaxed) => Phase::Headers,
            started => Phase::Idle(started),
        }
    }
}

impl Phase {
    const fn is_for_request(self) -> bool {
        matches!(self, Self::Headers | Self::Idle(_))
    }

    const fn timeout(self, server: &ServerState, is_closing: bool) -> Option<Duration> {
        match self {
            Self::Headers | Self::Idle(_) if is_closing => Some(CLOSE_TIMEOUT),
            Self::Headers => Some(server.options.header_timeout),
            Self::Idle(_) => Some(server.options.idle_timeout),
            Self::Write => Some(server.options.write_timeout),
            Self::Response => None,
        }
    }
}
