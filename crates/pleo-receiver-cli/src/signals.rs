//! The signals that stop the program or reload its configuration.

use std::io;

use tokio::signal;

use crate::failure::Failure;

/// Receives SIGTERM and SIGINT.
pub(crate) struct Stop {
    #[cfg(unix)]
    terminate: signal::unix::Signal,
    #[cfg(unix)]
    interrupt: signal::unix::Signal,
    #[cfg(not(unix))]
    interrupt: signal::windows::CtrlC,
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use signal::unix::{SignalKind, signal};
            Ok(Self {
                terminate: signal(SignalKind::terminate()).map_err(cannot_wait)?,
                interrupt: signal(SignalKind::interrupt()).map_err(cannot_wait)?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {
            interrupt: signal::windows::ctrl_c().map_err(cannot_wait)?,
        })
    }

    /// Resolves on the next SIGTERM or SIGINT.
    pub(crate) async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        self.interrupt.recv().await;
    }
}

/// Receives SIGHUP, on systems that have it.
pub(crate) struct Hangup(#[cfg(unix)] signal::unix::Signal);

impl Hangup {
    pub(crate) fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use signal::unix::{SignalKind, signal};
            signal(SignalKind::hangup()).map(Self).map_err(cannot_wait)
        }
        #[cfg(not(unix))]
        Ok(Self())
    }

    /// Resolves on the next SIGHUP.
    pub(crate) async fn wait(&mut self) {
        #[cfg(unix)]
        if self.0.recv().await.is_some() {
            return;
        }
        core::future::pending().await
    }
}

fn cannot_wait(error: io::Error) -> Failure {
    Failure::Run(format!("cannot wait for signals: {error}"))
}
