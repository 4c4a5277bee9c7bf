//! Plays Pleo in tests, over real sockets and TLS: the Subscriptions API, the reading side of the
//! Export API, and the sender of webhooks.
//!
//! It is written from what Pleo documents, not from our client, and is strict: what Pleo's
//! documentation doesn't allow, it refuses. Where Pleo doesn't say (which keys can be sorted by, how
//! long a page is), it chooses something narrow. The sender keeps the schedule of Pleo's, in hurried
//! time.
//!
//! ```no_run
//! # async fn test() {
//! use pleo_sandbox::{Sandbox, Token};
//!
//! let pleo = Sandbox::start().await;
//! let company = pleo.grant(Token::bearer("a.b.c").scopes(["export-jobs:read", "export-jobs:write"]));
//! // … make a subscription by its API at `pleo.url()`, whose certificate `pleo.authority()` made …
//! let job = pleo.add_export_job(company);
//! let messages = pleo.emit(company, "v1.export-job.created", &job);
//! assert_eq!(pleo.settled(&messages[0]).await.status, Some(204));
//! # }
//! ```

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "it only ever runs in tests, which should fail loudly"
)]

mod api;
mod check;
mod faults;
mod page;
mod sender;
mod state;
mod tls;

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};

use jiff::Timestamp;
use pleo_events::samples;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

pub use faults::Fault;
pub use sender::Attempt;
pub use state::{Seen, Token};
pub use tls::{Authority, Front};

use crate::sender::Sender;
use crate::state::State;

/// A Pleo of one's own. It stops when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: AbortHandle,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: std::sync::Mutex<State>,
    /// Something changed in the state.
    changed: Notify,
    authority: Authority,
    sender: Sender,
}

impl Sandbox {
    /// Starts on a free port of loopback, with TLS. Its sender's hours are parts of a second.
    pub async fn start() -> Self {
        let authority = Authority::new();
        let shared = Arc::new(Shared {
            state: std::sync::Mutex::default(),
            changed: Notify::new(),
            sender: Sender::new(&authority),
            authority,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = shared.authority.acceptor();
        let server = tokio::spawn(api::serve(listener, acceptor, Arc::clone(&shared)));
        Self {
            shared,
            address,
            server: server.abort_handle(),
        }
    }

    /// Where the API is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Who made its certificate, and whose certificates its sender trusts.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// Lets somebody in; gives the company that the token stands for.
    pub fn grant(&self, token: Token) -> Uuid {
        let company = token.company;
        self.state().tokens.push(token);
        company
    }

    /// Goes wrong so at the next requests to the API, one fault each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// Answers with a single event type as a bare text, as one of Pleo's samples does.
    pub fn answer_bare_event_types(&self) {
        self.state().bare_event_types = true;
    }

    /// The requests to the API so far, also those that went wrong.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// A new pending export job of this company, as the Export API then answers it.
    pub fn add_export_job(&self, company: Uuid) -> Value {
        let mut job = samples::export_job(Uuid::new_v4(), company, Timestamp::now());
        job.is_interactive = Some(true);
        job.vendor_based_bookkeeping = Some(false);
        let job = json!(job);
        self.state().add_export_job(job.clone());
        job
    }

    /// Sends an event to each subscription of this company that wants it; gives the messages' ids.
    pub fn emit(&self, company: Uuid, event_type: &str, data: &Value) -> Vec<String> {
        let messages = self.messages(company, event_type, data);
        for message in &messages {
            self.shared.send(message);
        }
        messages
    }

    /// Sends these events as a bad day would: the last one first, and each of them twice.
    pub fn emit_badly(&self, company: Uuid, event_type: &str, data: &[Value]) -> Vec<String> {
        let messages: Vec<_> = data
            .iter()
            .flat_map(|data| self.messages(company, event_type, data))
            .collect();
        for message in messages.iter().rev() {
            self.shared.send(message);
            self.shared.send(message);
        }
        messages
    }

    /// Sends a message once more, as somebody may ask Pleo to. There is no retry.
    pub fn resend(&self, message: &str) {
        self.shared.send_once(message);
    }

    /// Waits until a message was taken or given up; gives the last attempt.
    pub async fn settled(&self, message: &str) -> Attempt {
        self.until(|state| state.settled(message).cloned()).await
    }

    /// Every attempt to deliver so far, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts.clone()
    }

    /// Waits until there were so many attempts.
    pub async fn attempted(&self, count: usize) -> Vec<Attempt> {
        let enough =
            |state: &State| (state.attempts.len() >= count).then(|| state.attempts.clone());
        self.until(enough).await
    }

    /// Gives a subscription a new secret. The old one signs too until [`Self::retire`].
    pub fn rotate(&self, subscription: Uuid) -> String {
        self.state().rotate(subscription)
    }

    /// Ends a rotation: only the newest secret of a subscription signs from now on.
    pub fn retire(&self, subscription: Uuid) {
        self.state().retire(subscription);
    }

    fn messages(&self, company: Uuid, event_type: &str, data: &Value) -> Vec<String> {
        let body = samples::event(event_type, Uuid::new_v4(), data);
        self.state().add_messages(company, event_type, &body)
    }

    async fn until<T>(&self, found: impl Fn(&State) -> Option<T>) -> T {
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                if let Some(found) = found(&self.state()) {
                    return found;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.expect("it did not happen within a minute")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}
