//! The limit of open files, which limits the connections of a server.

use pleo_receiver::ServerOptions;
#[cfg(unix)]
use tracing::warn;

/// The number of open files that are not connections of clients: the inbox, listeners, the log, the
/// handler's.
#[cfg(unix)]
const OTHER_FILES: usize = 128;

/// How many other files there may ever be, with the pipes of commands and the connections to
/// targets. A higher limit is not set, since commands inherit it, and some close every number up to
/// it first.
#[cfg(unix)]
const MAX_OTHER_FILES: u64 = 8192;

/// Raises the limit of open files to what the connections need. Lowers the limit of connections if
/// the system does not allow that.
#[cfg(unix)]
pub(super) fn within_file_limit(mut options: ServerOptions) -> ServerOptions {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let connections = u64::try_from(options.max_connections).unwrap_or(u64::MAX);
    let wanted = connections.saturating_add(MAX_OTHER_FILES);
    // `None` is no limit.
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, "cannot raise the limit of open files");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = usize::try_from(files).unwrap_or(usize::MAX);
    let left = left.saturating_sub(OTHER_FILES).max(1);
    if options.max_connections > left {
        warn!(
            open_files = files,
            configured = options.max_connections,
            connections = left,
            "limit of connections lowered to the limit of open files; raise the hard limit \
             (`ulimit -Hn`), or lower `limits.connections`"
        );
        options.max_connections = left;
    }
    options
}

#[cfg(not(unix))]
pub(super) const fn within_file_limit(options: ServerOptions) -> ServerOptions {
    options
}
