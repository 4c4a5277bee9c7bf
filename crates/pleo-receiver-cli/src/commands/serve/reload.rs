//! The configuration, read again at SIGHUP.

use core::convert::Infallible;
use core::future::pending;
use std::sync::Arc;

use pleo_receiver::{Handler, Receiver, Tls};
use tracing::{error, info, warn};

use crate::args::Serve;
use crate::config::{Config, Fixed, Target};
use crate::failure::Failure;
use crate::log::Log;

/// What a running server needs to take on a new configuration.
pub(super) struct Reload<'a, F> {
    pub(super) args: Serve,
    pub(super) is_flag: F,
    pub(super) log: &'a Log,
    pub(super) receiver: Receiver,
    pub(super) tls: Option<Tls>,
    pub(super) handing_on: u64,
    pub(super) fixed: Fixed,
}

impl<F: Fn(&str) -> bool> Reload<'_, F> {
    /// Takes on what the configuration says, whenever told so. One that is wrong changes nothing.
    pub(super) async fn run(mut self, mut hangup: Hangup) -> Infallible {
        loop {
            hangup.wait().await;
            match self.reload() {
                Ok(endpoints) => info!(endpoints, "read the configuration again"),
                Err(Failure::Usage(why) | Failure::Run(why)) => {
                    error!("the new configuration is refused, and the old one stays: {why}");
                }
                Err(error) => error!("the old configuration stays: {error:?}"),
            }
        }
    }

    /// Says how many endpoints there are now.
    fn reload(&mut self) -> Result<usize, Failure> {
        let config = Config::new(self.args.clone(), &self.is_flag)?;
        let wrong = |why: String| Failure::Usage(why);
        // This too changes nothing where it fails, and whatever comes after it can't fail.
        if let Some(tls) = &self.tls {
            tls.reload()
                .map_err(|error| wrong(format!("TLS: {error}")))?;
        }
        let endpoints = config.endpoints.len();
        (self.receiver.replace_endpoints(config.endpoints))
            .map_err(|error| wrong(error.to_string()))?;
        self.log.configure(config.log);
        if config.handing_on != self.handing_on {
            self.handing_on = config.handing_on;
            let handler = config.handler.map(|target| -> Arc<dyn Handler> {
                match target {
                    Target::Exec(exec) => Arc::new(exec),
                    Target::Forward(forward) => Arc::new(*forward),
                }
            });
            self.receiver.replace_handler(handler, config.retry);
            info!("messages are handed on as the new configuration says");
        }
        for key in self.fixed.changes(&config.fixed) {
            warn!("only a restart makes the change of {key} count");
        }
        Ok(endpoints)
    }
}

/// The signal SIGHUP, where there is one.
pub(super) struct Hangup(#[cfg(unix)] tokio::signal::unix::Signal);

impl Hangup {
    pub(super) fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let cannot = |error| Failure::Run(format!("cannot wait for signals: {error}"));
            signal(SignalKind::hangup()).map(Self).map_err(cannot)
        }
        #[cfg(not(unix))]
        Ok(Self())
    }

    async fn wait(&mut self) {
        #[cfg(unix)]
        if self.0.recv().await.is_some() {
            return;
        }
        pending().await
    }
}
