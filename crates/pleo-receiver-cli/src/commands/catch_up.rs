//! `pleo-receiver catch-up`: adds pending export jobs to the inbox whose webhooks are missing.

use serde_json::json;
use uuid::Uuid;

use crate::args::pleo::CatchUp as Args;
use crate::failure::Failure;
use crate::inbox_url::open_shared;
use crate::output;
use crate::pleo::catch_up::{CatchUp, Report};
use crate::pleo::declared;

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let file = declared::read(&args.receiver)?;
    let inbox = open_shared(file.inbox_url(&args.receiver)).await?;
    let mut printed = Printed {
        json: args.json,
        dry_run: args.dry_run,
        missing: 0,
        failures: 0,
    };
    let catch_up = CatchUp {
        file: &file,
        api: &args.api,
        inbox: &*inbox,
        min_age: args.min_age,
        dry_run: args.dry_run,
    };
    let result = catch_up.run(&mut printed).await;
    inbox.close().await?;
    result?;
    if printed.failures > 0 {
        return Err(Failure::AlreadyReported);
    }
    if printed.missing == 0 && !args.json {
        output::line("the inbox has every pending export job")?;
    }
    Ok(())
}

/// Prints and counts the results.
struct Printed {
    json: bool,
    dry_run: bool,
    missing: usize,
    failures: usize,
}

impl Report for Printed {
    fn missing(&mut self, endpoint: &str, job: Uuid) -> Result<(), Failure> {
        self.missing += 1;
        if self.json {
            let object = json!({ "endpoint": endpoint, "job": job, "dry_run": self.dry_run });
            return Ok(output::json(&object)?);
        }
        let verb = if self.dry_run { "missing" } else { "caught up" };
        Ok(output::line(format_args!("{verb:9} {job} {endpoint}"))?)
    }

    fn failed(&mut self, endpoint: &str, why: &str) -> Result<(), Failure> {
        self.failures += 1;
        Ok(output::note(format_args!("error: {endpoint}: {why}"))?)
    }
}
