//! The phase of a connection, and its deadline.

use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::{self, Instant};

use super::options::ServerOptions;
use crate::admission::Permit;

/// How long a closed connection is still read at most.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How long a connection without a request may take to close.
const CLOSE_TIMEOUT: Duration = LINGER.saturating_add(Duration::from_secs(1));

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first request, or the rest of a request's headers.
    Headers,
    /// Another request.
    Idle,
    /// The response to a request. The body and the inbox have their own time limits.
    Request,
    /// The peer to read what was written.
    Write,
}

/// Tracks the phase of a connection. The stream and the service report what happens.
#[derive(Debug)]
pub(super) struct Progress {
    limits: Limits,
    permit: Permit,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    headers: Duration,
    idle: Duration,
    write: Duration,
}

#[derive(Debug)]
struct State {
    /// Never [`Phase::Write`].
    phase: Phase,
    since: Instant,
    /// Since when the peer does not read.
    blocked_since: Option<Instant>,
    /// Requests without a response yet; HTTP/2 has several.
    open: u32,
    /// In HTTP/2, bytes also arrive for other reasons than a request.
    is_http2: bool,
    /// Whether the last request was rejected, so that its body may be unread.
    was_rejected: bool,
    /// When the connection began to close.
    closing_since: Option<Instant>,
}

impl Progress {
    /// Starts in [`Phase::Headers`].
    pub(super) fn new(options: &ServerOptions, permit: Permit) -> Self {
        permit.set_idle(true);
        Self {
            limits: Limits {
                headers: options.header_timeout,
                idle: options.idle_timeout,
                write: options.write_timeout,
            },
            permit,
            state: Mutex::new(State {
                phase: Phase::Headers,
                since: Instant::now(),
                blocked_since: None,
                open: 0,
                is_http2: false,
                was_rejected: false,
                closing_since: None,
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

    /// Records a write, and whether it is blocked.
    pub(super) fn on_write(&self, is_blocked: bool) {
        let mut state = self.state();
        match (is_blocked, state.blocked_since) {
            (true, None) => state.blocked_since = Some(Instant::now()),
            (false, Some(_)) => state.blocked_since = None,
            _ => {}
        }
    }

    /// Records the start of a request.
    pub(super) fn on_request(&self) {
        let mut state = self.state();
        state.open += 1;
        if state.open == 1 {
            state.enter(Phase::Request);
            self.permit.set_idle(false);
        }
    }

    /// Records a response. The body of a rejected request may be unread.
    pub(super) fn on_response(&self, was_rejected: bool) {
        let mut state = self.state();
        state.open -= 1;
        state.was_rejected = was_rejected;
        if state.open == 0 {
            state.enter(Phase::Idle);
            self.permit.set_idle(true);
        }
    }

    /// Records that the connection closes once its requests are answered.
    pub(super) fn on_close(&self) {
        self.state().closing_since = Some(Instant::now());
    }

    /// Returns `true` if the peer may still be sending when it gets the last response.
    pub(super) fn peer_may_send(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Headers || state.was_rejected
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
        let mut timer = core::pin::pin!(time::sleep_until(Instant::now()));
        core::future::poll_fn(|cx| {
            loop {
                let Some((phase, deadline)) = self.deadline() else {
                    return core::task::Poll::Pending;
                };
                if timer.deadline() > deadline || timer.is_elapsed() {
                    timer.as_mut().reset(deadline);
                }
                core::task::ready!(timer.as_mut().poll(cx));
                if Instant::now() >= deadline {
                    return core::task::Poll::Ready(phase);
                }
            }
        })
        .await
    }

    /// Returns the earliest deadline and its phase; `None` while only our own response is awaited.
    fn deadline(&self) -> Option<(Phase, Instant)> {
        let state = self.state();
        let limit = match state.phase {
            Phase::Headers => Some(self.limits.headers),
            Phase::Idle => Some(self.limits.idle),
            Phase::Request | Phase::Write => None,
        };
        let phase = limit.map(|limit| {
            let deadline = match state.closing_since {
                Some(since) => since + CLOSE_TIMEOUT,
                None => state.since + limit,
            };
            (state.phase, deadline)
        });
        let write = (state.blocked_since).map(|since| (Phase::Write, since + self.limits.write));
        phase.into_iter().chain(write).min_by_key(|(_, at)| *at)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}
