//! Tests of inboxes that hang, fail or panic. Time is paused.

use core::future::pending;
use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pleo_receiver::inbox::{Completed, InboxFuture, LeaseId, LeaseRequest, Leased, Outcome};
use pleo_receiver::{Inbox, InboxError, InboxErrorKind, MemoryInbox, State};
use tokio::time::{self, Instant};

use super::leases::SlowHandler;
use super::{Running, assert_handled, entry, memory, message, options, run_until_idle};
use crate::support::counted;

/// How the calls of a method behave.
#[derive(Clone, Copy, Debug)]
pub(super) enum Behavior {
    Work,
    Fail(InboxErrorKind),
    Hang,
    Panic,
    /// Takes a second.
    Slow,
    /// Reports all leases as lost.
    Lose,
    /// Works, and returns an error nevertheless.
    LoseReply,
}

/// The behavior of one method, and the number of its calls.
#[derive(Debug)]
pub(super) struct Method {
    behavior: Mutex<Behavior>,
    calls: AtomicU64,
}

impl Method {
    fn new() -> Self {
        Self {
            behavior: Mutex::new(Behavior::Work),
            calls: AtomicU64::new(0),
        }
    }

    pub(super) fn set(&self, behavior: Behavior) {
        *self.behavior.lock().unwrap() = behavior;
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn call(&self) -> Result<Behavior, InboxError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let behavior = *self.behavior.lock().unwrap();
        match behavior {
            Behavior::Work | Behavior::Lose | Behavior::LoseReply => {}
            Behavior::Fail(kind) => return Err(kind.into()),
            Behavior::Hang => pending().await,
            Behavior::Panic => panic!("this panic is part of the test"),
            Behavior::Slow => time::sleep(Duration::from_secs(1)).await,
        }
        Ok(behavior)
    }
}

/// An inbox in memory whose dispatching methods can fail.
#[derive(Debug)]
pub(super) struct FaultyInbox {
    inner: MemoryInbox,
    pub(super) lease: Method,
    pub(super) renew: Method,
    pub(super) complete: Method,
}

impl FaultyInbox {
    pub(super) fn new() -> Self {
        Self {
            inner: memory(),
            lease: Method::new(),
            renew: Method::new(),
            complete: Method::new(),
        }
    }
}

impl Inbox for FaultyInbox {
    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        Box::pin(async {
            self.lease.call().await?;
            self.inner.lease(request).await
        })
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        Box::pin(async move {
            match self.renew.call().await? {
                Behavior::Lose => Ok(leases),
                _ => self.inner.renew(leases, ttl).await,
            }
        })
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        Box::pin(async move {
            let behavior = self.complete.call().await?;
            if let Behavior::Lose = behavior {
                return Ok(Completed::Lost);
            }
            let completed = self.inner.complete(lease, outcome).await;
            if let Behavior::LoseReply = behavior {
                return Err(InboxErrorKind::Unavailable.into());
            }
            completed
        })
    }

    delegate_to_inner!(append, close);
}

/// Returns an inbox with message `a`.
pub(super) async fn inbox() -> Arc<FaultyInbox> {
    let inbox = Arc::new(FaultyInbox::new());
    inbox.append(message("a")).await.unwrap();
    inbox
}

#[tokio::test(start_paused = true)]
async fn hanging_lease_request_keeps_no_overdue_handler() {
    let inbox = inbox().await;
    let (handler, mut slow) = SlowHandler::new();
    let running = Running::start_with(Arc::clone(&inbox), options(), handler);
    slow.attempts.recv().await.unwrap();
    inbox.lease.set(Behavior::Hang);
    inbox.renew.set(Behavior::Hang);
    // A new message causes a lease request.
    inbox.append(message("b")).await.unwrap();
    let start = Instant::now();
    slow.dropped.recv().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(inbox.lease.calls(), 2);
    running.dispatch.abort();
}

#[tokio::test(start_paused = true)]
async fn hanging_lease_request_is_repeated() {
    let inbox = inbox().await;
    inbox.lease.set(Behavior::Hang);
    let (handler, mut slow) = SlowHandler::new();
    let running = Running::start_with(Arc::clone(&inbox), options(), handler);
    run_until_idle().await;
    inbox.lease.set(Behavior::Work);
    let start = Instant::now();
    slow.attempts.recv().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 31);
    slow.permits.add_permits(1);
    slow.dropped.recv().await.unwrap();
    assert_handled(&running.stop().await, 1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_while_lease_request_hangs() {
    let inbox = inbox().await;
    inbox.lease.set(Behavior::Hang);
    let running = Running::start_with(inbox, options(), SlowHandler::new().0);
    run_until_idle().await;
    let start = Instant::now();
    running.stop().await;
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn shutdown_during_lease_request_releases_its_messages() {
    let inbox = inbox().await;
    inbox.lease.set(Behavior::Slow);
    let (handler, slow) = SlowHandler::new();
    let running = Running::start_with(Arc::clone(&inbox), options(), handler);
    run_until_idle().await;
    running.stop().await;
    assert!(slow.attempts.is_empty(), "a handler started");
    let entry = entry(&*inbox, "a").await;
    assert_eq!((entry.leased, entry.attempts), (false, 0));
}

#[tokio::test(start_paused = true)]
async fn replaced_options_apply_to_lease_request_in_progress() {
    let inbox = inbox().await;
    inbox.append(message("b")).await.unwrap();
    inbox.lease.set(Behavior::Slow);
    let (handler, mut slow) = SlowHandler::new();
    let old = SlowHandler::new().0;
    let running = Running::start_with(Arc::clone(&inbox), options(), old);
    run_until_idle().await;
    let one_at_a_time = options().with_concurrency(1);
    let handler = Arc::new(handler);
    running
        .receiver
        .replace_handler(Some(handler), one_at_a_time);
    slow.attempts.recv().await.unwrap();
    time::sleep(Duration::from_secs(5)).await;
    assert!(slow.attempts.is_empty(), "a second handler started");
    slow.permits.add_permits(2);
    slow.attempts.recv().await.unwrap();
    assert_handled(&running.stop().await, 2, 0, 0);
    for id in ["a", "b"] {
        assert_eq!(entry(&*inbox, id).await.attempts, 1, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_lease_request_is_repeated_after_delay() {
    let inbox = inbox().await;
    let (handler, mut slow) = SlowHandler::new();
    let running = Running::start_with(Arc::clone(&inbox), options(), handler);
    slow.attempts.recv().await.unwrap();
    run_until_idle().await;
    let before = inbox.lease.calls();
    inbox.lease.set(Behavior::Fail(InboxErrorKind::Unavailable));
    for id in 0..10 {
        // A change does not shorten the delay.
        inbox.append(message(&id.to_string())).await.unwrap();
        run_until_idle().await;
        time::sleep(Duration::from_secs(1)).await;
    }
    let calls = inbox.lease.calls() - before;
    assert!((9..=11).contains(&calls), "{calls}");
    inbox.lease.set(Behavior::Work);
    slow.attempts.recv().await.unwrap();
    running.dispatch.abort();
}

#[tokio::test(start_paused = true)]
async fn fatal_error_ends_dispatcher_and_stops_handlers() {
    for method in ["lease", "renew", "complete"] {
        let inbox = inbox().await;
        let (handler, mut slow) = SlowHandler::new();
        let running = Running::start_with(Arc::clone(&inbox), options(), handler);
        slow.attempts.recv().await.unwrap();
        inbox.append(message("b")).await.unwrap();
        slow.attempts.recv().await.unwrap();
        let fatal = Behavior::Fail(InboxErrorKind::Fatal);
        match method {
            "lease" => {
                inbox.lease.set(fatal);
                inbox.append(message("c")).await.unwrap();
            }
            "renew" => inbox.renew.set(fatal),
            _ => {
                inbox.complete.set(fatal);
                slow.permits.add_permits(1);
            }
        }
        let ended = running.dispatch.await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), InboxErrorKind::Fatal, "{method}");
        for _ in 0..2 {
            slow.dropped.recv().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fatal_error_during_shutdown_is_returned() {
    let inbox = inbox().await;
    let (handler, mut slow) = SlowHandler::new();
    let running = Running::start_with(Arc::clone(&inbox), options(), handler);
    slow.attempts.recv().await.unwrap();
    inbox.complete.set(Behavior::Fail(InboxErrorKind::Fatal));
    running.stop.send(()).unwrap();
    run_until_idle().await;
    slow.permits.add_permits(1);
    let ended = running.dispatch.await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), InboxErrorKind::Fatal);
}

#[tokio::test(start_paused = true)]
async fn panic_restarts_dispatcher_and_message_is_redelivered() {
    for method in ["lease", "renew", "complete"] {
        let inbox = inbox().await;
        let (handler, mut slow) = SlowHandler::new();
        let running = Running::start_with(Arc::clone(&inbox), options(), handler);
        slow.attempts.recv().await.unwrap();
        match method {
            "lease" => {
                inbox.lease.set(Behavior::Panic);
                inbox.append(message("b")).await.unwrap();
            }
            "renew" => inbox.renew.set(Behavior::Panic),
            _ => {
                inbox.complete.set(Behavior::Panic);
                slow.permits.add_permits(1);
            }
        }
        slow.dropped.recv().await.unwrap();
        for method in [&inbox.lease, &inbox.renew, &inbox.complete] {
            method.set(Behavior::Work);
        }
        slow.permits.add_permits(2);
        while entry(&*inbox, "a").await.state != State::Done {
            slow.attempts.recv().await.unwrap();
            slow.dropped.recv().await.unwrap();
            run_until_idle().await;
        }
        let attempts = entry(&*inbox, "a").await.attempts;
        assert_eq!(attempts, 2, "{method}");
        let receiver = running.stop().await;
        let line = "pleo_receiver_dispatcher_restarts_total";
        assert_eq!(counted(&receiver, line), 1, "{method}");
    }
}
