//! What a connection waits for, and how long it may.

use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;

use tokio::time::{self, Instant};

use super::state::ServerState;

/// How long a closed connection is still read, in all.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How long a connection may take to end, once it has nothing left to do.
const ENDING: Duration = LINGER.saturating_add(Duration::from_secs(1));

/// Where a connection is between its requests. Those who read, answer and write note it here, at the
/// price of a store; [`overdue`](Self::overdue) looks from time to time, so that no request needs a
/// timer.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// Whether bytes came that no request is known of yet.
    reading: AtomicBool,
    /// Whether the peer takes no more bytes.
    stuck: AtomicBool,
    /// Whether the last answer may have come before the whole of its request.
    refused: AtomicBool,
    /// How many requests there were.
    begun: AtomicU32,
    /// How many of them are not answered yet.
    open: AtomicU32,
    /// Whether bytes come for other reasons too, as in HTTP/2.
    framed: AtomicBool,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// That the peer sends its first request, or the rest of a request's headers.
    Headers,
    /// That the peer sends one more request after this many.
    Request(u32),
    /// That the peer takes what is written.
    Write,
    /// That this server answers. Bodies and the inbox have limits of their own.
    Answer,
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Timeout {
    #[error("its peer was too slow ({0:?})")]
    Slow(Phase),
    #[error("it waited for its peer, and another connection needed the room ({0:?})")]
    Evicted(Phase),
}

impl ConnectionState {
    /// From now on it is an HTTP/2 connection.
    #[cfg(feature = "tls")]
    pub(super) fn framed(&self) {
        self.framed.store(true, Ordering::Relaxed);
    }

    /// Bytes came.
    pub(super) fn read(&self) {
        let framed = self.framed.load(Ordering::Relaxed);
        self.reading.store(!framed, Ordering::Relaxed);
    }

    /// Bytes were to go.
    pub(super) fn wrote(&self, could: bool) {
        self.stuck.store(!could, Ordering::Relaxed);
    }

    /// A request has come.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is answered: accepted, so that it was read whole, or refused.
    pub(super) fn end(&self, refused: bool) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.refused.store(refused, Ordering::Relaxed);
        // What came meanwhile was its body.
        self.reading.store(false, Ordering::Relaxed);
    }

    /// Whether an answer may be on its way to a peer that still writes.
    pub(super) fn peer_may_write(&self) -> bool {
        self.reading.load(Ordering::Relaxed) || self.refused.load(Ordering::Relaxed)
    }

    /// Resolves when the connection must end: it waits for its peer for too long, or was chosen to
    /// make room. One that is `ending` has little time left once it waits for no answer.
    pub(super) async fn overdue(&self, state: &ServerState, ending: bool) -> Timeout {
        let mut room = pin!(state.room());
        let (mut wait, mut since) = (self.wait(), Instant::now());
        let mut is_settled = false;
        loop {
            let is_in_line = is_settled && wait.is_for_request() && !ending;
            tokio::select! {
                () = time::sleep(state.tick()) => {}
                () = &mut room, if is_in_line => {
                    if self.wait() == wait {
                        state.receiver.counters().refused_connection("room");
                        return Timeout::Evicted(wait);
                    }
                    // It has a request after all: let it be another one.
                    state.make_room();
                }
            }
            let now = self.wait();
            is_settled = now == wait;
            if !is_settled {
                (wait, since) = (now, Instant::now());
                // It leaves the line.
                room.set(state.room());
            } else if wait
                .limit(state, ending)
                .is_some_and(|limit| since.elapsed() >= limit)
            {
                return Timeout::Slow(wait);
            }
        }
    }

    fn wait(&self) -> Phase {
        if self.stuck.load(Ordering::Relaxed) {
            return Phase::Write;
        }
        if self.open.load(Ordering::Relaxed) > 0 {
            return Phase::Answer;
        }
        match self.begun.load(Ordering::Relaxed) {
            0 => Phase::Headers,
            _ if self.reading.load(Ordering::Relaxed) => Phase::Headers,
            begun => Phase::Request(begun),
        }
    }
}

impl Phase {
    const fn is_for_request(self) -> bool {
        matches!(self, Self::Headers | Self::Request(_))
    }

    const fn limit(self, state: &ServerState, ending: bool) -> Option<Duration> {
        match self {
            Self::Headers | Self::Request(_) if ending => Some(ENDING),
            Self::Headers => Some(state.options.header_timeout),
            Self::Request(_) => Some(state.options.idle_timeout),
            Self::Write => Some(state.options.write_timeout),
            Self::Answer => None,
        }
    }
}
