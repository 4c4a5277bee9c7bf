//! Limits of the server.

use core::num::NonZero;
use core::time::Duration;
use std::thread;

/// What a server puts up with.
///
/// How large and how slow a body may be, and how many requests are in flight, is the
/// [`Receiver`](crate::Receiver)'s to say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How many connections are open at once. When one more comes, the one that has waited longest
    /// for its peer, and for a second at least, is closed for it; where there is none, it waits.
    /// 16,384 unless set.
    pub max_connections: usize,
    /// How many connections are open at once from one IPv4 address, or one IPv6 network of 64 bits;
    /// more are closed at once. Trusted proxies may have any number. 1,024 unless set.
    pub max_connections_per_source: usize,
    /// How long a connection may take to send a request's headers, the first one's counted from the
    /// moment it connects. 15 seconds unless set.
    pub header_timeout: Duration,
    /// How long a connection may stay idle after a request. 2 minutes unless set: longer than
    /// clients usually keep theirs, so that it rarely is closed just when it's used.
    pub idle_timeout: Duration,
    /// How long a connection may refuse to take what is written. 15 seconds unless set.
    pub write_timeout: Duration,
    /// How many bytes a request's headers may take; more is answered 431. 16 KiB unless set.
    pub max_header_bytes: usize,
    /// How many headers a request may have; more is answered 431. 100 unless set; any other number
    /// costs an allocation for each request.
    pub max_headers: usize,
    /// How long requests in flight may go on after shutdown began. 20 seconds unless set.
    pub grace: Duration,
    /// How many threads serve connections, each with a runtime of its own; with 0, the runtime that
    /// [`Server::run`](crate::Server::run) is called on does. As many as the process may use processors unless set.
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
