//! `pleo-receiver inbox move`: moves all messages from a file to PostgreSQL.

use std::fs;
use std::io;
use std::path::Path;

use pleo_receiver::{
    Inbox as _, InboxError, InboxErrorKind, Key, PostgresInbox, PostgresOptions, SqliteExport,
    SqliteInbox, SqliteOptions, StoredMessage, UnreadableMessage,
};
use serde_json::json;
use tokio::task;

use super::maintenance::{message_json, message_name};
use crate::args::inbox::InboxMove;
use crate::failure::{Failure, chain};
use crate::files::sync_directory;
use crate::inbox_url::{InboxUrl, open_sqlite};
use crate::output;

/// The most messages that one transaction stores.
const BATCH: usize = 200;

/// How many bytes of bodies one transaction stores, unless one message has more.
const MAX_BYTES: usize = 8 << 20;

/// How many messages were moved, how many the target had, and which could not be moved.
#[derive(Default)]
struct Moved {
    messages: u64,
    duplicates: u64,
    unreadable: Vec<UnreadableMessage>,
    refused: Vec<RefusedMessage>,
    file_errors: Vec<String>,
}

/// A message that the target refuses.
struct RefusedMessage {
    key: Key,
    error: String,
}

impl Moved {
    /// Imports messages: together or, if the target refuses one of them, each alone.
    async fn import(
        &mut self,
        target: &PostgresInbox,
        messages: Vec<StoredMessage>,
    ) -> Result<(), InboxError> {
        let read = messages.len();
        match target.import(messages.clone()).await {
            Err(error) if error.kind() == InboxErrorKind::Refused => {}
            imported => {
                self.count(read, imported?);
                return Ok(());
            }
        }
        for message in messages {
            let key = message.entry.key();
            match target.import(vec![message]).await {
                Err(error) if error.kind() == InboxErrorKind::Refused => {
                    let error = chain(&error);
                    self.refused.push(RefusedMessage { key, error });
                }
                imported => self.count(1, imported?),
            }
        }
        Ok(())
    }

    fn count(&mut self, read: usize, imported: u64) {
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.messages += imported;
        self.duplicates += read.saturating_sub(imported);
    }

    const fn is_complete(&self) -> bool {
        self.unreadable.is_empty() && self.refused.is_empty() && self.file_errors.is_empty()
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
    let moved = copy(&source, file, *options).await?;
    source.close().await?;
    drop(source);
    let mut kept = file.to_owned();
    if moved.is_complete() {
        kept = rename(file).map_err(|error| {
            Failure::Run(format!(
                "all messages are moved, but `{file}` cannot be renamed: {}; delete it, so that no \
                 receiver dispatches its messages again",
                chain(&error)
            ))
        })?;
    }
    if args.json {
        print_json(&moved, &kept)?;
    } else {
        print(&moved, &kept)?;
    }
    if moved.is_complete() {
        Ok(())
    } else {
        Err(Failure::AlreadyReported)
    }
}

/// Copies all messages that can be read and stored, the oldest first, and which endpoints are paused.
async fn copy(
    source: &SqliteInbox,
    file: &str,
    options: PostgresOptions,
) -> Result<Moved, Failure> {
    let target = PostgresInbox::open_with(options).await?;
    for stats in source.stats().await? {
        if stats.paused {
            target.set_paused(stats.endpoint, true).await?;
        }
    }
    let file = file.to_owned();
    let export = task::spawn_blocking(|| SqliteInbox::export(file)).await;
    let mut export = export.map_err(|error| Failure::run(&error))??;
    let mut moved = Moved {
        file_errors: export.file_errors().to_vec(),
        ..Moved::default()
    };
    loop {
        let read = task::spawn_blocking(|| read_batch(export)).await;
        let batch;
        (export, batch) = read.map_err(|error| Failure::run(&error))?;
        if batch.is_empty() {
            break;
        }
        let mut messages = Vec::with_capacity(batch.len());
        for message in batch {
            match message {
                Ok(message) => messages.push(message),
                Err(unreadable) => moved.unreadable.push(unreadable),
            }
        }
        moved.import(&target, messages).await?;
    }
    target.close().await?;
    Ok(moved)
}

type Batch = Vec<Result<StoredMessage, UnreadableMessage>>;

fn read_batch(mut export: SqliteExport) -> (SqliteExport, Batch) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH && bytes < MAX_BYTES {
        let Some(message) = export.next() else { break };
        bytes += message.as_ref().map_or(0, |message| message.body.len());
        batch.push(message);
    }
    (export, batch)
}

fn print(moved: &Moved, kept: &str) -> Result<(), Failure> {
    for error in &moved.file_errors {
        output::line(format_args!("FAILED  file      {error}"))?;
    }
    for message in &moved.unreadable {
        let (name, error) = (message_name(message), &message.error);
        output::line(format_args!("FAILED  message   {name}: {error}"))?;
    }
    for RefusedMessage { key, error } in &moved.refused {
        let (id, endpoint) = (&key.webhook_id, &key.endpoint);
        output::line(format_args!(
            "FAILED  message   {id} at {endpoint}: {error}"
        ))?;
    }
    let Moved {
        messages,
        duplicates,
        ..
    } = moved;
    output::line(format_args!(
        "moved {messages} messages, {duplicates} were there already; the file is kept as {kept}"
    ))?;
    if !moved.is_complete() {
        output::note(
            "the file keeps its name, since it has messages that are not moved; start no receiver on \
             it, which would dispatch the others again; to give up the messages, rename the file",
        )?;
    }
    if !moved.unreadable.is_empty() || !moved.file_errors.is_empty() {
        output::note(
            "to move unreadable messages, restore a backup, or recover what is readable with \
             `sqlite3 FILE .recover`, and move that file",
        )?;
    }
    if !moved.refused.is_empty() {
        output::note(
            "to move refused messages, correct why PostgreSQL refuses them, as a constraint or a \
             trigger of its tables, and run this command again",
        )?;
    }
    Ok(())
}

fn print_json(moved: &Moved, kept: &str) -> Result<(), Failure> {
    let unreadable: Vec<_> = moved.unreadable.iter().map(message_json).collect();
    let refused = moved.refused.iter().map(|RefusedMessage { key, error }| {
        json!({ "endpoint": &*key.endpoint, "webhook_id": &*key.webhook_id, "error": error })
    });
    Ok(output::json(&json!({
        "moved": moved.messages,
        "duplicates": moved.duplicates,
        "kept_as": kept,
        "unreadable": unreadable,
        "refused": refused.collect::<Vec<_>>(),
        "file_errors": moved.file_errors,
    }))?)
}

/// Renames the file, with the log that may be beside it. The new names survive a crash.
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
    sync_directory(Path::new(&kept))?;
    Ok(kept)
}
