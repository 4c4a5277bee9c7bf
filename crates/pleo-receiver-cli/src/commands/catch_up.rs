//! `pleo-receiver catch-up`: puts export jobs into the inbox that no webhook told of.
//!
//! The sender gives up after 28 hours. What it gave up on is still pending at Pleo.

use std::collections::HashSet;
use std::io::{self, Write};

use jiff::Timestamp;
use pleo_api::{Client, ExportJob, ExportJobList};
use pleo_receiver::{Appended, Filter, Inbox as _, NewMessage, Origin, SqliteInbox};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::args::pleo::CatchUp;
use crate::commands::serve::sqlite_path;
use crate::commands::subscriptions::declared::{Declared, Endpoint, Subscription};
use crate::failure::{Failure, chain};

/// How many messages are read at once.
const PAGE: u32 = 1000;

pub(crate) async fn run(args: CatchUp) -> Result<(), Failure> {
    let declared = Declared::read(&args.receiver)?;
    let path = sqlite_path(declared.inbox(&args.receiver))?;
    let inbox = SqliteInbox::open_shared(path).map_err(|error| {
        let config = args.receiver.config.display();
        Failure::Run(format!(
            "{}; run `pleo-receiver serve --config {config}` once, and this as the same user",
            chain(&error)
        ))
    })?;
    let before = Timestamp::now().checked_sub(args.min_age);
    let before = before.map_err(|_| {
        let why = "give an age such as `1m` or `2h`";
        Failure::Usage(format!("`--min-age`: {why}"))
    })?;
    let mut report = Report {
        json: args.json,
        dry_run: args.dry_run,
        count: 0,
        failures: 0,
    };
    let mut subscribed = 0;
    for endpoint in &declared.endpoint {
        let Some(event_type) = endpoint
            .subscription
            .as_ref()
            .and_then(Subscription::export_event)
        else {
            continue;
        };
        subscribed += 1;
        match catch_up(&args, &inbox, endpoint, event_type, before, &mut report).await {
            Ok(()) => {}
            Err(Failure::Output(error)) => return Err(error.into()),
            // The jobs of the others don't wait until somebody has seen to this one's token.
            Err(failure) => report.failed(endpoint, failure)?,
        }
    }
    inbox.close().await?;
    if subscribed == 0 {
        let config = args.receiver.config.display();
        return Err(Failure::Usage(format!(
            "{config}: no `[[endpoint]]` has a `subscription` for export jobs; `pleo-receiver setup` \
             makes one"
        )));
    }
    report.end()
}

/// Puts what is missing of one endpoint into the inbox.
async fn catch_up(
    args: &CatchUp,
    inbox: &SqliteInbox,
    endpoint: &Endpoint,
    event_type: &str,
    before: Timestamp,
    report: &mut Report,
) -> Result<(), Failure> {
    let Some(subscription) = &endpoint.subscription else {
        return Ok(());
    };
    let client = args.api.client_of(subscription.login(&args.api)?)?;
    let jobs = pending(&client, before).await?;
    if jobs.is_empty() {
        return Ok(());
    }
    let known = known(inbox, endpoint.name()).await?;
    for job in jobs {
        if known.contains(&job.id.to_string()) {
            continue;
        }
        let message = message(endpoint.name(), event_type, &job)?;
        // Twice the same catch-up is one message.
        if args.dry_run || inbox.append(message).await? == Appended::Stored {
            report.line(endpoint.name(), &job)?;
        }
    }
    Ok(())
}

/// The jobs that nobody has started, and that a webhook has had the time to tell of.
async fn pending(client: &Client, before: Timestamp) -> Result<Vec<ExportJob>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Created {
        created_at: Timestamp,
    }
    let mut pages = client.export_jobs(ExportJobList::pending());
    let mut jobs = Vec::new();
    while let Some(job) = pages.next().await {
        let job = job?;
        let created: Result<Created, _> = serde_json::from_str(job.json.get());
        // One that doesn't say when is better twice than never.
        if created.map_or(true, |created| created.created_at <= before) {
            jobs.push(job);
        }
    }
    Ok(jobs)
}

/// The resources that messages of this endpoint were about, in whatever state they are.
async fn known(inbox: &SqliteInbox, endpoint: &str) -> Result<HashSet<String>, Failure> {
    let mut known = HashSet::new();
    let mut filter = Filter {
        endpoint: Some(endpoint.to_owned()),
        limit: Some(PAGE),
        ..Filter::default()
    };
    loop {
        let page = inbox.list(filter.clone()).await?;
        let Some(last) = page.last() else {
            return Ok(known);
        };
        filter.after = Some(last.sequence);
        known.extend(page.into_iter().filter_map(|entry| entry.resource_id));
    }
}

/// The message that the webhook would have been, without an event id: there was no event.
fn message(endpoint: &str, event_type: &str, job: &ExportJob) -> Result<NewMessage, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        data: &'a RawValue,
        event_type: &'a str,
    }
    let envelope = Envelope {
        data: &job.json,
        event_type,
    };
    let body = serde_json::to_vec(&envelope);
    let body = body.map_err(|error| Failure::Run(error.to_string()))?;
    let mut message = NewMessage::new(endpoint, format!("catch-up_{}", job.id), body);
    message.origin = Origin::CatchUp;
    Ok(message)
}

struct Report {
    json: bool,
    dry_run: bool,
    count: u64,
    failures: u64,
}

impl Report {
    fn line(&mut self, endpoint: &str, job: &ExportJob) -> io::Result<()> {
        self.count += 1;
        let mut out = io::stdout().lock();
        if self.json {
            let object = json!({ "endpoint": endpoint, "job": job.id, "dry_run": self.dry_run });
            writeln!(out, "{object}")
        } else {
            let verb = if self.dry_run { "missing" } else { "caught up" };
            writeln!(out, "{verb:9} {} {endpoint}", job.id)
        }
    }

    fn failed(&mut self, endpoint: &Endpoint, failure: Failure) -> io::Result<()> {
        self.failures += 1;
        let failure = failure.at(endpoint.name());
        writeln!(io::stderr().lock(), "error: {failure}")
    }

    fn end(self) -> Result<(), Failure> {
        if self.failures > 0 {
            return Err(Failure::AlreadyReported);
        }
        if self.count == 0 && !self.json {
            writeln!(
                io::stdout().lock(),
                "the inbox has every pending export job"
            )?;
        }
        Ok(())
    }
}
