//! The log tells only what is known of an outcome. Time is paused.

use core::fmt;
use core::time::Duration;
use std::sync::{Arc, Mutex};

use pleo_receiver::State;
use tokio::time;
use tracing::field::{Field, Visit};
use tracing::{Event, subscriber};

use crate::support::on_event::OnEvent;

use super::faults::{Behavior, inbox};
use super::leases::SlowHandler;
use super::{Running, entry, options, run_until_idle};

/// Collects the texts of log lines.
#[derive(Clone, Default)]
struct Texts(Arc<Mutex<Vec<String>>>);

impl Texts {
    fn contains(&self, part: &str) -> bool {
        let texts = self.0.lock().unwrap();
        texts.iter().any(|text| text.contains(part))
    }
}

impl Visit for Texts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

/// Returns the log of an attempt whose outcome is recorded in this way at first. Asserts the state of
/// the message.
async fn log(behavior: Behavior, state: State) -> Texts {
    let texts = Texts::default();
    let collected = texts.clone();
    let collect = OnEvent(move |event: &Event<'_>| event.record(&mut collected.clone()));
    let _guard = subscriber::set_default(collect);
    let inbox = inbox().await;
    let (handler, mut slow) = SlowHandler::new();
    let running = Running::start_with(Arc::clone(&inbox), options(), handler);
    slow.attempts.recv().await.unwrap();
    inbox.complete.set(behavior);
    slow.permits.add_permits(1);
    slow.dropped.recv().await.unwrap();
    run_until_idle().await;
    inbox.complete.set(Behavior::Work);
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(entry(&*inbox, "a").await.state, state);
    running.stop().await;
    texts
}

#[tokio::test(start_paused = true)]
async fn promises_no_redelivery_if_earlier_try_recorded_outcome() {
    let texts = log(Behavior::LoseReply, State::Done).await;
    assert!(texts.contains("cannot record outcome; retrying"));
    assert!(texts.contains("outcome was recorded by an earlier try, or its lease was lost"));
    assert!(!texts.contains("message will be redelivered"));
}

#[tokio::test(start_paused = true)]
async fn announces_redelivery_if_lease_was_lost_at_first_try() {
    let texts = log(Behavior::Lose, State::Pending).await;
    assert!(texts.contains("lease lost before its outcome was recorded"));
    assert!(!texts.contains("earlier try"));
}
