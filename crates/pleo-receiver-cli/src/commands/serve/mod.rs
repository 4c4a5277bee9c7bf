//! `pleo-receiver serve`

mod reload;
mod sockets;

use pleo_receiver::{Receiver, Server, Tls};
use tokio::net::TcpListener;
use tracing::{info, warn};

use self::reload::Reload;
use self::sockets::{bind, within_file_limit};
use crate::admin::metrics;
use crate::args::Serve;
use crate::config::handler::Target;
use crate::config::load::{Config, Fixed};
use crate::failure::{Failure, chain};
use crate::log::Log;
use crate::signals::Hangup;
use crate::{inbox_url, signals};

pub(crate) async fn run(args: Serve, log: &Log) -> Result<(), Failure> {
    let config = Config::new(&args)?;
    log.configure(config.log);
    if args.flags.contains("secret") && args.secret.iter().any(|secret| secret.is_plain()) {
        warn!(
            "every user of this machine can read `--secret` in the arguments; use `env:NAME` or `file:PATH`"
        );
    }
    let tls = (config.fixed.tls.as_ref())
        .map(|files| Tls::from_pem_files(&files.certificate, &files.key))
        .transpose()
        .map_err(|error| Failure::usage("TLS", &chain(&error)))?;
    let stop = signals::stop()?;
    let stop = async {
        stop.await;
        info!("shutting down");
    };
    let hangup = Hangup::new()?;
    let Fixed { limits, inbox, .. } = &config.fixed;
    let mut builder = Receiver::builder()
        .shared_inbox(inbox_url::open(inbox, limits.inbox())?)
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
        (limits.receiver(builder).build()).map_err(|error| Failure::Usage(chain(&error)))?;
    if let Some(address) = config.fixed.metrics {
        let listener = bind(address, "metrics")?;
        tokio::spawn(metrics::serve(listener, receiver.clone(), log.lost_lines()));
    }

    let mut server = Server::new(receiver.clone()).options(within_file_limit(limits.server()));
    let listening = |scheme, listener: &TcpListener| {
        let address = listener.local_addr();
        let address = address.map_err(|error| Failure::run(&error))?;
        for path in &paths {
            let url = format!("{scheme}://{address}{path}");
            info!(url, inbox, "listening");
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
        log,
        receiver,
        tls,
        handler_hash: config.handler_hash,
        fixed: config.fixed,
    };
    tokio::select! {
        ended = server.run(stop) => ended?,
        never = reload.run(hangup) => match never {},
    }
    info!("shutdown complete");
    Ok(())
}
