//! The connection that wakes up other processes, is woken up by them, and watches the server.

use core::time::Duration;
use std::sync::Arc;

use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_postgres::types::Type;

use super::error::Failure;
use super::session::Session;
use super::shared::{Shared, reconnect_delay};
use crate::telemetry;

/// How often the server is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two notifications.
const MIN_NOTIFY_INTERVAL: Duration = Duration::from_millis(50);

/// Listens, notifies and checks the server until the inbox is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut failures = 0;
    let mut closing = shared.closing.subscribe();
    let closed = async { drop(closing.wait_for(|closing| *closing).await) };
    let serve = async {
        loop {
            let failure = match shared.connector.connect().await {
                Ok(session) => {
                    if failures > 1 {
                        telemetry::database_available();
                    }
                    failures = 0;
                    // Changes while there was no connection.
                    shared.version.send_modify(|version| *version += 1);
                    serve(&shared, &session).await
                }
                Err(failure) => failure,
            };
            failures += 1;
            // One lost connection is opened again at once.
            if failures == 2 {
                telemetry::database_unavailable(&failure);
            }
            if !shared.health.is_connected() || !failure.is_loss() {
                shared.health.failed(failure);
            }
            time::sleep(reconnect_delay(failures)).await;
        }
    };
    tokio::select! {
        () = closed => {}
        () = serve => {}
    }
}

/// Returns why the connection cannot be used any more.
async fn serve(shared: &Shared, session: &Session) -> Failure {
    match serve_until_failure(shared, session).await {
        Err(failure) => failure,
        Ok(never) => match never {},
    }
}

async fn serve_until_failure(
    shared: &Shared,
    session: &Session,
) -> Result<core::convert::Infallible, Failure> {
    let channel = shared.connector.schema().name();
    let notifies = session.is_prepared();
    if notifies {
        session.batch("LISTEN inbox;").await?;
    }
    let mut announced = shared.announcements.subscribe();
    let mut checks = time::interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_notify = Instant::now();
    loop {
        let announcement = async {
            // The sender lives as long as the tasks.
            drop(announced.changed().await);
            time::sleep_until(next_notify).await;
        };
        tokio::select! {
            () = announcement, if notifies => {
                announced.mark_unchanged();
                next_notify = Instant::now() + MIN_NOTIFY_INTERVAL;
                // In a transaction of its own: one that writes would make other commits wait.
                session
                    .query("SELECT pg_notify($1, '')", &[(&channel, Type::TEXT)])
                    .await?;
            }
            _ = checks.tick() => {
                shared.connector.check(session).await?;
                shared.health.responds();
            }
            () = session.lost() => return Err(Failure::Lost),
        }
    }
}
