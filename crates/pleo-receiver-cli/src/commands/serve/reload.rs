//! Reloads the configuration on SIGHUP.

use core::convert::Infallible;
use std::sync::Arc;

use pleo_receiver::{Handler, Receiver, Tls};
use tracing::{error, info, warn};

use super::tasks::RunningTasks;
use crate::args::Serve;
use crate::config::handler::Target;
use crate::config::load::{Config, Fixed};
use crate::failure::{Failure, chain};
use crate::log::Log;
use crate::signals::Hangup;

/// The state of a running server that a reload needs.
pub(super) struct Reload<'a> {
    pub(super) args: Serve,
    pub(super) log: &'a Log,
    pub(super) receiver: Receiver,
    pub(super) tls: Option<Tls>,
    pub(super) tasks: RunningTasks,
    pub(super) handler_hash: u64,
    pub(super) fixed: Fixed,
}

impl Reload<'_> {
    /// Reloads the configuration on each SIGHUP. An invalid configuration changes nothing.
    pub(super) async fn run(mut self, mut hangup: Hangup) -> Infallible {
        loop {
            hangup.wait().await;
            match self.reload() {
                Ok(endpoints) => info!(endpoints, "configuration reloaded"),
                Err(failure) => {
                    let error = failure.to_string();
                    error!(
                        error,
                        "configuration not reloaded; the old one stays in effect"
                    );
                }
            }
        }
    }

    /// Reloads the configuration once. Returns the number of endpoints.
    fn reload(&mut self) -> Result<usize, Failure> {
        let config = Config::new(&self.args)?;
        // The two steps that can fail come first. Each changes nothing if it fails.
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
            info!("handler changed");
        }
        self.tasks.restart(config.tasks);
        for key in self.fixed.changes(&config.fixed) {
            warn!(key, "setting changed; restart the receiver to apply it");
        }
        Ok(endpoints)
    }
}
