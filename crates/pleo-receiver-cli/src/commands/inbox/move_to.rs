//! `pleo-receiver inbox move`: moves all messages from a file to PostgreSQL.

use std::fs;
use std::io;
use std::path::Path;

use pleo_receiver::{
    Inbox as _, InboxError, PostgresInbox, PostgresOptions, Query, Selection, SqliteInbox,
    SqliteOptions, StoredMessage,
};
use serde_json::json;

use crate::args::inbox::InboxMove;
use crate::failure::{Failure, chain};
use crate::inbox_url::{InboxUrl, open_sqlite};
use crate::output;

/// How many messages one transaction stores.
const PAGE: u32 = 200;

/// How many bytes of bodies one transaction stores, unless one message has more.
const MAX_BYTES: u64 = 8 << 20;

/// How many messages were moved, and how many the target had.
#[derive(Default)]
struct Moved {
    messages: u64,
    duplicates: u64,
}

impl Moved {
    async fn import(
        &mut self,
        target: &PostgresInbox,
        messages: Vec<StoredMessage>,
    ) -> Result<(), InboxError> {
        let read = u64::try_from(messages.len()).unwrap_or(u64::MAX);
        let imported = target.import(messages).await?;
        self.messages += imported;
        self.duplicates += read.saturating_sub(imported);
        Ok(())
    }
}

pub(super) async fn move_to(args: InboxMove) -> Result<(), Failure> {
    let from = InboxUrl::parse(&args.from).map_err(|failure| failure.at("`--from`"))?;
    let file = from.existing_file()?;
    let to = InboxUrl::parse(&args.to).map_err(|failure| failure.at("`--to`"))?;
    let InboxUrl::Postgres(options) = to else {
        let why = "give `postgres://USER@HOST/DATABASE`";
        return Err(Failure::usage("`--to`", why));
    };
    // As its server, so that no other process dispatches its messages. Ends all leases.
    let source = open_sqlite(file, SqliteOptions::default())?;
    let moved = copy(&source, *options).await?;
    source.close().await?;
    drop(source);
    let kept = rename(file).map_err(|error| {
        Failure::Run(format!(
            "all messages are moved, but `{file}` cannot be renamed: {}; delete it, so that no \
             receiver dispatches its messages again",
            chain(&error)
        ))
    })?;
    let Moved {
        messages,
        duplicates,
    } = moved;
    if args.json {
        return Ok(output::json(&json!({
            "moved": messages,
            "duplicates": duplicates,
            "kept_as": kept,
        }))?);
    }
    output::line(format_args!(
        "moved {messages} messages, {duplicates} were there already; the file is kept as {kept}"
    ))?;
    Ok(())
}

/// Copies all messages, the oldest first, and which endpoints are paused.
async fn copy(source: &SqliteInbox, options: PostgresOptions) -> Result<Moved, Failure> {
    let target = PostgresInbox::open_with(options).await?;
    for stats in source.stats().await? {
        if stats.paused {
            target.set_paused(stats.endpoint, true).await?;
        }
    }
    let mut moved = Moved::default();
    let mut query = Query::new(Selection::all(), PAGE);
    loop {
        let page = source.list(query.clone()).await?;
        let mut messages = Vec::with_capacity(page.entries.len());
        let mut bytes = 0;
        for entry in page.entries {
            bytes += entry.body_len;
            messages.extend(source.get(entry.key()).await?);
            if bytes > MAX_BYTES {
                moved
                    .import(&target, core::mem::take(&mut messages))
                    .await?;
                bytes = 0;
            }
        }
        moved.import(&target, messages).await?;
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    target.close().await?;
    Ok(moved)
}

/// Renames the file, with the log that may be beside it.
fn rename(file: &str) -> io::Result<String> {
    let kept = format!("{file}.moved");
    if Path::new(&kept).exists() {
        let text = format!("`{kept}` exists");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let log = format!("{file}-wal");
    if Path::new(&log).exists() {
        fs::rename(log, format!("{kept}-wal"))?;
    }
    fs::rename(file, &kept)?;
    Ok(kept)
}
