//! The configuration, read again at SIGHUP.

use core::convert::Infallible;
use std::sync::Arc;

use pleo_receiver::{Handler, Receiver, Tls};
use tracing::{error, info, warn};

use crate::args::Serve;
use crate::config::handler::Target;
use crate::config::load::{Config, Fixed};
use crate::failure::{Failure, chain};
use crate::log::Log;
use crate::signals::Hangup;

/// What a running server needs to take on a new configuration.
pub(super) struct Reload<'a> {
    pub(super) args: Serve,
    pub(super) log: &'a Log,
    pub(super) receiver: Receiver,
    pub(super) tls: Option<Tls>,
    pub(super) handler_hash: u64,
    pub(super) fixed: Fixed,
}

impl Reload<'_> {
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
        let config = Config::new(&self.args)?;
        // This too changes nothing where it fails, and whatever comes after it can't fail.
        if let Some(tls) = &self.tls {
            tls.reload()
                .map_err(|error| Failure::usage("TLS", &chain(&error)))?;
        }
        let endpoints = config.endpoints.len();
        (self.receiver.replace_endpoints(config.endpoints))
            .map_err(|error| Failure::Usage(chain(&error)))?;
        self.log.configure(config.log);
        if config.handler_hash != self.handler_hash {
            self.handler_hash = config.handler_hash;
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
