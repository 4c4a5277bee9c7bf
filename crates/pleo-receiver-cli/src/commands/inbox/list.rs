//! `pleo-receiver inbox list` and `tail`.

use core::time::Duration;

use jiff::Timestamp;
use pleo_receiver::{Cursor, Entry, Inbox, InboxError, Query, Selection, State};
use serde_json::{Value, json};
use tokio::time;

use super::open;
use crate::args::inbox::{InboxList, InboxTail};
use crate::failure::Failure;
use crate::output::{self, List, Row};
use crate::signals;

/// How many messages are read per query.
const PAGE: u32 = 500;

/// How many messages a table shows unless `--limit` is given.
const NEWEST: u32 = 50;

/// How many characters of an error a table shows.
const ERROR: usize = 60;

/// How often `tail --follow` looks for new messages.
const POLL: Duration = Duration::from_millis(250);

pub(super) async fn list(args: InboxList) -> Result<(), Failure> {
    let inbox = open(&args.inbox).await?;
    let mut output = List::new(args.json);
    let mut selection = Selection::all();
    selection.state = args.state.map(Into::into);
    selection.endpoint = args.endpoint;
    let mut query = Query::new(selection, PAGE);
    let mut remaining = u32::MAX;
    if let Some(newest) = args.limit.or_else(|| (!args.json).then_some(NEWEST)) {
        remaining = newest;
        query.after = before_newest(&*inbox, &query, newest).await?;
    }
    let is_truncated = query.after.is_some();
    while remaining > 0 {
        query.limit = remaining.min(PAGE);
        let page = inbox.list(query.clone()).await?;
        remaining -= u32::try_from(page.entries.len()).unwrap_or(remaining);
        output.print(&page.entries)?;
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    if is_truncated && args.limit.is_none() {
        output::note(format_args!(
            "only the newest {NEWEST} messages are shown; `--limit N` shows more"
        ))?;
    }
    Ok(output.end("no messages")?)
}

/// Returns the position before the newest messages; `None` if there are no more messages than these.
async fn before_newest(
    inbox: &dyn Inbox,
    query: &Query,
    newest: u32,
) -> Result<Option<Cursor>, InboxError> {
    let mut query = query.clone().newest_first();
    let mut remaining = newest;
    loop {
        // The message before the newest ones is read too.
        let limit = remaining.saturating_add(1).min(PAGE);
        query.limit = limit;
        let page = inbox.list(query.clone()).await?;
        let read = u32::try_from(page.entries.len()).unwrap_or(limit);
        if read > remaining {
            return Ok(page.entries.last().map(Entry::cursor));
        }
        remaining -= read;
        query.after = page.next;
        if query.after.is_none() {
            return Ok(None);
        }
    }
}

pub(super) async fn tail(args: InboxTail) -> Result<(), Failure> {
    let inbox = open(&args.inbox).await?;
    // The newest message is read even with `-n 0`, so that `--follow` starts after it.
    let newest = Query::new(Selection::all(), args.lines.max(1)).newest_first();
    let mut entries = inbox.list(newest).await?.entries;
    let mut query = Query::new(Selection::all(), PAGE);
    query.after = entries.first().map(Entry::cursor);
    entries.truncate(usize::try_from(args.lines).unwrap_or(usize::MAX));
    entries.reverse();
    let mut output = List::new(args.json);
    output.print(&entries)?;
    if !args.follow {
        return Ok(output.end("no messages")?);
    }
    let mut stop = signals::Stop::new()?;
    let follow = async {
        loop {
            let page = inbox.list(query.clone()).await?.entries;
            query.after = page.last().map(Entry::cursor).or(query.after);
            output.print(&page)?;
            if page.is_empty() {
                time::sleep(POLL).await;
            }
        }
    };
    tokio::select! {
        () = stop.wait() => Ok(()),
        ended = follow => ended,
    }
}

impl Row for Entry {
    const COLUMNS: &'static [&'static str] = &[
        "RECEIVED (UTC)",
        "STATE",
        "TRIES",
        "WEBHOOK ID",
        "EXPIRES",
        "EVENT TYPE",
        "ENDPOINT",
        "LAST ERROR",
    ];

    /// To the expiry, which a cut would falsify.
    const UNCUT: usize = 5;

    /// To the id, which `inbox show` needs complete. A terminal of 80 columns has room for the expiry too
    /// with a usual id, but not with one of the sandbox.
    const KEPT: usize = 4;

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.received_at.strftime("%m-%d %H:%M:%S").to_string(),
            self.state.as_str().to_owned(),
            self.attempts.to_string(),
            self.webhook_id.to_string(),
            self.expires_at
                .filter(|_| self.state != State::Done)
                .map_or_else(
                    || "-".to_owned(),
                    |expiry| output::until(expiry, Timestamp::now()),
                ),
            text(&self.event_type),
            self.endpoint.to_string(),
            shorten(&text(&self.last_error)),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "webhook_id": &*self.webhook_id,
            "endpoint": &*self.endpoint,
            "event_type": self.event_type,
            "event_id": self.event_id,
            "resource_id": self.resource_id,
            "origin": self.origin.as_str(),
            "source": self.source.map(|source| source.to_string()),
            "state": self.state.as_str(),
            "leased": self.leased,
            "attempts": self.attempts,
            "received_at": self.received_at.to_string(),
            "expires_at": self.expires_at.map(|at| at.to_string()),
            "due_at": self.due_at.map(|at| at.to_string()),
            "last_error": self.last_error,
            "body_len": self.body_len,
        })
    }
}

/// Shortens an error to the width of a table's cell. `inbox show` prints it completely.
fn shorten(error: &str) -> String {
    let mut letters = error.trim_end().chars();
    let mut short: String = letters.by_ref().take(ERROR).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    short
}
