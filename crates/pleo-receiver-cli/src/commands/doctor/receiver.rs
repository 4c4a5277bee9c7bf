//! Checks the receiver on this machine: its settings, its disk and its admin listener.

use core::time::Duration;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pleo_http::reqwest::StatusCode;
use pleo_http::reqwest::header::AUTHORIZATION;
use pleo_receiver::{Inbox as _, SqliteInbox, State};
use serde_json::Value;

use super::report::Report;
use crate::config::admin::AdminSettings;
use crate::config::load::Config;
use crate::failure::Failure;
use crate::http_client::{self, cause, parse_url, send};

/// The minimum free space on the disk of the inbox, in bytes.
const MIN_FREE: u64 = 1_000_000_000;

/// Checks what `serve` would do with this configuration.
pub(super) fn check_settings(config: &Config, report: &mut Report) -> io::Result<()> {
    if config.handler.is_some() {
        report.ok("handler", "`exec` or `forward` is set")?;
    } else {
        let why = "no handler; messages stay pending until `exec` or `forward` is set";
        report.skipped("handler", why)?;
    }
    let retention = &config.tasks.retention;
    if retention.is_empty() {
        let why = "no `[retention]`; messages are kept until `inbox prune` deletes them";
        return report.skipped("retention", why);
    }
    let day = Duration::from_secs(24 * 3600).as_secs();
    let ages = retention
        .iter()
        .map(|(state, age)| describe_age(*state, age.as_secs() / day));
    report.ok("retention", &ages.collect::<Vec<_>>().join(", "))
}

fn describe_age(state: State, days: u64) -> String {
    format!("{state} messages are deleted after {days} days")
}

/// Checks the disk of the inbox, and how many receivers can share it.
pub(super) async fn check_inbox(inbox: &SqliteInbox, report: &mut Report) -> Result<(), Failure> {
    match inbox.measurements().await?.free_bytes {
        None => report.skipped("disk", "the free space is unknown on this system")?,
        Some(free) => {
            let found = format!("{} MiB are free for the inbox", free / (1024 * 1024));
            if free >= MIN_FREE {
                report.ok("disk", &found)?;
            } else {
                let fix = "free at least 1 GB on this disk, or move the inbox to another; set \
                           `[retention]`";
                report.failed("disk", &found, fix)?;
            }
        }
    }
    Ok(report.ok("replicas", "one: a SQLite inbox has one receiver")?)
}

/// Checks that the admin listener answers, and that the receiver is ready.
pub(super) async fn check_admin(admin: &AdminSettings, report: &mut Report) -> Result<(), Failure> {
    let Some(address) = admin.address else {
        let why = "no `admin` address; health and metrics are not served";
        return Ok(report.skipped("admin", why)?);
    };
    if address.port() == 0 {
        let why = "the receiver chooses its port at the start; give `admin` a fixed port";
        return Ok(report.skipped("admin", why)?);
    }
    let url = format!("http://{}/readyz", reachable(address));
    let target = parse_url(&url).map_err(Failure::Run)?;
    let client = http_client::build(&target)?;
    let mut request = client.get(target.url().clone());
    if let Some(value) = (admin.access.credentials)
        .as_ref()
        .and_then(|credentials| credentials.header())
    {
        request = request.header(AUTHORIZATION, value);
    }
    let answer = match send(request).await {
        Ok(answer) => answer,
        Err(error) => {
            let found = format!("no answer from {url}: {}", cause(&error));
            let fix = "start the receiver, or restart it with this configuration";
            return Ok(report.failed("admin", &found, fix)?);
        }
    };
    match answer.status {
        StatusCode::OK => report.ok("admin", &format!("{url}: ready"))?,
        StatusCode::UNAUTHORIZED => {
            let found = format!("{url} refuses the credentials of this configuration");
            let fix =
                "reload the receiver, or correct `admin_token`, `admin_user`, `admin_password`";
            report.failed("admin", &found, fix)?;
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            let found = format!("{url}: not ready: {}", failures(&answer.body));
            report.failed("admin", &found, "see the log of the receiver")?;
        }
        status => {
            let found = format!("{url} answers {status}; it is not the receiver");
            let fix = "stop the other program, or choose another address for `admin`";
            report.failed("admin", &found, fix)?;
        }
    }
    Ok(())
}

/// Returns an address that this machine can connect to.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// Returns the reasons of the checks that failed.
fn failures(report: &[u8]) -> String {
    let report: Value = serde_json::from_slice(report).unwrap_or_default();
    let checks = report["checks"].as_object().into_iter().flatten();
    let failed = checks.filter(|(_, check)| check["ok"] == false);
    let reasons = failed.filter_map(|(_, check)| check["reason"].as_str());
    reasons.collect::<Vec<_>>().join("; ")
}
