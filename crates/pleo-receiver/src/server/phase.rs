//! The phase of a connection, and its deadline.

use core::future::poll_fn;
use core::pin::pin;
use core::task::{Poll, ready};
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{self, Instant};

use super::options::ServerOptions;
use crate::admission::Permit;

/// How long a connection without a request may take to close; longer than a lingering close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(6);

/// The phase of a connection: the event that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first request, or the rest of a request's headers.
    Headers,
    /// Another request.
    Idle,
    /// The responses to this many requests. The body and the inbox have their own time limits.
    Requests(u32),
    /// The peer's consent to close.
    Closing,
    /// Nothing: the peer took no bytes of a response for the write timeout.
    Unread,
    /// Nothing: the peer sent too many HTTP/2 control frames.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "HTTP/2 needs TLS"))]
    Flood,
}

/// Tracks the phase of a connection. The stream and the service report what happens.
#[derive(Debug)]
pub(super) struct Progress {
    header_timeout: Duration,
    idle_timeout: Duration,
    permit: Permit,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Whether the connection's task has noted the phase. Most requests come and go before.
    is_noted: bool,
    /// Since when, once it is noted; `None` while requests are open.
    since: Option<Instant>,
    /// In HTTP/2, bytes also arrive for other reasons than a request.
    is_http2: bool,
    /// Whether the last request was rejected, so that its body may be unread.
    was_rejected: bool,
}

impl Progress {
    /// Starts in [`Phase::Headers`].
    pub(super) const fn new(options: &ServerOptions, permit: Permit) -> Self {
        Self {
            header_timeout: options.header_timeout,
            idle_timeout: options.idle_timeout,
            permit,
            state: Mutex::new(State {
                phase: Phase::Headers,
                is_noted: false,
                since: None,
                is_http2: false,
                was_rejected: false,
            }),
        }
    }

    /// Records that the connection uses HTTP/2.
    #[cfg(feature = "tls")]
    pub(super) fn set_http2(&self) {
        self.state().is_http2 = true;
    }

    /// Records that bytes arrived.
    pub(super) fn on_read(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle && !state.is_http2 {
            state.enter(Phase::Headers);
        }
    }

    /// Records that the peer took no bytes for the write timeout.
    pub(super) fn on_write_timeout(&self) {
        self.state().enter(Phase::Unread);
    }

    /// Records that the peer sent too many control frames.
    #[cfg(feature = "tls")]
    pub(super) fn on_flood(&self) {
        self.state().enter(Phase::Flood);
    }

    /// Records the start of a request.
    pub(super) fn begin_request(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.state();
        match &mut state.phase {
            Phase::Requests(open) => *open += 1,
            Phase::Unread | Phase::Flood => {}
            _ => state.enter(Phase::Requests(1)),
        }
        OpenRequest {
            progress: Arc::clone(self),
            was_rejected: true,
        }
    }

    /// Records that the connection closes once its requests are answered.
    pub(super) fn on_close(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.enter(Phase::Closing);
        }
    }

    /// Returns `true` if the peer may still be sending when it gets the last response.
    pub(super) fn peer_may_send(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Headers || state.was_rejected
    }

    /// Resolves once no headers are awaited. Polled by the task of the connection, whose progress wakes
    /// it.
    pub(super) async fn headers_arrived(&self) {
        poll_fn(|_| match self.state().phase {
            Phase::Headers => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Resolves when the connection is evicted for another source.
    pub(super) async fn evicted(&self) {
        self.permit.evicted().await;
    }

    /// Resolves with the phase whose deadline passed.
    ///
    /// The timer is only ever moved to an earlier deadline, or after it fired, so that a request
    /// that is answered in time sets none.
    pub(super) async fn timed_out(&self) -> Phase {
        let mut timer = pin!(time::sleep(self.header_timeout));
        poll_fn(|cx| {
            let (phase, since) = self.phase();
            let timeout = match phase {
                Phase::Headers => self.header_timeout,
                Phase::Idle => self.idle_timeout,
                Phase::Closing => CLOSE_TIMEOUT,
                Phase::Requests(_) => return Poll::Pending,
                Phase::Unread | Phase::Flood => return Poll::Ready(phase),
            };
            let Some(deadline) = since.and_then(|since| since.checked_add(timeout)) else {
                return Poll::Pending;
            };
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            loop {
                ready!(timer.as_mut().poll(cx));
                if timer.deadline() >= deadline {
                    return Poll::Ready(phase);
                }
                timer.as_mut().reset(deadline);
            }
        })
        .await
    }

    /// Returns the phase, and its start unless requests are open. Notes a new phase's start, and
    /// whether the connection may now be evicted as idle.
    fn phase(&self) -> (Phase, Option<Instant>) {
        let mut state = self.state();
        if !state.is_noted {
            // Requests have no deadline here: most need no look at the clock.
            let has_deadline = !matches!(state.phase, Phase::Requests(_));
            state.since = has_deadline.then(Instant::now);
            state.is_noted = true;
            self.permit.set_idle(state.since);
        }
        (state.phase, state.since)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.is_noted = false;
    }
}

/// A request without a response yet.
pub(super) struct OpenRequest {
    progress: Arc<Progress>,
    /// Whether the response rejects the request, whose body may then be unread.
    pub(super) was_rejected: bool,
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.progress.state();
        state.was_rejected = self.was_rejected;
        match &mut state.phase {
            Phase::Requests(1) => state.enter(Phase::Idle),
            Phase::Requests(open) => *open -= 1,
            _ => {}
        }
    }
}
