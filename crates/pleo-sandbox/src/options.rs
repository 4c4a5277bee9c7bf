//! Options of a sandbox.

use core::num::NonZeroU32;
use core::time::Duration;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::SignedDuration;

#[cfg(feature = "tls")]
use crate::tls::Authority;

/// Options of a sandbox, for [`Sandbox::start_with`](crate::Sandbox::start_with).
#[derive(Debug)]
#[non_exhaustive]
pub struct SandboxOptions {
    pub(crate) listen: SocketAddr,
    pub(crate) hosts: Vec<String>,
    pub(crate) plain_http: PlainHttp,
    pub(crate) seed: Option<u64>,
    pub(crate) compression: NonZeroU32,
    pub(crate) expires_in: u32,
    pub(crate) response_timeout: Duration,
    pub(crate) header_prefix: HeaderPrefix,
    pub(crate) rotation_overlap: SignedDuration,
    pub(crate) state_file: Option<PathBuf>,
    #[cfg(feature = "tls")]
    pub(crate) authority: Option<Authority>,
}

/// Which `http:` endpoints the Subscriptions API accepts. Pleo accepts none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainHttp {
    /// None, as Pleo does.
    Refused,
    /// Those on this machine.
    Loopback,
    /// All.
    Allowed,
}

/// The prefix of the three signature headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderPrefix {
    /// `webhook-`, as Standard Webhooks defines.
    Webhook,
    /// `svix-`, as an unbranded Svix sends.
    Svix,
    /// Both sets.
    Both,
}

impl SandboxOptions {
    /// The factor that divides the sender's delays by default.
    pub const COMPRESSION: NonZeroU32 = match NonZeroU32::new(100_000) {
        Some(factor) => factor,
        None => NonZeroU32::MIN,
    };

    /// The options of [`Sandbox::start`](crate::Sandbox::start): a free loopback port, delays divided by 100,000, state in
    /// memory, random ids.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            hosts: Vec::new(),
            plain_http: PlainHttp::Loopback,
            seed: None,
            compression: Self::COMPRESSION,
            expires_in: 3600,
            response_timeout: Duration::from_secs(15),
            header_prefix: HeaderPrefix::Webhook,
            rotation_overlap: SignedDuration::from_hours(24),
            state_file: None,
            #[cfg(feature = "tls")]
            authority: None,
        }
    }

    /// Sets the address to listen on. One that other machines can reach needs [`Self::with_host`].
    #[must_use]
    pub const fn with_listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Accepts requests to this host name besides `localhost` and loopback addresses. A request to
    /// another name is refused, so that no web page can reach the sandbox by a name of its own.
    #[must_use]
    pub fn with_host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Sets which `http:` endpoints subscriptions may have; by default those on this machine.
    #[must_use]
    pub const fn with_plain_http(mut self, plain_http: PlainHttp) -> Self {
        self.plain_http = plain_http;
        self
    }

    /// Makes ids, secrets and the token repeatable: the n-th of a kind depends only on the seed.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Divides the sender's delays by this factor; 1 is real time.
    #[must_use]
    pub const fn with_compression(mut self, factor: NonZeroU32) -> Self {
        self.compression = factor;
        self
    }

    /// Sets the lifetime of export jobs in seconds, in real time; by default an hour.
    #[must_use]
    pub const fn with_expires_in(mut self, seconds: u32) -> Self {
        self.expires_in = seconds;
        self
    }

    /// Sets how long the sender waits for a response, in real time; by default 15 s.
    #[must_use]
    pub const fn with_response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Sets the prefix of the signature headers; by default `webhook-`.
    #[must_use]
    pub const fn with_header_prefix(mut self, prefix: HeaderPrefix) -> Self {
        self.header_prefix = prefix;
        self
    }

    /// Sets how long an old secret signs after a rotation, in real time; by default 24 h.
    #[must_use]
    pub const fn with_rotation_overlap(mut self, overlap: SignedDuration) -> Self {
        self.rotation_overlap = overlap;
        self
    }

    /// Keeps the state in this file. A sandbox that starts with an existing file goes on from there:
    /// the seed is then that of the file, and pending messages are delivered.
    #[must_use]
    pub fn with_state_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.state_file = Some(file.into());
        self
    }

    /// Serves the API over TLS with a certificate of this authority, which the sender then trusts too,
    /// and refuses `http:` endpoints.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self.plain_http = PlainHttp::Refused;
        self
    }
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self::new()
    }
}
