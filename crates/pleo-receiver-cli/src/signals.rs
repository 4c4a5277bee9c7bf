//! The signals that stop the program or reload its configuration.

use std::io;

use tokio::signal;

use crate::failure::Failure;

/// Returns a future that resolves on SIGTERM or SIGINT.
pub(crate) fn stop() -> Result<impl Future<Output = ()>, Failure> {
    #[cfg(unix)]
    {
        use signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot_wait)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_wait)?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    {
        let mut interrupt = signal::windows::ctrl_c().map_err(cannot_wait)?;
        Ok(async move {
            interrupt.recv().await;
        })
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
