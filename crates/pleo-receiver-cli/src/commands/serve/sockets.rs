//! The sockets of a server, and how many of them it may have.

use std::io;
use std::net::SocketAddr;

use pleo_receiver::ServerOptions;
use tokio::net::{TcpListener, TcpSocket};
#[cfg(unix)]
use tracing::warn;

use crate::failure::Failure;

/// Open files that are no connections from outside: the inbox, the handler's, listeners, logs.
#[cfg(unix)]
const OTHER_FILES: usize = 128;

/// How many of them there may ever be, with the pipes of commands and the sockets to targets. More
/// isn't asked for: a command inherits the limit, and some close every number up to it first.
#[cfg(unix)]
const MOST_OTHER_FILES: u64 = 8192;

/// How many connections may wait to be accepted. One more is dropped, and tried again by its client
/// after a second; the usual 128 are too few for a burst.
const BACKLOG: u32 = 4096;

/// Makes room for as many files as connections need, and takes fewer connections where the system
/// has not that much.
#[cfg(unix)]
pub(super) fn within_file_limit(mut options: ServerOptions) -> ServerOptions {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let connections = u64::try_from(options.max_connections).unwrap_or(u64::MAX);
    let wanted = connections.saturating_add(MOST_OTHER_FILES);
    // No limit at all is `None`.
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, "cannot raise the number of open files");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = usize::try_from(files).unwrap_or(usize::MAX);
    let left = left.saturating_sub(OTHER_FILES).max(1);
    if options.max_connections > left {
        warn!(
            "this process may open {files} files, so it takes {left} connections at once, not {}: \
             raise the hard limit (`ulimit -Hn`) or lower `limits.connections`",
            options.max_connections
        );
        options.max_connections = left;
    }
    options
}

#[cfg(not(unix))]
pub(super) const fn within_file_limit(options: ServerOptions) -> ServerOptions {
    options
}

/// Listens on an address that this key gave.
pub(super) fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // As `TcpListener::bind` does, so that a restart needn't wait for old connections to be
        // forgotten; on Windows it means something else.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there: stop it, or choose another \
                                         address"
            }
            io::ErrorKind::PermissionDenied => "choose a port from 1024 on",
            _ => "choose an address of this machine",
        };
        Failure::Usage(format!(
            "`--{key}`: cannot listen on {address}: {error}; {fix}"
        ))
    })
}
