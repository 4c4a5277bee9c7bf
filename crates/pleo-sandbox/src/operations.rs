//! What tests, the control API and the page can do with a sandbox.

use core::time::Duration;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use pleo_events::{ExportJob, samples};
use serde_json::{Value, json};
use tokio::time;
use uuid::Uuid;

use crate::error::Error;
use crate::event_stream::SandboxEvent;
use crate::ids::Kind;
use crate::sender::Sender;
use crate::shared::Shared;
use crate::state::State;
use crate::state::export_job::{Export, ExportRequest, JobEvent};
use crate::state::message::{Message, MessageState};

/// How long a wait may take.
const WAIT: Duration = Duration::from_secs(60);

/// The operations of a sandbox. Clones are of the same sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Operations {
    pub(crate) shared: Arc<Shared>,
    sender: Sender,
}

impl Operations {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, Error> {
        let sender = Sender::new(Arc::clone(&shared))?;
        sender.resume();
        Ok(Self { shared, sender })
    }

    /// Creates export jobs and sends their events.
    pub(crate) fn export(&self, request: &ExportRequest) -> Export {
        let now = Timestamp::now();
        let (jobs, messages) = self.shared.change(|state| {
            let company = request.company.unwrap_or(state.access.company);
            let (mut jobs, mut messages) = (Vec::new(), Vec::new());
            for _ in 0..request.jobs {
                let expires_in = request.expires_in.unwrap_or(self.shared.options.expires_in);
                let mut job = new_job(state, company, expires_in, now);
                job.number_of_items = request.number_of_items;
                state.add_export_job(job.clone());
                let event = &request.event_type;
                messages.extend(add_messages(state, company, event, &json!(job), now));
                jobs.push(job);
            }
            (jobs, messages)
        });
        for job in &jobs {
            self.shared
                .emit(SandboxEvent::ExportJob(Box::new(job.clone())));
        }
        let messages = self.send(messages, request.copies, request.reverse);
        Export { jobs, messages }
    }

    /// Adds a pending export job without an event.
    pub(crate) fn add_export_job(&self, company: Uuid) -> ExportJob {
        self.shared.change(|state| {
            let expires_in = self.shared.options.expires_in;
            let job = new_job(state, company, expires_in, Timestamp::now());
            state.add_export_job(job.clone());
            job
        })
    }

    /// Sends the event of a new vendor.
    pub(crate) fn add_vendor(&self, company: Option<Uuid>) -> Vec<String> {
        let now = Timestamp::now();
        let messages = self.shared.change(|state| {
            let company = company.unwrap_or(state.access.company);
            let vendor = samples::vendor(state.ids.uuid(Kind::Vendor), company, now);
            add_messages(state, company, "v1.vendor.created", &json!(vendor), now)
        });
        self.send(messages, 1, false)
    }

    /// Sends an event to each active subscription of a company to its type.
    pub(crate) fn emit(
        &self,
        company: Option<Uuid>,
        event_type: &str,
        data: &Value,
    ) -> Vec<String> {
        let messages = self.shared.change(|state| {
            let company = company.unwrap_or(state.access.company);
            add_messages(state, company, event_type, data, Timestamp::now())
        });
        self.send(messages, 1, false)
    }

    pub(crate) fn resend(&self, id: &str) -> Result<(), Error> {
        self.shared.state().message(id)?;
        self.sender.resend(id.to_owned());
        Ok(())
    }

    pub(crate) fn rotate_secret(
        &self,
        subscription: Uuid,
        overlap: Option<SignedDuration>,
    ) -> Result<String, Error> {
        let overlap = overlap.unwrap_or(self.shared.options.rotation_overlap);
        self.shared.change(|state| {
            state.subscription(subscription)?;
            let secret = state.ids.secret();
            let found = state.subscription(subscription)?;
            found.rotate(secret.clone(), Timestamp::now(), overlap);
            Ok(secret)
        })
    }

    pub(crate) fn retire_old_secrets(&self, subscription: Uuid) -> Result<(), Error> {
        self.shared.change(|state| {
            state.subscription(subscription)?.retire_old_secrets();
            Ok(())
        })
    }

    pub(crate) fn set_active(&self, subscription: Uuid, active: bool) -> Result<(), Error> {
        self.shared
            .change(|state| state.set_active(subscription, active, Timestamp::now()))?;
        if !active {
            self.shared.emit(SandboxEvent::Disabled { subscription });
        }
        Ok(())
    }

    pub(crate) fn change_export_job(&self, event: JobEvent) -> Result<ExportJob, Error> {
        let job = self.shared.change(|state| {
            let job = state.export_job(event.job_id)?;
            event.apply(job, Timestamp::now())?;
            Ok::<_, Error>(job.clone())
        })?;
        self.shared
            .emit(SandboxEvent::ExportJob(Box::new(job.clone())));
        Ok(job)
    }

    /// Waits until a message is not pending any more.
    pub(crate) async fn wait_for_message(&self, id: &str) -> Result<Message, Error> {
        let find = |state: &State| match state.message(id) {
            Ok(message) if message.state == MessageState::Pending => None,
            Ok(message) => Some(Ok(message.clone())),
            Err(error) => Some(Err(error)),
        };
        self.wait_for(find).await?
    }

    /// Waits until `find` returns a value, for 60 s at most.
    pub(crate) async fn wait_for<T>(&self, find: impl Fn(&State) -> Option<T>) -> Result<T, Error> {
        let waited = time::timeout(WAIT, self.shared.wait_for(find)).await;
        waited.map_err(|_| Error::Timeout)
    }

    /// Sends messages. Returns their ids in the order of creation.
    fn send(&self, mut messages: Vec<Message>, copies: u16, reverse: bool) -> Vec<String> {
        let ids = messages.iter().map(|message| message.id.clone()).collect();
        for message in &messages {
            self.shared.emit(SandboxEvent::Message(message.clone()));
        }
        if reverse {
            messages.reverse();
        }
        self.sender.deliver(messages, copies);
        ids
    }
}

fn new_job(state: &mut State, company: Uuid, expires_in: u32, now: Timestamp) -> ExportJob {
    let mut job = samples::export_job(state.ids.uuid(Kind::ExportJob), company, now);
    job.is_interactive = Some(true);
    job.vendor_based_bookkeeping = Some(false);
    job.expires_in = expires_in.into();
    job
}

fn add_messages(
    state: &mut State,
    company: Uuid,
    event_type: &str,
    data: &Value,
    now: Timestamp,
) -> Vec<Message> {
    let body = samples::event(event_type, state.ids.uuid(Kind::Event), data);
    state.add_messages(company, event_type, &body, now)
}
