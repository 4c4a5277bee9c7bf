//! Checks whether the receiver is ready for deliveries.

use core::time::Duration;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use pleo_receiver::{Receiver, Tls};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::{self, Instant};

use crate::failure::chain;

/// How long the result of the inbox's check is kept, so that frequent probes cost nothing.
const CACHED: Duration = Duration::from_secs(1);

/// How long the inbox's check may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The result of a check, with the reason.
pub(super) type Check = Result<String, String>;

/// Checks whether the receiver is ready for deliveries.
pub(super) struct Readiness {
    receiver: Receiver,
    tls: Option<Tls>,
    shutting_down: AtomicBool,
    /// The last check of the inbox. Locked during a check, so that one runs at a time.
    inbox: Mutex<Option<(Instant, Check)>>,
    /// The paused endpoints, as the inbox last said.
    paused: Mutex<Option<(Instant, Option<Vec<String>>)>>,
}

impl Readiness {
    pub(super) fn new(receiver: Receiver, tls: Option<Tls>) -> Self {
        Self {
            receiver,
            tls,
            shutting_down: AtomicBool::new(false),
            inbox: Mutex::new(None),
            paused: Mutex::new(None),
        }
    }

    pub(super) fn start_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Runs the checks.
    pub(super) async fn checks(&self) -> Vec<(&'static str, Check)> {
        let mut checks = vec![
            ("shutdown", self.shutdown()),
            ("dispatcher", self.dispatcher()),
            ("inbox", self.inbox().await),
        ];
        if let Some(tls) = &self.tls {
            checks.push(("certificate", certificate(tls, Timestamp::now())));
        }
        checks
    }

    /// Runs the checks. Returns `true` if all succeed, and a JSON object with the result and the
    /// reason of each.
    pub(super) async fn report(&self) -> (bool, String) {
        let checks = self.checks().await;
        let is_ready = checks.iter().all(|(_, check)| check.is_ok());
        let checks = checks.into_iter().map(|(name, check)| {
            let (Ok(reason) | Err(reason)) = &check;
            let check = json!({ "ok": check.is_ok(), "reason": reason });
            (name.to_owned(), check)
        });
        let checks: Map<String, Value> = checks.collect();
        let report = json!({ "ready": is_ready, "checks": checks, "paused": self.paused().await });
        (is_ready, format!("{report}\n"))
    }

    /// Returns the names of the paused endpoints; `None` if the inbox does not say. They don't make the
    /// receiver not ready: it still stores their deliveries.
    async fn paused(&self) -> Option<Vec<String>> {
        let mut last = self.paused.lock().await;
        if let Some((at, paused)) = &*last
            && at.elapsed() < CACHED
        {
            return paused.clone();
        }
        let stats = time::timeout(TIMEOUT, self.receiver.inbox().stats()).await;
        let paused = stats.ok().and_then(Result::ok).map(|stats| {
            let paused = stats.iter().filter(|stats| stats.paused);
            paused.map(|stats| stats.endpoint.to_string()).collect()
        });
        *last = Some((Instant::now(), paused.clone()));
        paused
    }

    fn shutdown(&self) -> Check {
        if self.shutting_down.load(Ordering::Relaxed) {
            Err("the receiver is shutting down".to_owned())
        } else {
            Ok("the receiver is not shutting down".to_owned())
        }
    }

    fn dispatcher(&self) -> Check {
        if self.receiver.is_dispatching() {
            Ok("the dispatcher runs".to_owned())
        } else {
            Err("the dispatcher does not run; see the log".to_owned())
        }
    }

    /// Checks the inbox, at most once in [`CACHED`].
    async fn inbox(&self) -> Check {
        let mut last = self.inbox.lock().await;
        if let Some((at, check)) = &*last
            && at.elapsed() < CACHED
        {
            return check.clone();
        }
        let check = match time::timeout(TIMEOUT, self.receiver.inbox().check()).await {
            Ok(Ok(())) => Ok("the inbox can store messages".to_owned()),
            Ok(Err(error)) => Err(format!(
                "the inbox cannot store messages: {}",
                chain(&error)
            )),
            Err(_) => Err(format!("the inbox did not respond within {TIMEOUT:?}")),
        };
        *last = Some((Instant::now(), check.clone()));
        check
    }
}

/// Checks that the certificate in use has not expired.
fn certificate(tls: &Tls, now: Timestamp) -> Check {
    match tls.expires_at() {
        None => Ok("the certificate tells no expiry".to_owned()),
        Some(at) if at > now => Ok(format!("the certificate is valid until {at}")),
        Some(at) => Err(format!("the certificate expired at {at}; renew it")),
    }
}
