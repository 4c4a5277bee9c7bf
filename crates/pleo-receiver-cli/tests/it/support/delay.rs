//! Measures how long an attack delays deliveries.

use core::time::Duration;
use std::time::Instant;

use crate::support::http::{Request, send_to};
use crate::support::program::{RunningServer, SECRET, WorkDir};

const MAX_DELAY: Duration = Duration::from_secs(1);

/// The response times of an attacked server, and those of a second server on the same
/// machine.
pub(crate) struct DelayMeter {
    control: RunningServer,
    slowest: Duration,
    slowest_control: Duration,
}

impl DelayMeter {
    /// Starts the second server.
    pub(crate) fn start(dir: &WorkDir) -> Self {
        dir.write("control.toml", "inbox = \"memory:\"\n");
        let env = [("PLEO_WEBHOOK_SECRET", SECRET)];
        Self {
            control: dir.serve(&["--config", "control.toml"], &env),
            slowest: Duration::ZERO,
            slowest_control: Duration::ZERO,
        }
    }

    /// Measures a delivery to the attacked server, and a concurrent one to the second server. Asserts
    /// that both are acknowledged.
    pub(crate) async fn measure(&mut self, name: &str, delivery: impl Future<Output = u16>) {
        let request = Request::signed("msg_1", b"{}");
        let control = async { send_to(self.control.address(), &request).await.status };
        let ((status, took), (control_status, control_took)) =
            tokio::join!(timed(delivery), timed(control));
        assert_eq!((status, control_status), (204, 204), "{name}");
        self.slowest = self.slowest.max(took);
        self.slowest_control = self.slowest_control.max(control_took);
    }

    /// Asserts that the attack delayed no delivery by more than a second.
    pub(crate) fn assert_prompt(&self, name: &str) {
        assert!(
            self.slowest < self.slowest_control + MAX_DELAY,
            "{name}: took {:?}, without attack {:?}",
            self.slowest,
            self.slowest_control
        );
    }
}

async fn timed<T>(delivery: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    (delivery.await, start.elapsed())
}
