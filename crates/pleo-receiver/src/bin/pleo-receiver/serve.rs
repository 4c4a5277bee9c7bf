//! `pleo-receiver serve`

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use pleo_receiver::{Inbox, InboxError, MemoryInbox, Receiver, Server, ServerOptions, SqliteInbox};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal;
use tracing::{info, warn};

use crate::cli::Serve;
use crate::config::{Config, Target};
use crate::{Failure, metrics};

/// Open files that are no connections from outside: the inbox, the handler's, listeners, logs.
#[cfg(unix)]
const OTHER_FILES: usize = 128;

/// How many connections may wait to be accepted. One more is dropped, and tried again by its client
/// after a second; the usual 128 are too few for a burst.
const BACKLOG: u32 = 4096;

pub(crate) async fn run(args: Serve, is_flag: impl Fn(&str) -> bool) -> Result<(), Failure> {
    if is_flag("secret") && args.secret.iter().any(|secret| secret.is_plain()) {
        warn!("every user of this machine can read a secret in the arguments: use env: or file:");
    }
    let config = Config::new(args, is_flag)?;
    // From here on a signal ends it in good order.
    let stop = stop_signal()?;
    let mut builder = Receiver::builder()
        .shared_inbox(open(&config.inbox)?)
        .trusted_proxies(config.trusted_proxies)
        .retry_policy(config.retry);
    let endpoints: Vec<_> = config
        .endpoints
        .iter()
        .map(|one| one.path().to_owned())
        .collect();
    for endpoint in config.endpoints {
        builder = builder.endpoint(endpoint);
    }
    builder = config.limits.receiver(builder);
    builder = match config.handler {
        None => builder,
        Some(Target::Exec(exec)) => builder.handler(exec),
        Some(Target::Forward(forward)) => builder.handler(*forward),
    };
    let receiver = builder
        .build()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(address) = config.metrics {
        let listener = bind(address, "metrics")?;
        tokio::spawn(metrics::serve(listener, receiver.clone()));
    }
    let options = within_file_limit(config.limits.server());
    let listener = bind(config.listen, "listen")?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::Run(error.to_string()))?;
    for path in endpoints {
        info!(
            "listening on http://{address}{path}, inbox {}",
            config.inbox
        );
    }
    let server = Server::new(receiver).options(options);
    server.listen(listener).run(stop).await?;
    info!("stopped in good order");
    Ok(())
}

/// Makes room for as many files as connections need, and takes fewer connections where the system
/// has not that much.
#[cfg(unix)]
fn within_file_limit(mut options: ServerOptions) -> ServerOptions {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the number of open files");
    }
    // No limit at all is `None`.
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
const fn within_file_limit(options: ServerOptions) -> ServerOptions {
    options
}

fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
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

/// Opens the inbox for a server.
pub(crate) fn open(url: &str) -> Result<Arc<dyn Inbox>, Failure> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryInbox::new()));
    }
    let inbox = SqliteInbox::open(sqlite_path(url)?).map_err(|error| match error {
        InboxError::Open { .. } => Failure::Usage(format!(
            "`--inbox`: {error}; choose a file in a folder that this user can write to"
        )),
        error => Failure::Usage(format!("`--inbox`: {error}")),
    })?;
    Ok(Arc::new(inbox))
}

/// The file that an inbox's URL names.
pub(crate) fn sqlite_path(url: &str) -> Result<&str, Failure> {
    let path = url.strip_prefix("sqlite:").filter(|path| !path.is_empty());
    path.ok_or_else(|| {
        let why = "is not an inbox: give `sqlite:FILE`, for instance `sqlite:pleo-inbox.db`";
        Failure::Usage(format!("`--inbox`: `{url}` {why}"))
    })
}

/// Resolves at SIGTERM or SIGINT.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let cannot = |error: io::Error| Failure::Run(format!("cannot wait for signals: {error}"));
    #[cfg(unix)]
    {
        use signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("told to stop: finishing what is in flight");
        })
    }
    #[cfg(not(unix))]
    {
        let mut interrupt = signal::windows::ctrl_c().map_err(cannot)?;
        Ok(async move {
            interrupt.recv().await;
        })
    }
}
