//! `pleo-receiver inbox backup` and `check`.

use std::fs;

use pleo_receiver::{Inbox, Query, Selection, SqliteCheck, SqliteInbox, UnreadableMessage};
use serde_json::{Value, json};
use tokio::task;

use super::url;
use crate::args::inbox::{InboxBackup, InboxCheck};
use crate::failure::{Failure, chain};
use crate::inbox_url::InboxUrl;
use crate::output;

/// How many messages are listed at once.
const PAGE: u32 = 500;

pub(super) async fn backup(args: InboxBackup) -> Result<(), Failure> {
    let url = InboxUrl::parse(&url(&args.inbox)?)?;
    if let InboxUrl::Postgres(_) = url {
        let why = "back up an inbox in PostgreSQL with `pg_dump --schema=pleo_inbox`, or with the \
                   backups of its server";
        return Err(Failure::usage("`--inbox`", why));
    }
    let path = url.existing_file()?.to_owned();
    let file = args.file.clone();
    let copy = move || SqliteInbox::backup(path, &file);
    let copied = task::spawn_blocking(copy).await;
    let copied = copied.map_err(|error| Failure::run(&error))?;
    copied.map_err(|error| Failure::run(&error))?;
    let file = args.file.display().to_string();
    let bytes = fs::metadata(&args.file).map_or(0, |file| file.len());
    if args.json {
        return Ok(output::json(&json!({ "file": file, "bytes": bytes }))?);
    }
    Ok(output::line(format_args!(
        "backed up to {file}, {bytes} bytes"
    ))?)
}

pub(super) async fn check(args: InboxCheck) -> Result<(), Failure> {
    let url = InboxUrl::parse(&url(&args.inbox)?)?;
    if let InboxUrl::Postgres(_) = url {
        return check_each(&*url.open_shared().await?, args.json).await;
    }
    let path = url.existing_file()?.to_owned();
    let checked = task::spawn_blocking(|| SqliteInbox::check_file(path)).await;
    let check = checked.map_err(|error| Failure::run(&error))??;
    if args.json {
        print_json(&check)?;
    } else {
        print(&check)?;
    }
    if check.is_intact() {
        Ok(())
    } else {
        Err(Failure::AlreadyReported)
    }
}

/// Reads each message. Opening the inbox has checked the server and the schema.
async fn check_each(inbox: &dyn Inbox, as_json: bool) -> Result<(), Failure> {
    let mut query = Query::new(Selection::all(), PAGE);
    let mut messages = 0_u64;
    let mut unreadable = Vec::new();
    loop {
        let page = inbox.list(query.clone()).await?;
        for entry in &page.entries {
            messages += 1;
            match inbox.get(entry.key()).await {
                // A message that was pruned since is left out.
                Ok(_) => {}
                Err(error) => unreadable.push((entry.key(), chain(&error))),
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    if as_json {
        let unreadable = unreadable.iter().map(|(key, error)| {
            json!({ "endpoint": &*key.endpoint, "webhook_id": &*key.webhook_id, "error": error })
        });
        output::json(&json!({
            "intact": unreadable.len() == 0,
            "messages": messages,
            "unreadable": unreadable.collect::<Vec<_>>(),
        }))?;
    } else if unreadable.is_empty() {
        output::line(format_args!("ok      {messages} messages"))?;
    }
    if unreadable.is_empty() {
        return Ok(());
    }
    if !as_json {
        for (key, error) in &unreadable {
            let (id, endpoint) = (&key.webhook_id, &key.endpoint);
            output::line(format_args!(
                "FAILED  message   {id} at {endpoint}: {error}"
            ))?;
        }
        let unreadable = unreadable.len();
        output::line(format_args!(
            "        {unreadable} of {messages} messages are unreadable"
        ))?;
    }
    Err(Failure::AlreadyReported)
}

fn print(check: &SqliteCheck) -> Result<(), Failure> {
    let SqliteCheck {
        messages, orphans, ..
    } = check;
    if check.is_intact() {
        return Ok(output::line(format_args!("ok      {messages} messages"))?);
    }
    for error in &check.file_errors {
        output::line(format_args!("FAILED  file      {error}"))?;
    }
    for message in &check.unreadable {
        let UnreadableMessage { error, .. } = message;
        let name = message_name(message);
        output::line(format_args!("FAILED  message   {name}: {error}"))?;
    }
    if *orphans > 0 {
        output::line(format_args!(
            "FAILED  file      {orphans} rows belong to no message"
        ))?;
    }
    let unreadable = check.unreadable.len();
    output::line(format_args!(
        "        {unreadable} of {messages} messages are unreadable"
    ))?;
    if unreadable > 0 {
        output::note(
            "unreadable messages are not dispatched, and are set aside as dead; restore a backup, \
             or ask Pleo to deliver them again; `pleo-receiver catch-up` fetches pending export jobs",
        )?;
    }
    if !check.file_errors.is_empty() || *orphans > 0 {
        output::note(
            "the file is damaged: check the disk and its connection; stop the receiver, save the \
             file with its `-wal`, and restore a backup, or recover what is readable with \
             `sqlite3 FILE .recover`",
        )?;
    }
    Ok(())
}

pub(super) fn message_name(message: &UnreadableMessage) -> String {
    match (&message.webhook_id, &message.endpoint) {
        (Some(id), Some(endpoint)) => format!("{id} at {endpoint}"),
        _ => format!("with sequence {}", message.sequence),
    }
}

fn print_json(check: &SqliteCheck) -> Result<(), Failure> {
    let unreadable: Vec<_> = check.unreadable.iter().map(message_json).collect();
    Ok(output::json(&json!({
        "intact": check.is_intact(),
        "messages": check.messages,
        "file_errors": check.file_errors,
        "unreadable": unreadable,
        "orphans": check.orphans,
    }))?)
}

pub(super) fn message_json(message: &UnreadableMessage) -> Value {
    json!({
        "sequence": message.sequence,
        "endpoint": message.endpoint,
        "webhook_id": message.webhook_id,
        "error": message.error,
    })
}
