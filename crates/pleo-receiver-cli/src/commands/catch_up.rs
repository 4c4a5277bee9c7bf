//! `pleo-receiver catch-up`: adds pending export jobs to the inbox whose webhooks are missing.
//!
//! Pleo gives up on a delivery after 28 hours, but its export job stays pending.

use std::collections::HashSet;

use jiff::Timestamp;
use pleo_api::{ExportJobQuery, ListedExportJob};
use pleo_receiver::{Appended, Filter, Inbox as _, NewMessage, Origin, SqliteInbox};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::args::pleo::CatchUp;
use crate::config::schema::EndpointTable;
use crate::failure::Failure;
use crate::inbox_url::open_shared;
use crate::output;
use crate::pleo::client::{CredentialsRef, client_with};
use crate::pleo::declared;

/// How many messages of the inbox are read at once.
const PAGE: u32 = 1000;

/// How many export jobs are compared with the inbox at once.
const BATCH: usize = 100;

pub(crate) async fn run(args: CatchUp) -> Result<(), Failure> {
    let file = declared::read(&args.receiver)?;
    let config = args.receiver.config.display();
    let inbox = open_shared(file.inbox_url(&args.receiver))?;
    let created_before = Timestamp::now().checked_sub(args.min_age);
    let created_before = created_before
        .map_err(|_| Failure::usage("`--min-age`", "out of range: give an age such as `1m`"))?;
    let mut subscriptions = 0;
    let mut total = Counts::default();
    for endpoint in &file.endpoint {
        let subscription = endpoint.subscription.as_ref();
        let Some((subscription, event_type)) =
            subscription.and_then(|one| Some((one, one.export_event()?)))
        else {
            continue;
        };
        subscriptions += 1;
        let credentials = CredentialsRef::of(subscription, &args.api);
        let result = async {
            let client = client_with(credentials?, &args.api)?;
            let mut jobs = Jobs {
                args: &args,
                inbox: &inbox,
                endpoint,
                event_type,
                known: HashSet::new(),
                last_sequence: None,
                counts: &mut total,
            };
            jobs.catch_up(&client, created_before).await
        };
        match result.await {
            Ok(()) => {}
            Err(Failure::Output(error)) => return Err(error.into()),
            // A wrong token of one endpoint does not hold up the others.
            Err(failure) => {
                total.failures += 1;
                let failure = failure.at(endpoint.name());
                output::note(format_args!("error: {failure}"))?;
            }
        }
    }
    inbox.close().await?;
    if subscriptions == 0 {
        return Err(Failure::Usage(format!(
            "{config}: no `[[endpoint]]` has a `subscription` for export jobs: create one with \
             `pleo-receiver setup`"
        )));
    }
    if total.failures > 0 {
        return Err(Failure::AlreadyReported);
    }
    if total.missing == 0 && !args.json {
        output::line("the inbox has every pending export job")?;
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    missing: usize,
    failures: usize,
}

/// The export jobs of one endpoint.
struct Jobs<'a> {
    args: &'a CatchUp,
    inbox: &'a SqliteInbox,
    endpoint: &'a EndpointTable,
    event_type: &'a str,
    /// The jobs that the endpoint's messages are about, in any state.
    known: HashSet<Uuid>,
    /// The newest message in `known`.
    last_sequence: Option<i64>,
    counts: &'a mut Counts,
}

/// The fields of an export job that `catch-up` needs. The others may be malformed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    id: Uuid,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
}

impl Jobs<'_> {
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
        self.counts.failures += 1;
        let endpoint = self.endpoint.name();
        let bytes = job.json().get().len();
        Ok(output::note(format_args!(
            "error: {endpoint}: skipped an export job of {bytes} bytes: it has no valid `id`; report it to Pleo"
        ))?)
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
            if self.args.dry_run || self.inbox.append(message).await? == Appended::Stored {
                self.counts.missing += 1;
                self.print(id)?;
            }
        }
        Ok(())
    }

    /// Reads which jobs the endpoint's messages are about, from the last message read onwards.
    async fn read_known(&mut self) -> Result<(), Failure> {
        let mut filter = Filter {
            endpoint: Some(self.endpoint.name().to_owned()),
            limit: Some(PAGE),
            ..Filter::default()
        };
        loop {
            filter.after = self.last_sequence;
            let page = self.inbox.list(filter.clone()).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            self.last_sequence = Some(last.sequence);
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
        let mut message = NewMessage::new(self.endpoint.name(), format!("catch-up_{id}"), body);
        message.origin = Origin::CatchUp;
        Ok(message)
    }

    fn print(&self, id: Uuid) -> Result<(), Failure> {
        let (endpoint, dry_run) = (self.endpoint.name(), self.args.dry_run);
        if self.args.json {
            let object = json!({ "endpoint": endpoint, "job": id, "dry_run": dry_run });
            return Ok(output::json(&object)?);
        }
        let verb = if dry_run { "missing" } else { "caught up" };
        Ok(output::line(format_args!("{verb:9} {id} {endpoint}"))?)
    }
}
