//! Checks the receiver on this machine: its settings, its disk and its admin listener.

use core::time::Duration;
use std::io;

use jiff::{SignedDuration, Span, SpanRound, Timestamp, Unit};
use pleo_http::reqwest::StatusCode;
use pleo_receiver::{Inbox, Tls};
use serde_json::Value;

use super::report::Report;
use crate::admin_client::{base_url, get};
use crate::certificate;
use crate::config::admin::AdminSettings;
use crate::config::handler::missing_program_fix;
use crate::config::load::{Config, TlsFiles};
use crate::failure::{Failure, chain};
use crate::http_client::cause;
use crate::inbox_url::InboxUrl;

/// The minimum free space on the disk of the inbox, in bytes.
const MIN_FREE: u64 = 1_000_000_000;

/// How long the certificate must be valid. The receiver warns from then on too.
const MIN_VALIDITY: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Checks what `serve` would do with this configuration.
pub(super) fn check_settings(config: &Config, report: &mut Report) -> io::Result<()> {
    match &config.handler {
        None => {
            let why = "none is configured; unless `serve` got one as a flag, messages stay pending";
            report.skipped("handler", why)?;
        }
        Some(target) => match target.missing_program() {
            None => report.ok("handler", &format!("`{}` is set", target.kind()))?,
            Some(program) => {
                let why = missing_program_fix(program);
                let found = format!("the program `{program}` of `exec` cannot run ({why})");
                let fix = "install it or correct `exec`; run `doctor` as the receiver's user, in its \
                           working directory";
                report.failed("handler", &found, fix)?;
            }
        },
    }
    if let Some(files) = &config.fixed.tls {
        check_tls(files, report)?;
    }
    let retention = &config.tasks.retention;
    if retention.is_empty() {
        let why = "no `[retention]`; messages are kept until `inbox prune` deletes them";
        return report.skipped("retention", why);
    }
    let ages = retention
        .iter()
        .map(|(state, age)| format!("{state} messages are deleted after {}", describe_age(*age)));
    report.ok("retention", &ages.collect::<Vec<_>>().join(", "))
}

/// Formats a time span as the configuration does: `30d`, `1h 30m`.
fn describe_age(age: Duration) -> String {
    let largest = SpanRound::new().largest(Unit::Day).days_are_24_hours();
    let span = Span::try_from(age).and_then(|span| span.round(largest));
    span.map_or_else(|_| format!("{age:?}"), |span| format!("{span:#}"))
}

/// Checks the certificate and the key for HTTPS.
fn check_tls(files: &TlsFiles, report: &mut Report) -> io::Result<()> {
    let renew = "renew it (`certbot renew`), and look at the renewal's schedule";
    let tls = match Tls::from_pem_files(&files.certificate, &files.key) {
        Ok(tls) => tls,
        Err(error) => {
            let fix = "correct `tls_certificate` and `tls_key`; the files must be a pair, in PEM, and \
                       readable for the receiver";
            return report.failed("tls", &chain(&error), fix);
        }
    };
    if certificate::is_authority(&files.certificate) {
        let found = "the certificate is that of an authority (CA:TRUE), which clients reject";
        return report.failed("tls", found, "make one with CA:FALSE");
    }
    let Some(expires_at) = tls.expires_at() else {
        return report.ok(
            "tls",
            "certificate and key are a pair; the expiry is unknown",
        );
    };
    let left = expires_at.duration_since(Timestamp::now());
    let day = format!("{expires_at:.0}");
    if left.is_negative() {
        let found = format!("the certificate expired at {day}");
        report.failed("tls", &found, renew)
    } else if left < MIN_VALIDITY {
        let found = format!("the certificate expires soon, at {day}");
        report.failed("tls", &found, renew)
    } else {
        let found = format!("certificate and key are a pair, valid until {day}");
        report.ok("tls", &found)
    }
}

/// Checks the disk of the inbox, and how many receivers can share it.
pub(super) async fn check_inbox(
    url: &InboxUrl,
    inbox: &dyn Inbox,
    report: &mut Report,
) -> Result<(), Failure> {
    if matches!(url, InboxUrl::Postgres(_)) {
        let why = "the inbox is in PostgreSQL; watch the disk of its server";
        report.skipped("disk", why)?;
        let replicas = "any number: receivers share an inbox in PostgreSQL";
        return Ok(report.ok("replicas", replicas)?);
    }
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

/// Checks that the admin listener answers, that the receiver is ready, and that it has taken the last
/// reload.
pub(super) async fn check_admin(admin: &AdminSettings, report: &mut Report) -> Result<(), Failure> {
    let base = match base_url(admin) {
        Ok(base) => base,
        Err(why) => return Ok(report.skipped("admin", why)?),
    };
    let url = format!("{base}/readyz");
    let answer = match get(&url, admin).await? {
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
        StatusCode::TOO_MANY_REQUESTS => {
            let found = format!("{url} had too many wrong credentials from this machine");
            let fix = "correct the credentials of the programs that read it, and run `doctor` again in a minute";
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
    if !matches!(
        answer.status,
        StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE
    ) {
        return Ok(());
    }
    match get(&format!("{base}/metrics"), admin).await? {
        Ok(page) if page.status == StatusCode::OK => {
            Ok(check_reload(&String::from_utf8_lossy(&page.body), report)?)
        }
        _ => Ok(()),
    }
}

/// Checks in the metrics that the receiver has not refused its last reload.
fn check_reload(metrics: &str, report: &mut Report) -> io::Result<()> {
    let last = |outcome: &str| {
        let sample =
            format!("pleo_receiver_last_reload_timestamp_seconds{{outcome=\"{outcome}\"}} ");
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&sample))?;
        value.parse::<f64>().ok()
    };
    let (done, failed) = (last("done"), last("failed"));
    match (done, failed) {
        (_, Some(at)) if done.is_none_or(|done| done < at) => {
            let time = SignedDuration::try_from_secs_f64(at).ok();
            let time = time.and_then(|time| Timestamp::from_duration(time).ok());
            let time = time.map_or_else(String::new, |time| format!(" at {time:.0}"));
            let found = format!(
                "the receiver refused its configuration{time}, and runs with the one before"
            );
            let fix =
                "see `configuration not reloaded` in its log; correct the file, and reload again";
            report.failed("reload", &found, fix)
        }
        (Some(_), _) => report.ok("reload", "the receiver has taken its last reload"),
        _ => report.ok("reload", "the receiver has had no reload since its start"),
    }
}

/// Returns the reasons of the checks that failed.
fn failures(report: &[u8]) -> String {
    let report: Value = serde_json::from_slice(report).unwrap_or_default();
    let checks = report["checks"].as_object().into_iter().flatten();
    let failed = checks.filter(|(_, check)| check["ok"] == false);
    let reasons = failed.filter_map(|(_, check)| check["reason"].as_str());
    reasons.collect::<Vec<_>>().join("; ")
}
