//! Checks the messages of the inbox: what needs a person.

use pleo_receiver::{EndpointStats, Inbox};

use super::report::Report;
use crate::escape::escape;
use crate::failure::Failure;

/// Reports dead letters, messages that expired before they were handled, and paused endpoints.
pub(super) async fn check(inbox: &dyn Inbox, report: &mut Report) -> Result<(), Failure> {
    let stats = inbox.stats().await?;
    let sum = |count: fn(&EndpointStats) -> u64| stats.iter().map(count).sum::<u64>();
    let (dead, expired) = (sum(|stats| stats.dead), sum(|stats| stats.expired));
    let paused = stats.iter().filter(|stats| stats.paused);
    let paused: Vec<_> = paused.map(|stats| escape(&stats.endpoint)).collect();
    if dead > 0 {
        let found = format!("{} dead", count(dead));
        let fix = "see why with `pleo-receiver inbox list --state dead`, correct the cause, then \
                   `pleo-receiver inbox replay --dead`";
        report.failed("messages", &found, fix)?;
    }
    if expired > 0 {
        let found = format!("{} expired before a handler succeeded", count(expired));
        let fix = "see `pleo-receiver inbox list --state pending`; ask for a new export in Pleo, since \
                   an expired job cannot be booked";
        report.failed("messages", &found, fix)?;
    }
    if !paused.is_empty() {
        let found = format!("paused: {}", paused.join(", "));
        report.failed("messages", &found, "`pleo-receiver inbox resume ENDPOINT`")?;
    }
    if dead == 0 && expired == 0 && paused.is_empty() {
        let pending = count(sum(EndpointStats::pending));
        let found = format!("{pending} pending; none dead or expired, no endpoint paused");
        report.ok("messages", &found)?;
    }
    Ok(())
}

fn count(messages: u64) -> String {
    let noun = if messages == 1 { "message" } else { "messages" };
    format!("{messages} {noun}")
}
