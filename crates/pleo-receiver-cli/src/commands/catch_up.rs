//! `pleo-receiver catch-up`: adds pending export jobs to the inbox whose webhooks are missing.
//!
//! Pleo gives up on a delivery after 28 hours, but its export job stays pending.

use std::collections::HashSet;
use std::io;

use jiff::Timestamp;
use pleo_api::{ExportJob, ExportJobList};
use pleo_receiver::{Appended, Filter, Inbox as _, NewMessage, Origin, SqliteInbox};
use serde::Serialize;
use serde_json::json;

use crate::args::pleo::CatchUp;
use crate::config::schema::{EndpointTable, SubscriptionTable};
use crate::failure::Failure;
use crate::inbox_url::open_shared;
use crate::output;
use crate::pleo::client::{CredentialsRef, client_with};
use crate::pleo::declared;

/// How many messages of the inbox are read per query.
const PAGE: u32 = 1000;

pub(crate) async fn run(args: CatchUp) -> Result<(), Failure> {
    let file = declared::read(&args.receiver)?;
    let config = args.receiver.config.display();
    let inbox = open_shared(file.inbox_url(&args.receiver))?;
    let created_before = Timestamp::now().checked_sub(args.min_age);
    let created_before = created_before
        .map_err(|_| Failure::usage("`--min-age`", "out of range: give an age such as `1m`"))?;
    let (mut subscriptions, mut missing, mut failures) = (0, 0, 0);
    for endpoint in &file.endpoint {
        let Some(subscription) = &endpoint.subscription else {
            continue;
        };
        let Some(event_type) = subscription.export_event() else {
            continue;
        };
        subscriptions += 1;
        let jobs = pending_jobs(&args, subscription, created_before).await;
        let added = match jobs {
            Ok(jobs) => add_missing(&args, &inbox, endpoint, event_type, jobs).await,
            Err(failure) => Err(failure),
        };
        match added {
            Ok(added) => missing += added,
            Err(Failure::Output(error)) => return Err(error.into()),
            // A wrong token of one endpoint does not affect the others.
            Err(failure) => {
                failures += 1;
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
    if failures > 0 {
        return Err(Failure::AlreadyReported);
    }
    if missing == 0 && !args.json {
        output::line("the inbox has every pending export job")?;
    }
    Ok(())
}

/// Lists the pending export jobs that are old enough for their webhooks to have arrived.
async fn pending_jobs(
    args: &CatchUp,
    subscription: &SubscriptionTable,
    created_before: Timestamp,
) -> Result<Vec<ExportJob>, Failure> {
    let credentials = CredentialsRef::of(subscription, &args.api)?;
    let client = client_with(credentials, &args.api)?;
    let mut pages = client.export_jobs(ExportJobList::pending());
    let mut jobs = Vec::new();
    while let Some(job) = pages.next().await {
        let job = job?;
        if job.created_at <= created_before {
            jobs.push(job);
        }
    }
    Ok(jobs)
}

/// Adds the jobs that the inbox does not have. Returns their number.
async fn add_missing(
    args: &CatchUp,
    inbox: &SqliteInbox,
    endpoint: &EndpointTable,
    event_type: &str,
    jobs: Vec<ExportJob>,
) -> Result<usize, Failure> {
    if jobs.is_empty() {
        return Ok(0);
    }
    let stored = stored_resource_ids(inbox, endpoint.name()).await?;
    let mut added = 0;
    for job in jobs {
        if stored.contains(&job.id.to_string()) {
            continue;
        }
        let message = message(endpoint.name(), event_type, &job)?;
        // Another `catch-up` may add the same job at the same time.
        if args.dry_run || inbox.append(message).await? == Appended::Stored {
            added += 1;
            print(args, endpoint.name(), &job)?;
        }
    }
    Ok(added)
}

/// Returns the resource ids of the endpoint's messages, in any state.
async fn stored_resource_ids(
    inbox: &SqliteInbox,
    endpoint: &str,
) -> Result<HashSet<String>, Failure> {
    let mut ids = HashSet::new();
    let mut filter = Filter {
        endpoint: Some(endpoint.to_owned()),
        limit: Some(PAGE),
        ..Filter::default()
    };
    loop {
        let page = inbox.list(filter.clone()).await?;
        let Some(last) = page.last() else {
            return Ok(ids);
        };
        filter.after = Some(last.sequence);
        ids.extend(page.into_iter().filter_map(|entry| entry.resource_id));
    }
}

/// Builds the message that the webhook would have carried. It has no event id.
fn message(endpoint: &str, event_type: &str, job: &ExportJob) -> Result<NewMessage, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        data: &'a ExportJob,
        event_type: &'a str,
    }
    let envelope = Envelope {
        data: job,
        event_type,
    };
    let body = serde_json::to_vec(&envelope).map_err(|error| Failure::run(&error))?;
    let mut message = NewMessage::new(endpoint, format!("catch-up_{}", job.id), body);
    message.origin = Origin::CatchUp;
    Ok(message)
}

fn print(args: &CatchUp, endpoint: &str, job: &ExportJob) -> io::Result<()> {
    let (id, dry_run) = (job.id, args.dry_run);
    if args.json {
        return output::json(&json!({ "endpoint": endpoint, "job": id, "dry_run": dry_run }));
    }
    let verb = if dry_run { "missing" } else { "caught up" };
    output::line(format_args!("{verb:9} {id} {endpoint}"))
}
