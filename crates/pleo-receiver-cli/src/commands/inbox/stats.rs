//! `pleo-receiver inbox stats`: prints counts by endpoint and state, ages, expiries and sizes.

use std::fs;

use jiff::Timestamp;
use pleo_receiver::EndpointStats;
use serde_json::{Value, json};

use super::url;
use crate::args::inbox::InboxStats;
use crate::failure::Failure;
use crate::inbox_url::InboxUrl;
use crate::output::{self, List, Row};

pub(super) async fn stats(args: InboxStats) -> Result<(), Failure> {
    let url = InboxUrl::parse(&url(&args.inbox)?)?;
    let sizes = match &url {
        InboxUrl::Sqlite(path) => {
            let size = |path: &str| fs::metadata(path).map_or(0, |file| file.len());
            Some((size(path), size(&format!("{path}-wal"))))
        }
        _ => None,
    };
    let stats = url.open_shared().await?.stats().await?;
    if args.json {
        let endpoints: Vec<_> = stats.iter().map(Row::json).collect();
        let mut object = json!({ "endpoints": endpoints });
        if let Some((file, log)) = sizes {
            object["file_bytes"] = file.into();
            object["log_bytes"] = log.into();
        }
        return Ok(output::json(&object)?);
    }
    let mut list = List::new(false);
    list.print(&stats)?;
    list.end("no messages")?;
    if let Some((file, log)) = sizes {
        output::line(format_args!(
            "file {}, write-ahead log {}",
            describe_size(file),
            describe_size(log)
        ))?;
    }
    Ok(())
}

impl Row for EndpointStats {
    const COLUMNS: &'static [&'static str] = &[
        "ENDPOINT",
        "READY",
        "LEASED",
        "SCHEDULED",
        "DEAD",
        "PAUSED",
        "NEXT EXPIRY",
        "OLDEST",
        "EXPIRED",
        "DONE",
    ];

    /// The name of the endpoint.
    const UNCUT: usize = 1;

    fn cells(&self) -> Vec<String> {
        vec![
            self.endpoint.to_string(),
            self.ready.to_string(),
            self.leased.to_string(),
            self.scheduled.to_string(),
            self.dead.to_string(),
            if self.paused { "yes" } else { "no" }.to_owned(),
            match self.nearest_expiry {
                Some(expiry) => output::until(expiry, Timestamp::now()),
                None if self.expired > 0 => "expired".to_owned(),
                None => "-".to_owned(),
            },
            (self.oldest_pending).map_or_else(|| "-".to_owned(), output::about),
            self.expired.to_string(),
            self.done.to_string(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "endpoint": &*self.endpoint,
            "paused": self.paused,
            "pending": self.pending(),
            "ready": self.ready,
            "leased": self.leased,
            "scheduled": self.scheduled,
            "done": self.done,
            "dead": self.dead,
            "oldest_pending_seconds": self.oldest_pending.map(|age| age.as_secs()),
            "nearest_expiry": self.nearest_expiry.map(|at| at.to_string()),
            "expired": self.expired,
        })
    }
}

/// Formats a size in KiB, or in MiB with one decimal.
fn describe_size(bytes: u64) -> String {
    if bytes < 1 << 20 {
        return format!("{} KiB", bytes.div_ceil(1024));
    }
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
