//! Limits of the server.

use core::num::NonZero;
use core::time::Duration;
use std::thread;

/// Limits of a server.
///
/// The [`ReceiverBuilder`](crate::ReceiverBuilder) sets the limits of bodies and of requests in
/// flight.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How many connections may be open; 16,384 unless set.
    ///
    /// When one more arrives, the source with the most connections loses one: one that was idle for
    /// a second, else the newest. Connections of sources that delivered something authentic lately
    /// stay, unless they are idle.
    pub max_connections: usize,
    /// How many connections of one IPv4 address or one IPv6 /64 may be open; 1,024 unless set.
    /// Further connections are closed at once. Trusted proxies have no limit.
    pub max_connections_per_source: usize,
    /// How long a client may take to send a request's headers; 15 seconds unless set. For the first
    /// request, the time counts from the connection.
    pub header_timeout: Duration,
    /// How long a connection may stay idle between requests; 2 minutes unless set. Clients usually
    /// close theirs earlier, so that a connection rarely closes just when it is used.
    pub idle_timeout: Duration,
    /// How long a client may take no bytes of a response; 15 seconds unless set.
    pub write_timeout: Duration,
    /// How many bytes a request's headers may have; 16 KiB unless set. Larger headers are answered
    /// 431.
    pub max_header_bytes: usize,
    /// How many headers a request may have; 100 unless set. More are answered 431. Any other limit
    /// costs an allocation per request.
    pub max_headers: usize,
    /// How long requests in flight may continue after shutdown starts; 20 seconds unless set.
    pub grace: Duration,
    /// How many threads serve connections, each with its own runtime; the available processors
    /// unless set. With 0, the runtime of [`Server::run`](crate::Server::run) serves them.
    pub threads: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_connections_per_source: 1024,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(15),
            max_header_bytes: 16 * 1024,
            max_headers: 100,
            grace: Duration::from_secs(20),
            threads: thread::available_parallelism().map_or(1, NonZero::get),
        }
    }
}

impl ServerOptions {
    /// Sets [`max_connections`](Self::max_connections).
    #[must_use]
    pub const fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets [`max_connections_per_source`](Self::max_connections_per_source).
    #[must_use]
    pub const fn with_max_connections_per_source(mut self, connections: usize) -> Self {
        self.max_connections_per_source = connections;
        self
    }

    /// Sets [`header_timeout`](Self::header_timeout).
    #[must_use]
    pub const fn with_header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Sets [`idle_timeout`](Self::idle_timeout).
    #[must_use]
    pub const fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets [`write_timeout`](Self::write_timeout).
    #[must_use]
    pub const fn with_write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets [`max_header_bytes`](Self::max_header_bytes).
    #[must_use]
    pub const fn with_max_header_bytes(mut self, bytes: usize) -> Self {
        self.max_header_bytes = bytes;
        self
    }

    /// Sets [`max_headers`](Self::max_headers).
    #[must_use]
    pub const fn with_max_headers(mut self, headers: usize) -> Self {
        self.max_headers = headers;
        self
    }

    /// Sets [`grace`](Self::grace).
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets [`threads`](Self::threads).
    #[must_use]
    pub const fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}
