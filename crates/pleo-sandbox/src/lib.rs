#![doc = include_str!("../README.md")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "tests and development fail loudly"
)]

mod api;
mod faults;
mod pagination;
mod sender;
mod shared;
mod state;
mod tls;
mod validation;

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};

use jiff::Timestamp;
use pleo_events::samples;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use uuid::Uuid;

pub use faults::Fault;
pub use state::{ApiRequest, Attempt, Token};
pub use tls::{Authority, TlsProxy};

use crate::shared::Shared;
use crate::state::State;

/// A local Pleo. Stops on drop.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: AbortHandle,
}

impl Sandbox {
    /// Starts the API on a free loopback port, with TLS.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::new());
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

    /// Returns the base URL of the API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Returns the authority that signs the API's certificate. The sender trusts no other.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// Accepts a token. Returns the company that it belongs to.
    pub fn grant(&self, token: Token) -> Uuid {
        let company = token.company;
        self.state().tokens.push(token);
        company
    }

    /// Injects faults into the next API requests, one per request.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// Encodes a list with one event type as a plain string, as one of Pleo's samples does.
    pub fn answer_bare_event_types(&self) {
        self.state().bare_event_types = true;
    }

    /// Lets subscriptions have another field: at the top level, in `endpointAuth` and in its
    /// credentials.
    pub fn add_subscription_field(&self, name: &str) {
        self.state().more_fields.insert(name.to_owned());
    }

    /// Answers each list request with the first page and a new cursor, so that no list ever ends.
    pub fn answer_endless_lists(&self) {
        self.state().endless_lists = true;
    }

    /// Returns all API requests so far, including failed ones.
    #[must_use]
    pub fn requests(&self) -> Vec<ApiRequest> {
        self.state().requests.clone()
    }

    /// Waits for this number of API requests.
    pub async fn wait_for_requests(&self, count: usize) {
        self.wait_for(|state| (state.requests.len() >= count).then_some(()))
            .await;
    }

    /// Adds a pending export job to a company. Returns it as the Export API does.
    pub fn add_export_job(&self, company: Uuid) -> Value {
        let mut job = samples::export_job(Uuid::new_v4(), company, Timestamp::now());
        job.is_interactive = Some(true);
        job.vendor_based_bookkeeping = Some(false);
        let job = json!(job);
        self.state().add_export_job(job.clone());
        job
    }

    /// Sends an event to each active subscription of a company to its type. Returns the message ids.
    pub fn emit(&self, company: Uuid, event_type: &str, data: &Value) -> Vec<String> {
        let messages = self.add_messages(company, event_type, data);
        for message in &messages {
            self.shared.send(message);
        }
        messages
    }

    /// Sends events in reverse order, each of them twice. Returns the message ids.
    pub fn emit_duplicated_in_reverse(
        &self,
        company: Uuid,
        event_type: &str,
        data: &[Value],
    ) -> Vec<String> {
        let messages: Vec<_> = data
            .iter()
            .flat_map(|data| self.add_messages(company, event_type, data))
            .collect();
        for message in messages.iter().rev() {
            self.shared.send(message);
            self.shared.send(message);
        }
        messages
    }

    /// Sends a message again, without retries.
    pub fn resend(&self, message: &str) {
        self.shared.send_once(message);
    }

    /// Waits until a message is delivered or given up. Returns its last attempt.
    pub async fn final_attempt(&self, message: &str) -> Attempt {
        self.wait_for(|state| state.final_attempt(message).cloned())
            .await
    }

    /// Returns all delivery attempts so far, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts.clone()
    }

    /// Waits for this number of delivery attempts.
    pub async fn wait_for_attempts(&self, count: usize) -> Vec<Attempt> {
        self.wait_for(|state| (state.attempts.len() >= count).then(|| state.attempts.clone()))
            .await
    }

    /// Adds a new secret to a subscription. Older secrets sign too, until
    /// [`Self::retire_old_secrets`].
    pub fn rotate_secret(&self, subscription: Uuid) -> String {
        self.state().rotate_secret(subscription)
    }

    /// Ends a rotation: only the newest secret of a subscription signs from now on.
    pub fn retire_old_secrets(&self, subscription: Uuid) {
        self.state().retire_old_secrets(subscription);
    }

    fn add_messages(&self, company: Uuid, event_type: &str, data: &Value) -> Vec<String> {
        let body = samples::event(event_type, Uuid::new_v4(), data);
        self.state().add_messages(company, event_type, &body)
    }

    async fn wait_for<T>(&self, find: impl Fn(&State) -> Option<T>) -> T {
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                if let Some(found) = find(&self.state()) {
                    return found;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.expect("the event did not happen within 60 s")
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
