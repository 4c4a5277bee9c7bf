//! Adds pending export jobs to the inbox whose webhooks are missing.
//!
//! Pleo gives up on a delivery after 28 hours, but its export job stays pending.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use pleo_api::{ExportJobQuery, ListedExportJob};
use pleo_receiver::{Appended, Cursor, Inbox, NewMessage, Origin, Query, Selection};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::args::pleo::ApiArgs;
use crate::config::schema::{ConfigFile, EndpointTable};
use crate::failure::Failure;
use crate::pleo::client::{CredentialsRef, client_with};

/// How many messages of the inbox are read at once.
const PAGE: u32 = 1000;

/// How many export jobs are compared with the inbox at once.
const BATCH: usize = 100;

/// Receives the results of a catch-up as they come.
pub(crate) trait Report {
    /// An export job was missing. Without a dry run, it is stored now.
    fn missing(&mut self, endpoint: &str, job: Uuid) -> Result<(), Failure>;

    /// An endpoint, or one of its export jobs, failed.
    fn failed(&mut self, endpoint: &str, why: &str) -> Result<(), Failure>;
}

/// A catch-up of all endpoints with a subscription for export jobs.
pub(crate) struct CatchUp<'a> {
    pub(crate) file: &'a ConfigFile,
    pub(crate) api: &'a ApiArgs,
    pub(crate) inbox: &'a dyn Inbox,
    /// Younger jobs are skipped.
    pub(crate) min_age: SignedDuration,
    pub(crate) dry_run: bool,
}

impl CatchUp<'_> {
    /// Adds the missing export jobs. A failure of one endpoint does not hold up the others.
    pub(crate) async fn run(&self, report: &mut impl Report) -> Result<(), Failure> {
        let created_before = Timestamp::now().checked_sub(self.min_age);
        let created_before = created_before
            .map_err(|_| Failure::usage("`--min-age`", "out of range: give an age such as `1m`"))?;
        let mut subscriptions = 0;
        for endpoint in &self.file.endpoint {
            let subscription = endpoint.subscription.as_ref();
            let Some((subscription, event_type)) =
                subscription.and_then(|one| Some((one, one.export_event()?)))
            else {
                continue;
            };
            subscriptions += 1;
            let credentials = CredentialsRef::of(subscription, self.api);
            let result = async {
                let client = client_with(credentials?, self.api)?;
                let mut jobs = Jobs {
                    run: self,
                    report,
                    endpoint,
                    event_type,
                    known: HashSet::new(),
                    last_read: None,
                };
                jobs.catch_up(&client, created_before).await
            };
            match result.await {
                Ok(()) => {}
                Err(Failure::Output(error)) => return Err(error.into()),
                Err(failure) => report.failed(endpoint.name(), &failure.to_string())?,
            }
        }
        if subscriptions == 0 {
            return Err(Failure::Usage(
                "no `[[endpoint]]` has a `subscription` for export jobs: create one with \
                 `pleo-receiver setup`"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// The export jobs of one endpoint.
struct Jobs<'a, R> {
    run: &'a CatchUp<'a>,
    report: &'a mut R,
    endpoint: &'a EndpointTable,
    event_type: &'a str,
    /// The jobs that the endpoint's messages are about, in any state.
    known: HashSet<Uuid>,
    /// The position of the newest message in `known`.
    last_read: Option<Cursor>,
}

/// The fields of an export job that `catch-up` needs. The others may be malformed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    id: Uuid,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
}

impl<R: Report> Jobs<'_, R> {
    /// Adds the pending export jobs that are old enough for their webhooks to have arrived.
    async fn catch_up(
        &mut self,
        client: &pleo_api::Client,
        created_before: Timestamp,
    ) -> Result<(), Failure> {
        let mut list = client.export_jobs().list(ExportJobQuery::pending());
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let job = match list.next().await {
                Ok(Some(job)) => job,
                Ok(None) => return self.add_missing(&mut batch).await,
                Err(error) => {
                    self.add_missing(&mut batch).await?;
                    return Err(Failure::run(&error));
                }
            };
            let fields: Fields<'_> = match serde_json::from_str(job.json().get()) {
                Ok(fields) => fields,
                Err(_) => {
                    self.report_malformed(&job)?;
                    continue;
                }
            };
            let created_at = fields
                .created_at
                .and_then(|json| serde_json::from_str(json.get()).ok());
            // A job without a valid time is old enough: twice is better than never.
            if created_at.is_none_or(|created_at: Timestamp| created_at <= created_before) {
                batch.push((fields.id, job));
            }
            if batch.len() == BATCH {
                self.add_missing(&mut batch).await?;
            }
        }
    }

    /// Reports a job without an id. Its JSON is not shown.
    fn report_malformed(&mut self, job: &ListedExportJob) -> Result<(), Failure> {
        let bytes = job.json().get().len();
        let why = format!(
            "skipped an export job of {bytes} bytes: it has no valid `id`; report it to Pleo"
        );
        self.report.failed(self.endpoint.name(), &why)
    }

    /// Empties the batch, and adds those of its jobs that the inbox does not have.
    async fn add_missing(
        &mut self,
        batch: &mut Vec<(Uuid, ListedExportJob)>,
    ) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        self.read_known().await?;
        for (id, job) in batch.drain(..) {
            if self.known.contains(&id) {
                continue;
            }
            let message = self.message(id, &job)?;
            // Another `catch-up` may add the same job at the same time.
            if self.run.dry_run || self.run.inbox.append(message).await? == Appended::Stored {
                self.report.missing(self.endpoint.name(), id)?;
            }
        }
        Ok(())
    }

    /// Reads which jobs the endpoint's messages are about, from the last message read onwards.
    async fn read_known(&mut self) -> Result<(), Failure> {
        let selection = Selection::all().with_endpoint(self.endpoint.name());
        let mut query = Query::new(selection, PAGE);
        loop {
            query.after = self.last_read;
            let page = self.run.inbox.list(query.clone()).await?.entries;
            let Some(last) = page.last() else {
                return Ok(());
            };
            self.last_read = Some(last.cursor());
            let ids = page.iter().filter_map(|entry| entry.resource_id.as_deref());
            self.known
                .extend(ids.filter_map(|id| Uuid::parse_str(id).ok()));
        }
    }

    /// Builds the message that the webhook would have carried. It has no event id.
    fn message(&self, id: Uuid, job: &ListedExportJob) -> Result<NewMessage, Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            data: &'a RawValue,
            event_type: &'a str,
        }
        let envelope = Envelope {
            data: job.json(),
            event_type: self.event_type,
        };
        let body = serde_json::to_vec(&envelope).map_err(|error| Failure::run(&error))?;
        let message = NewMessage::new(self.endpoint.name(), format!("catch-up_{id}"), body);
        Ok(message.with_origin(Origin::CatchUp))
    }
}
