//! Adapts the limit of open files and the limit of connections to each other.

use pleo_receiver::ServerOptions;
#[cfg(unix)]
use tracing::warn;

/// The number of open files besides client connections that are assumed when the limit is too low for
/// all connections.
#[cfg(unix)]
const OTHER_FILES: usize = 128;

/// The maximum number of open files besides client connections, including pipes of commands and
/// connections to forward targets. The limit is raised no further: commands inherit it, and some
/// close every possible file when they start.
#[cfg(unix)]
const MAX_OTHER_FILES: u64 = 8192;

/// Raises the limit of open files as far as the connections need. Lowers the limit of connections if
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
    let max_files = usize::try_from(files).unwrap_or(usize::MAX);
    let possible = max_files.saturating_sub(OTHER_FILES).max(1);
    if options.max_connections > possible {
        warn!(
            open_files = files,
            configured = options.max_connections,
            connections = possible,
            "limit of connections lowered to the limit of open files; raise the hard limit \
             (`ulimit -Hn`), or lower `limits.connections`"
        );
        options.max_connections = possible;
    }
    options
}

#[cfg(not(unix))]
pub(super) const fn within_file_limit(options: ServerOptions) -> ServerOptions {
    options
}
