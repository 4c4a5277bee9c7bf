//! `pleo-receiver inbox backup` and `check`.

use std::fs;

use pleo_receiver::{SqliteCheck, SqliteInbox, UnreadableMessage};
use serde_json::json;
use tokio::task;

use super::url;
use crate::args::inbox::{InboxBackup, InboxCheck};
use crate::failure::Failure;
use crate::inbox_url::existing_path;
use crate::output;

pub(super) async fn backup(args: InboxBackup) -> Result<(), Failure> {
    let url = url(&args.inbox)?;
    let path = existing_path(&url)?.to_owned();
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
    let url = url(&args.inbox)?;
    let path = existing_path(&url)?.to_owned();
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
        let name = name(message);
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

fn name(message: &UnreadableMessage) -> String {
    match (&message.webhook_id, &message.endpoint) {
        (Some(id), Some(endpoint)) => format!("{id} at {endpoint}"),
        _ => format!("with sequence {}", message.sequence),
    }
}

fn print_json(check: &SqliteCheck) -> Result<(), Failure> {
    let unreadable = check.unreadable.iter().map(|message| {
        json!({
            "sequence": message.sequence,
            "endpoint": message.endpoint,
            "webhook_id": message.webhook_id,
            "error": message.error,
        })
    });
    Ok(output::json(&json!({
        "intact": check.is_intact(),
        "messages": check.messages,
        "file_errors": check.file_errors,
        "unreadable": unreadable.collect::<Vec<_>>(),
        "orphans": check.orphans,
    }))?)
}
