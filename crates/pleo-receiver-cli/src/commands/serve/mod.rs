//! `pleo-receiver serve`

mod reload;
mod sockets;

use std::io;
use std::sync::Arc;

use pleo_receiver::{
    Inbox, InboxError, MemoryInbox, Receiver, Server, SqliteInbox, SqliteOptions, Tls,
};
use tokio::net::TcpListener;
use tokio::signal;
use tracing::{info, warn};

use self::reload::{Hangup, Reload};
use self::sockets::{bind, within_file_limit};
use crate::admin::metrics;
use crate::args::Serve;
use crate::config::{Config, Fixed, Target};
use crate::failure::{Failure, chain};
use crate::log::Log;

pub(crate) async fn run(
    args: Serve,
    is_flag: impl Fn(&str) -> bool,
    log: &Log,
) -> Result<(), Failure> {
    let config = Config::new(args.clone(), &is_flag)?;
    log.configure(config.log);
    if is_flag("secret") && args.secret.iter().any(|secret| secret.is_plain()) {
        warn!("every user of this machine can read a secret in the arguments: use env: or file:");
    }
    let tls = (config.fixed.tls.as_ref())
        .map(|files| Tls::from_pem_files(&files.certificate, &files.key))
        .transpose()
        .map_err(|error| Failure::Usage(format!("TLS: {error}")))?;
    // From here on a signal ends it in good order.
    let stop = stop_signal()?;
    let hangup = Hangup::new()?;
    let Fixed { limits, inbox, .. } = &config.fixed;
    let mut builder = Receiver::builder()
        .shared_inbox(open(inbox, limits.inbox())?)
        .trusted_proxies(config.fixed.trusted_proxies.clone())
        .dispatch_options(config.retry);
    let paths: Vec<_> = (config.endpoints.iter())
        .map(|endpoint| endpoint.path().to_owned())
        .collect();
    for endpoint in config.endpoints {
        builder = builder.endpoint(endpoint);
    }
    builder = match config.handler {
        None => builder,
        Some(Target::Exec(exec)) => builder.handler(exec),
        Some(Target::Forward(forward)) => builder.handler(*forward),
    };
    let receiver =
        (limits.receiver(builder).build()).map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(address) = config.fixed.metrics {
        let listener = bind(address, "metrics")?;
        tokio::spawn(metrics::serve(
            listener,
            receiver.clone(),
            log.lost().clone(),
        ));
    }

    let mut server = Server::new(receiver.clone()).options(within_file_limit(limits.server()));
    let listening = |scheme, listener: &TcpListener| {
        let address = listener.local_addr();
        let address = address.map_err(|error| Failure::Run(error.to_string()))?;
        for path in &paths {
            info!("listening on {scheme}://{address}{path}, inbox {inbox}");
        }
        Ok::<_, Failure>(())
    };
    if let Some(address) = config.fixed.listen {
        let listener = bind(address, "listen")?;
        listening("http", &listener)?;
        server = server.listen(listener);
    }
    if let (Some(files), Some(tls)) = (&config.fixed.tls, &tls) {
        let listener = bind(files.listen, "tls-listen")?;
        listening("https", &listener)?;
        server = server.listen_tls(listener, tls.clone());
    }
    let reload = Reload {
        args,
        is_flag,
        log,
        receiver,
        tls,
        handing_on: config.handing_on,
        fixed: config.fixed,
    };
    tokio::select! {
        ended = server.run(stop) => ended?,
        never = reload.run(hangup) => match never {},
    }
    info!("stopped in good order");
    Ok(())
}

/// Opens the inbox for a server.
pub(crate) fn open(url: &str, options: SqliteOptions) -> Result<Arc<dyn Inbox>, Failure> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryInbox::new()));
    }
    let inbox =
        SqliteInbox::open_with(sqlite_path(url)?, options).map_err(|error| match error {
            InboxError::Open { .. } => Failure::Usage(format!(
                "`--inbox`: {}; choose a file in a folder that this user can write to, on a disk with room",
                chain(&error)
            )),
            error => Failure::Usage(format!("`--inbox`: {}", chain(&error))),
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
