//! The handle of a running sandbox.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::event_stream::Events;
use crate::faults::Fault;
use crate::operations::Operations;
use crate::options::SandboxOptions;
use crate::server::Server;
use crate::shared::Shared;
use crate::state::State;
use crate::state::export_job::{Export, ExportRequest};
use crate::state::message::{Attempt, Message};
use crate::state::request::ApiRequest;
use crate::state::token::Token;
#[cfg(feature = "tls")]
use crate::tls::Authority;

/// A local Pleo. Stops on drop.
#[derive(Debug)]
pub struct Sandbox {
    operations: Operations,
    address: SocketAddr,
    url: String,
}

impl Sandbox {
    /// Starts a sandbox on a free loopback port. Needs a tokio runtime.
    ///
    /// # Errors
    /// As [`Self::start_with`].
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(SandboxOptions::new()).await
    }

    /// Starts a sandbox with these options. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Listen`] and [`Error::NotLoopback`] if it cannot listen, [`Error::StateFile`] and
    /// [`Error::StateFormat`] if it cannot use the state file, [`Error::Client`] and [`Error::Tls`]
    /// if TLS cannot be set up.
    pub async fn start_with(options: SandboxOptions) -> Result<Self, Error> {
        let server = Server::bind(&options).await?;
        let (address, url) = (server.address(), server.url(&options));
        let shared = Arc::new(Shared::new(options)?);
        let operations = Operations::new(Arc::clone(&shared))?;
        if let Some(path) = shared.options.state_file.clone() {
            shared.spawn(Arc::clone(&shared).save_changes(path));
            shared.flushed().await?;
        }
        shared.spawn(Arc::clone(&shared).expire_jobs());
        shared.spawn(server.serve(operations.clone(), url.clone()));
        Ok(Self {
            operations,
            address,
            url,
        })
    }

    /// Returns the base URL of the API, which is also the page's.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the address that the sandbox listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a bearer token of [`Self::company`] with all scopes.
    #[must_use]
    pub fn token(&self) -> String {
        self.operations.shared.state().access.token.clone()
    }

    /// Returns an API key of [`Self::company`] with all scopes.
    #[must_use]
    pub fn api_key(&self) -> String {
        self.operations.shared.state().access.api_key.clone()
    }

    /// Returns the company of [`Self::token`] and [`Self::api_key`].
    #[must_use]
    pub fn company(&self) -> Uuid {
        self.operations.shared.state().access.company
    }

    /// Accepts another token. Returns its company.
    pub fn grant(&self, token: Token) -> Uuid {
        self.operations.shared.change(|state| state.grant(token))
    }

    /// Returns the authority of the API's certificate, which the sender trusts too; `None` without
    /// TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.operations.shared.options.authority.as_ref()
    }

    /// Creates export jobs, and sends an event of each to the active subscriptions of the company.
    pub fn export(&self, request: &ExportRequest) -> Export {
        self.operations.export(request)
    }

    /// Adds a pending export job to a company, without an event. Returns it as the Export API does.
    pub fn add_export_job(&self, company: Uuid) -> Value {
        json!(self.operations.add_export_job(company))
    }

    /// Sends an event to each active subscription of a company to its type. Returns the message ids.
    pub fn emit(&self, company: Uuid, event_type: &str, data: &Value) -> Vec<String> {
        self.operations.emit(Some(company), event_type, data)
    }

    /// Sends a message again, without retries.
    ///
    /// # Errors
    /// [`Error::NoMessage`].
    pub fn resend(&self, message: &str) -> Result<(), Error> {
        self.operations.resend(message)
    }

    /// Waits until a message is delivered or given up. Returns it with its attempts.
    ///
    /// # Errors
    /// [`Error::NoMessage`], and [`Error::Timeout`] after 60 s.
    pub async fn wait_for_message(&self, message: &str) -> Result<Message, Error> {
        self.operations.wait_for_message(message).await
    }

    /// Waits until each of these messages is delivered or given up.
    ///
    /// # Errors
    /// As [`Self::wait_for_message`].
    pub async fn wait_for_messages(&self, messages: &[String]) -> Result<Vec<Message>, Error> {
        let mut finished = Vec::new();
        for message in messages {
            finished.push(self.wait_for_message(message).await?);
        }
        Ok(finished)
    }

    /// Returns the delivery attempts so far, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        attempts(self.operations.shared.state().messages.values())
    }

    /// Waits for this number of delivery attempts. Returns them in order.
    ///
    /// # Errors
    /// [`Error::Timeout`] after 60 s.
    pub async fn wait_for_attempts(&self, count: usize) -> Result<Vec<Attempt>, Error> {
        let find = |state: &State| {
            let made = state
                .messages
                .values()
                .map(|message| message.attempts.len());
            (made.sum::<usize>() >= count).then(|| attempts(state.messages.values()))
        };
        self.operations.wait_for(find).await
    }

    /// Adds a new secret to a subscription. The present one signs too, until its overlap ends or until
    /// [`Self::retire_old_secrets`]. Returns the new secret.
    ///
    /// # Errors
    /// [`Error::NoSubscription`].
    pub fn rotate_secret(&self, subscription: Uuid) -> Result<String, Error> {
        self.operations.rotate_secret(subscription, None)
    }

    /// Ends a rotation: only the newest secret of a subscription signs from now on.
    ///
    /// # Errors
    /// [`Error::NoSubscription`].
    pub fn retire_old_secrets(&self, subscription: Uuid) -> Result<(), Error> {
        self.operations.retire_old_secrets(subscription)
    }

    /// Disables a subscription, as the sender does after 5 days of failures, or enables it again.
    ///
    /// # Errors
    /// [`Error::NoSubscription`].
    pub fn set_active(&self, subscription: Uuid, active: bool) -> Result<(), Error> {
        self.operations.set_active(subscription, active)
    }

    /// Returns the stream of what happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.operations.shared.events.subscribe())
    }

    /// Returns the API requests so far, including failed ones: the newest 10,000.
    #[must_use]
    pub fn requests(&self) -> Vec<ApiRequest> {
        self.operations
            .shared
            .state()
            .requests
            .iter()
            .cloned()
            .collect()
    }

    /// Waits for this number of API requests.
    ///
    /// # Errors
    /// [`Error::Timeout`] after 60 s.
    pub async fn wait_for_requests(&self, count: usize) -> Result<(), Error> {
        let find = |state: &State| (state.request_count >= count).then_some(());
        self.operations.wait_for(find).await
    }

    /// Injects faults into the next API requests, one per request.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter();
        self.operations
            .shared
            .change(|state| state.faults.extend(faults));
    }

    /// Encodes a list with one event type as a plain string, as one of Pleo's samples does.
    pub fn answer_bare_event_types(&self) {
        let shared = &self.operations.shared;
        shared.change(|state| state.deviations.bare_event_types = true);
    }

    /// Lets subscriptions have another field: at the top level, in `endpointAuth` and in its
    /// credentials.
    pub fn add_subscription_field(&self, name: &str) {
        let shared = &self.operations.shared;
        shared.change(|state| state.deviations.more_fields.insert(name.to_owned()));
    }

    /// Answers each list request with the first page and a new cursor, so that no list ever ends.
    pub fn answer_endless_lists(&self) {
        let shared = &self.operations.shared;
        shared.change(|state| state.deviations.endless_lists = true);
    }

    /// Stops the sandbox once its state file is up to date.
    ///
    /// # Errors
    /// [`Error::StateFile`] if the file cannot be written.
    pub async fn stop(self) -> Result<(), Error> {
        self.operations.shared.flushed().await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.operations.shared.stop();
    }
}

/// Returns the attempts of messages, in order.
fn attempts<'a>(messages: impl Iterator<Item = &'a Message>) -> Vec<Attempt> {
    let mut attempts: Vec<_> = messages
        .flat_map(|message| message.attempts.clone())
        .collect();
    attempts.sort_by_key(|attempt| attempt.sequence);
    attempts
}
