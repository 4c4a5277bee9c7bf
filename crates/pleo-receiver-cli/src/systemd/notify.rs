//! Tells systemd what the server does: `sd_notify(3)`.

use core::convert::Infallible;
use core::future::pending;

use sd_notify::NotifyState;
use tokio::time;
use tracing::warn;

/// What the server does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// It serves.
    Ready,
    /// It reloads its configuration. [`Ready`](Self::Ready) follows.
    Reloading,
    /// It shuts down.
    Stopping,
}

/// Tells systemd what the server does, if it started the server and waits for that.
pub(crate) fn notify(state: State) {
    send(&match state {
        State::Ready => vec![NotifyState::Ready],
        State::Reloading => {
            let since = NotifyState::monotonic_usec_now().ok();
            [NotifyState::Reloading].into_iter().chain(since).collect()
        }
        State::Stopping => vec![NotifyState::Stopping],
    });
}

/// Tells systemd again and again that the program runs, if it wants to hear that (`WatchdogSec=`).
pub(crate) async fn send_pings() -> Infallible {
    let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    let Some(limit) = limit else {
        return pending().await;
    };
    let mut interval = time::interval(limit / 2);
    loop {
        interval.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        let error = error.to_string();
        warn!(error, "systemd not notified");
    }
}
