//! The tables `[retry]` and `[limits]`.

use core::time::Duration;
use std::collections::BTreeSet;

use pleo_receiver::{DispatchOptions, ReceiverBuilder, ServerOptions, SqliteOptions};
use serde::{Deserialize, Serialize};

use super::values::Span;

/// The table `[retry]`.
#[derive(Debug, Default, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    max_attempts: Option<u32>,
    min_delay: Option<Span>,
    max_delay: Option<Span>,
    timeout: Option<Span>,
    concurrency: Option<usize>,
    total_concurrency: Option<usize>,
    lease_ttl: Option<Span>,
}

/// The table `[limits]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    connections: Option<usize>,
    connections_per_source: Option<usize>,
    in_flight: Option<usize>,
    unverified_bytes: Option<usize>,
    queue_bytes: Option<usize>,
    headers: Option<usize>,
    header_bytes: Option<usize>,
    header_timeout: Option<Span>,
    body_bytes: Option<usize>,
    body_timeout: Option<Span>,
    body_rate: Option<u32>,
    write_timeout: Option<Span>,
    idle_timeout: Option<Span>,
    shutdown_delay: Option<Span>,
    grace: Option<Span>,
    threads: Option<usize>,
}

impl Retry {
    /// Returns the options of the dispatcher.
    pub(super) fn options(&self) -> DispatchOptions {
        let mut options = DispatchOptions::default();
        set(&mut options.max_attempts, self.max_attempts);
        set_span(&mut options.min_delay, self.min_delay);
        set_span(&mut options.max_delay, self.max_delay);
        set_span(&mut options.timeout, self.timeout);
        set(&mut options.concurrency, self.concurrency);
        set(&mut options.total_concurrency, self.total_concurrency);
        set_span(&mut options.lease_ttl, self.lease_ttl);
        options.with_worker(worker_name())
    }
}

impl Limits {
    /// Returns the keys whose values differ.
    pub(super) fn changes(&self, other: &Self) -> Vec<String> {
        let table = |limits| toml::Table::try_from(limits).unwrap_or_default();
        let (old, new) = (table(self), table(other));
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let changed = keys
            .into_iter()
            .filter(|key| old.get(*key) != new.get(*key));
        changed.map(|key| format!("limits.{key}")).collect()
    }

    /// Returns the limits on connections.
    pub(crate) fn server(&self) -> ServerOptions {
        let mut options = ServerOptions::default();
        set(&mut options.max_connections, self.connections);
        set(
            &mut options.max_connections_per_source,
            self.connections_per_source,
        );
        set(&mut options.max_headers, self.headers);
        set(&mut options.max_header_bytes, self.header_bytes);
        set_span(&mut options.header_timeout, self.header_timeout);
        set_span(&mut options.write_timeout, self.write_timeout);
        set_span(&mut options.idle_timeout, self.idle_timeout);
        set_span(&mut options.grace, self.grace);
        set(&mut options.threads, self.threads);
        options
    }

    /// Returns how long the listeners stay open after the signal to stop.
    pub(crate) fn shutdown_delay(&self) -> Duration {
        self.shutdown_delay.map(|delay| delay.0).unwrap_or_default()
    }

    /// Returns the limits of the inbox.
    pub(crate) fn inbox(&self) -> SqliteOptions {
        let mut options = SqliteOptions::default();
        set(&mut options.queue_bytes, self.queue_bytes);
        options
    }

    /// Applies the limits on requests.
    pub(crate) fn receiver(&self, mut builder: ReceiverBuilder) -> ReceiverBuilder {
        if let Some(requests) = self.in_flight {
            builder = builder.max_in_flight(requests);
        }
        if let Some(bytes) = self.unverified_bytes {
            builder = builder.max_unverified_bytes(bytes);
        }
        if let Some(bytes) = self.body_bytes {
            builder = builder.body_limit(bytes);
        }
        if let Some(span) = self.body_timeout {
            builder = builder.body_timeout(span.0);
        }
        if let Some(rate) = self.body_rate {
            builder = builder.min_body_rate(rate);
        }
        builder
    }
}

/// Returns the name of this process among those that share an inbox: the name of the machine or
/// container, and the process id.
fn worker_name() -> String {
    let process = std::process::id();
    #[cfg(unix)]
    {
        let system = rustix::system::uname();
        let machine = system.nodename().to_string_lossy();
        format!("{machine}:{process}")
    }
    #[cfg(not(unix))]
    process.to_string()
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

fn set_span(to: &mut Duration, from: Option<Span>) {
    set(to, from.map(|span| span.0));
}
