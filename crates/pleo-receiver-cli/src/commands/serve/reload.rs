//! Reloads the configuration on SIGHUP.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::{io, thread};

use pleo_receiver::{Endpoint, Handler, Receiver, Tls};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time;
use tracing::{error, info, warn};

use super::tasks::RunningTasks;
use super::warn_of_handler;
use crate::admin::Admin;
use crate::admin::metrics::ReloadMetrics;
use crate::args::Serve;
use crate::config::handler::Target;
use crate::config::load::{Config, Fixed};
use crate::config::settled;
use crate::failure::{Failure, chain};
use crate::log::Log;
use crate::signals::Hangup;
#[cfg(unix)]
use crate::systemd::{State, notify};

/// The maximum time to read all files. Longer than the time until they are unchanged.
const READ_LIMIT: Duration = settled::LIMIT.saturating_add(Duration::from_secs(5));

/// The maximum time to count the pending messages of removed endpoints.
const COUNT_LIMIT: Duration = Duration::from_secs(5);

/// The state of a running server that a reload needs.
pub(super) struct Reload<'a> {
    pub(super) args: Arc<Serve>,
    pub(super) log: &'a Log,
    pub(super) admin: Arc<Admin>,
    pub(super) metrics: ReloadMetrics,
    pub(super) receiver: Receiver,
    pub(super) tls: Option<Tls>,
    pub(super) tasks: RunningTasks,
    pub(super) handler_hash: u64,
    pub(super) fixed: Fixed,
    /// The names of the endpoints.
    pub(super) endpoints: BTreeSet<Arc<str>>,
    /// The end of a read that has exceeded its time limit.
    pub(super) hanging: Option<oneshot::Receiver<Result<Config, Failure>>>,
}

impl Reload<'_> {
    /// Reloads the configuration on each SIGHUP. An invalid configuration changes nothing.
    pub(super) async fn run(mut self, mut hangup: Hangup) -> Infallible {
        loop {
            hangup.wait().await;
            #[cfg(unix)]
            notify(State::Reloading);
            let reloaded = self.reload().await;
            #[cfg(unix)]
            notify(State::Ready);
            self.metrics.reloaded(reloaded.is_ok());
            match reloaded {
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
    async fn reload(&mut self) -> Result<usize, Failure> {
        let config = self.read().await?;
        let names = config.endpoints.iter();
        let names: BTreeSet<_> = names.map(Endpoint::name).cloned().collect();
        let endpoints = config.endpoints.len();
        (self.receiver.replace_endpoints(config.endpoints))
            .map_err(|error| Failure::Usage(chain(&error)))?;
        self.log.configure(config.log);
        // The credentials that belong to another address may not be enough for this one.
        if config.fixed.admin == self.fixed.admin {
            self.admin.set_access(config.admin.access);
        }
        let handler_changed = config.handler_hash != self.handler_hash;
        let missing = config.handler.as_ref().and_then(Target::missing_program);
        // A program may be gone though its name is the same.
        if handler_changed || missing.is_some() {
            warn_of_handler(config.handler.as_ref());
        }
        if handler_changed {
            self.handler_hash = config.handler_hash;
            self.admin
                .set_handler(config.handler.as_ref().map(Target::kind));
            let handler = config.handler.map(|target| -> Arc<dyn Handler> {
                match target {
                    Target::Exec { exec, .. } => Arc::new(exec),
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
        let removed = core::mem::replace(&mut self.endpoints, names);
        self.warn_of_removed(&removed).await;
        Ok(endpoints)
    }

    /// Reads the configuration and the certificate in a thread of its own: a file may hang, as on a
    /// network disk, and must not delay a shutdown.
    async fn read(&mut self) -> Result<Config, Failure> {
        if let Some(Err(TryRecvError::Empty)) = self.hanging.as_mut().map(|end| end.try_recv()) {
            return Err(Failure::Run(
                "reading a file hangs since an earlier reload; restart the receiver".to_owned(),
            ));
        }
        let (sender, mut result) = oneshot::channel();
        let (args, tls) = (Arc::clone(&self.args), self.tls.clone());
        let files = self.fixed.tls.clone();
        let read = move || {
            let more = files
                .as_ref()
                .map(|files| [&*files.certificate, &*files.key]);
            let config = settled::read(&args, more.as_ref().map_or(&[], |files| files))?;
            // Changes nothing if it fails.
            let tls = tls.as_ref().map(Tls::reload).transpose();
            tls.map_err(|error| Failure::usage("TLS", &chain(&error)))?;
            Ok(config)
        };
        let thread = thread::Builder::new().name("reload".to_owned());
        let started = thread.spawn(move || {
            // Nobody receives it after a shutdown.
            let _ = sender.send(read());
        });
        started.map_err(cannot_read)?;
        match time::timeout(READ_LIMIT, &mut result).await {
            Ok(Ok(config)) => config,
            Ok(Err(_)) => Err(cannot_read(io::Error::other("the thread panicked"))),
            Err(_) => {
                self.hanging = Some(result);
                let why = format!("reading its files takes longer than {READ_LIMIT:?}");
                Err(cannot_read(io::Error::other(why)))
            }
        }
    }

    /// Warns of each removed endpoint, and says how many of its messages are pending.
    async fn warn_of_removed(&self, before: &BTreeSet<Arc<str>>) {
        let mut removed = before.difference(&self.endpoints).peekable();
        if removed.peek().is_none() {
            return;
        }
        let stats = time::timeout(COUNT_LIMIT, self.receiver.inbox().stats()).await;
        let stats = stats.ok().and_then(Result::ok);
        for endpoint in removed {
            // `None` if the inbox doesn't say.
            let pending = stats.as_ref().map(|stats| {
                let own = stats.iter().find(|stats| stats.endpoint == *endpoint);
                own.map_or(0, |stats| stats.pending())
            });
            warn!(
                endpoint = &**endpoint,
                pending, "endpoint removed; its pending messages are still dispatched"
            );
        }
    }
}

fn cannot_read(error: io::Error) -> Failure {
    Failure::Run(format!("cannot read the configuration: {error}"))
}
