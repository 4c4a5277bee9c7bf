//! Observes the deliveries and attempts of a receiver, and what its page does.

use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pleo_receiver::events::Envelope;
use pleo_receiver::inbox::{
    Completed, InboxFuture, LeaseId, LeaseRequest, Leased, Measurements, Outcome, Version,
};
use pleo_receiver::{
    Appended, Delivery, EndpointStats, Inbox, Key, NewMessage, Page, Query, Rejected, Rejection,
    Selection, StoredMessage,
};
use tokio::sync::mpsc;

/// How many events the screen can be behind.
const QUEUE: usize = 1024;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A delivery was stored, or was stored before.
    Accepted {
        webhook_id: Arc<str>,
        event_type: Option<String>,
        appended: Appended,
    },
    /// A request was rejected.
    Rejected {
        /// What the headers claim.
        webhook_id: Option<String>,
        /// The path, if no endpoint has it.
        path: Option<String>,
        rejection: Rejection,
    },
    /// An attempt ended.
    Attempt {
        webhook_id: Arc<str>,
        number: u32,
        elapsed: Duration,
        /// `None` if the lease was lost.
        outcome: Option<Outcome>,
        output: Output,
    },
    /// Messages are dispatched again.
    Replayed {
        /// The message, if it is one.
        webhook_id: Option<String>,
        count: u64,
        has_handler: bool,
    },
    /// The messages of the endpoint are not dispatched for now, or are dispatched again.
    Paused(bool),
    /// Something to tell the user.
    Note(String),
}

/// What a handler printed, or the body of a failed answer.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// The outputs of attempts that are not recorded yet, by message and number.
type Outputs = Arc<Mutex<HashMap<(String, u32), Output>>>;

/// Sends events to the screen. Never blocks: if the screen is too slow, events are dropped and
/// counted.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    events: mpsc::Sender<Event>,
    missed: Arc<AtomicU64>,
    outputs: Outputs,
}

/// Receives the events of an [`Observer`].
pub(super) struct Events {
    events: mpsc::Receiver<Event>,
    missed: Arc<AtomicU64>,
}

/// Creates an observer and the receiver of its events.
pub(super) fn observer() -> (Observer, Events) {
    let (sender, events) = mpsc::channel(QUEUE);
    let missed = Arc::<AtomicU64>::default();
    let observer = Observer {
        events: sender,
        missed: Arc::clone(&missed),
        outputs: Outputs::default(),
    };
    (observer, Events { events, missed })
}

impl Observer {
    pub(super) fn emit(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps the output of an attempt until it is recorded.
    pub(super) fn output(&self, delivery: &Delivery, stdout: &str, stderr: &str) {
        let key = (delivery.id().to_owned(), delivery.attempt());
        let output = Output {
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        self.outputs().insert(key, output);
    }

    fn outputs(&self) -> MutexGuard<'_, HashMap<(String, u32), Output>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a rejected request.
    pub(super) fn rejected(&self, rejected: Rejected<'_>) {
        self.emit(Event::Rejected {
            webhook_id: rejected.webhook_id.map(str::to_owned),
            path: rejected.path.map(str::to_owned),
            rejection: rejected.rejection,
        });
    }
}

impl Events {
    /// Returns the next event; a note of those that were dropped first.
    pub(super) async fn next(&mut self) -> Option<Event> {
        match self.missed() {
            None => self.events.recv().await,
            note => note,
        }
    }

    /// Returns the next event if there is one already.
    pub(super) fn try_next(&mut self) -> Option<Event> {
        self.missed().or_else(|| self.events.try_recv().ok())
    }

    /// Returns a note of the events that were dropped.
    fn missed(&self) -> Option<Event> {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        (missed > 0).then(|| Event::Note(format!("{missed} lines are left out")))
    }
}

/// An inbox that reports what is stored in it and how attempts end.
#[derive(Debug)]
pub(super) struct ObservedInbox {
    inbox: Arc<dyn Inbox>,
    observer: Observer,
    attempts: Mutex<HashMap<LeaseId, Attempt>>,
    has_handler: bool,
}

/// An attempt in progress.
#[derive(Debug)]
struct Attempt {
    webhook_id: Arc<str>,
    number: u32,
    started: Instant,
}

impl ObservedInbox {
    pub(super) fn new(inbox: Arc<dyn Inbox>, observer: Observer, has_handler: bool) -> Self {
        Self {
            inbox,
            observer,
            attempts: Mutex::default(),
            has_handler,
        }
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<LeaseId, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox for ObservedInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        Box::pin(async move {
            let webhook_id = Arc::clone(&message.webhook_id);
            let envelope = Envelope::parse(&message.body);
            let event_type = envelope.ok().map(|body| body.event_type().to_owned());
            let appended = self.inbox.append(message).await?;
            self.observer.emit(Event::Accepted {
                webhook_id,
                event_type,
                appended,
            });
            Ok(appended)
        })
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        Box::pin(async move {
            let leased = self.inbox.lease(request).await?;
            let started = Instant::now();
            let attempts = leased.messages.iter().map(|leased| {
                let attempt = Attempt {
                    webhook_id: Arc::clone(&leased.message.entry.webhook_id),
                    number: leased.attempt.get(),
                    started,
                };
                (leased.lease, attempt)
            });
            self.attempts().extend(attempts);
            Ok(leased)
        })
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        self.inbox.renew(leases, ttl)
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        Box::pin(async move {
            let ended = Instant::now();
            let completed = self.inbox.complete(lease, outcome.clone()).await?;
            let attempt = self.attempts().remove(&lease);
            if let Some(attempt) = attempt {
                let key = (attempt.webhook_id.to_string(), attempt.number);
                let output = self.observer.outputs().remove(&key);
                self.observer.emit(Event::Attempt {
                    webhook_id: attempt.webhook_id,
                    number: attempt.number,
                    elapsed: ended.duration_since(attempt.started),
                    outcome: (completed == Completed::Recorded).then_some(outcome),
                    output: output.unwrap_or_default(),
                });
            }
            Ok(completed)
        })
    }

    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inbox.changed(seen)
    }

    fn list(&self, query: Query) -> InboxFuture<'_, Page> {
        self.inbox.list(query)
    }

    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        self.inbox.get(key)
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        Box::pin(async move {
            let webhook_id = selection.webhook_id.clone();
            let count = self.inbox.replay(selection).await?;
            if count > 0 {
                self.observer.emit(Event::Replayed {
                    webhook_id,
                    count,
                    has_handler: self.has_handler,
                });
            }
            Ok(count)
        })
    }

    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.inbox.prune(selection)
    }

    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()> {
        Box::pin(async move {
            self.inbox.set_paused(endpoint, paused).await?;
            self.observer.emit(Event::Paused(paused));
            Ok(())
        })
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        self.inbox.stats()
    }

    fn measurements(&self) -> InboxFuture<'_, Measurements> {
        self.inbox.measurements()
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        self.inbox.check()
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.inbox.close()
    }
}
