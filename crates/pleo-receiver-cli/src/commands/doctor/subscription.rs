//! Checks the subscription at Pleo.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use pleo_api::{Client, Status};
use pleo_receiver::verify::Secret;

use super::report::Report;
use crate::config::schema::{EndpointTable, SubscriptionTable};
use crate::failure::{Failure, chain};
use crate::pleo::client::find_subscriptions;
use crate::secret_ref::is_same;

/// The maximum clock skew in seconds. It is well below the default tolerance of 300 s, since skew
/// grows with time.
const MAX_SKEW: u64 = 30;

pub(super) async fn check(
    client: &Client,
    endpoint: &EndpointTable,
    declared: &SubscriptionTable,
    secrets: &[Secret],
    config: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let retry = "correct the problem in the message, and run `doctor` again";
    let time = match client.time().await {
        Ok(time) => time,
        Err(error) => return Ok(report.failed("pleo", &chain(&error), retry)?),
    };
    let url = &declared.url;
    let existing = match find_subscriptions(client, |one| one.endpoint_url == *url).await {
        Ok(existing) => existing,
        Err(failure) => return Ok(report.failed("pleo", &failure.to_string(), retry)?),
    };
    report.ok("pleo", &format!("{} accepts the token", client.host()))?;
    if let Some(time) = time {
        check_clock(time, report)?;
    }
    let config = config.display();
    let sync = format!(
        "`pleo-receiver subscriptions sync --config {config}` shows the difference; add `--yes` to \
         apply it"
    );
    let Some(subscription) = existing.first() else {
        let found = format!("Pleo has no subscription for {url}");
        return Ok(report.failed("subscription", &found, &sync)?);
    };
    let (id, status) = (subscription.id, &subscription.status);
    if *status == Status::Active {
        report.ok("subscription", &format!("{id} is {status}"))?;
    } else {
        let found = format!("{id} is {status}: Pleo delivers nothing");
        report.failed("subscription", &found, &sync)?;
    }
    let missing: Vec<_> = (declared.events.iter())
        .filter(|event| !subscription.event_types.contains(event))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        report.ok("events", &declared.events.join(", "))?;
    } else {
        let found = format!("not subscribed: {}", missing.join(", "));
        report.failed("events", &found, &sync)?;
    }
    let secret: Option<Secret> = match client.subscriptions().secret(id).await {
        Ok(secret) => secret.expose().parse().ok(),
        Err(error) => return Ok(report.failed("secret", &chain(&error), retry)?),
    };
    let index = secret.and_then(|secret| secrets.iter().position(|own| is_same(own, &secret)));
    match index {
        Some(index) => {
            let found = format!("Pleo signs with secret {} of {}", index + 1, secrets.len());
            Ok(report.ok("secret", &found)?)
        }
        None => {
            let path = &endpoint.path;
            let fix = format!(
                "fetch it with `pleo-receiver setup --url {url} --path {path} --config {config}`"
            );
            let found = "Pleo signs with a secret that the endpoint does not have";
            Ok(report.failed("secret", found, &fix)?)
        }
    }
}

fn check_clock(pleo: Timestamp, report: &mut Report) -> io::Result<()> {
    let skew = Timestamp::now().duration_since(pleo).as_secs();
    let seconds = skew.unsigned_abs();
    if seconds <= MAX_SKEW {
        return report.ok("clock", &format!("within {MAX_SKEW} s of Pleo's clock"));
    }
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    let found = format!("{seconds} s {direction} Pleo's clock");
    report.failed(
        "clock",
        &found,
        "synchronize the clock with a time server (NTP)",
    )
}
