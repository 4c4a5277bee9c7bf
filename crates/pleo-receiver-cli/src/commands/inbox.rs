//! `pleo-receiver inbox`: lists, shows, replays and prunes messages. A server may be running.

use core::time::Duration;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_receiver::{Entry, Filter, Inbox as _, Selection, SqliteInbox, State};
use serde_json::{Value, json};
use tokio::time;

use crate::args::inbox::{
    Inbox, InboxList, InboxPrune, InboxReplay, InboxShow, InboxTail, InboxUrl,
};
use crate::args::values::{self, Finished};
use crate::config::load::inbox_url;
use crate::failure::Failure;
use crate::inbox_url::open_shared;
use crate::output::{self, List, Row};
use crate::signals;

/// How many messages are read per query.
const PAGE: u32 = 500;

/// How many messages a table shows unless `--limit` is given.
const NEWEST: u32 = 50;

/// How many characters of an error a table shows.
const CELL: usize = 60;

/// How often `tail --follow` looks for new messages.
const POLL: Duration = Duration::from_millis(250);

pub(crate) async fn run(command: Inbox) -> Result<(), Failure> {
    match command {
        Inbox::List(args) => list(args).await,
        Inbox::Show(args) => show(args).await,
        Inbox::Replay(args) => replay(args).await,
        Inbox::Prune(args) => prune(args).await,
        Inbox::Tail(args) => tail(args).await,
    }
}

fn open(url: &InboxUrl) -> Result<SqliteInbox, Failure> {
    open_shared(&inbox_url(url.inbox.clone(), url.config.as_deref())?)
}

async fn list(args: InboxList) -> Result<(), Failure> {
    let inbox = open(&args.inbox)?;
    let mut output = List::new(args.json);
    let mut filter = Filter {
        state: args.state.map(Into::into),
        endpoint: args.endpoint,
        ..Filter::default()
    };
    if args.limit.is_none() && !args.json {
        filter.limit = Some(NEWEST + 1);
        filter.newest_first = true;
        let mut page = inbox.list(filter).await?;
        let newest = usize::try_from(NEWEST).unwrap_or(usize::MAX);
        let is_truncated = page.len() > newest;
        page.truncate(newest);
        page.reverse();
        output.print(&page)?;
        if is_truncated {
            output::note(format_args!(
                "only the newest {NEWEST} messages are shown: `--limit N` lists from the oldest, \
                 `inbox tail -n N` shows more of the newest"
            ))?;
        }
        return Ok(output.end("no messages")?);
    }
    let mut remaining = args.limit.unwrap_or(u32::MAX);
    while remaining > 0 {
        filter.limit = Some(remaining.min(PAGE));
        let page = inbox.list(filter.clone()).await?;
        let Some(last) = page.last() else { break };
        filter.after = Some(last.sequence);
        remaining -= u32::try_from(page.len()).unwrap_or(remaining);
        output.print(&page)?;
    }
    Ok(output.end("no messages")?)
}

async fn show(args: InboxShow) -> Result<(), Failure> {
    let found = open(&args.inbox)?.show(args.id.clone()).await?;
    if found.is_empty() {
        return Err(Failure::Run(format!(
            "the inbox has no message `{}`; `pleo-receiver inbox list` shows those it has",
            args.id
        )));
    }
    for (entry, body) in found {
        let mut object = entry.json();
        let text = str::from_utf8(&body).ok();
        if args.json {
            match text {
                Some(text) => object["body"] = text.into(),
                None => object["body_base64"] = STANDARD.encode(&body).into(),
            }
            output::json(&object)?;
            continue;
        }
        output::fields(&object)?;
        let mut out = io::stdout().lock();
        writeln!(out)?;
        out.write_all(&body)?;
        writeln!(out)?;
    }
    Ok(())
}

async fn replay(args: InboxReplay) -> Result<(), Failure> {
    let inbox = open(&args.inbox)?;
    let mut replayed = 0;
    let mut missing = Vec::new();
    if args.ids.is_empty() {
        let selection = Selection {
            webhook_id: None,
            endpoint: args.endpoint,
            event_type: args.event_type,
            state: args
                .dead
                .then_some(State::Dead)
                .or_else(|| args.state.map(Into::into)),
            since: args.since.map(|since| since.0),
            until: args.until.map(|until| until.0),
        };
        replayed = inbox.replay(selection).await?;
    }
    for id in args.ids {
        match inbox.replay(Selection::id(&*id)).await? {
            0 => missing.push(id),
            count => replayed += count,
        }
    }
    print_count("replayed", replayed, args.json)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Run(format!(
        "not replayed: {}; each is missing from the inbox, or a handler is processing it: \
         `pleo-receiver inbox show ID` shows it",
        missing.join(", ")
    )))
}

async fn prune(args: InboxPrune) -> Result<(), Failure> {
    let state = match args.state {
        Finished::Done => State::Done,
        Finished::Dead => State::Dead,
    };
    let pruned = open(&args.inbox)?.prune(state, args.older_than.0).await?;
    Ok(print_count("pruned", pruned, args.json)?)
}

async fn tail(args: InboxTail) -> Result<(), Failure> {
    let inbox = open(&args.inbox)?;
    // The newest message is read even with `-n 0`, so that `--follow` starts after it.
    let newest = Filter {
        limit: Some(args.lines.max(1)),
        newest_first: true,
        ..Filter::default()
    };
    let mut entries = inbox.list(newest).await?;
    let mut after = entries.first().map(|entry| entry.sequence);
    entries.truncate(usize::try_from(args.lines).unwrap_or(usize::MAX));
    entries.reverse();
    let mut output = List::new(args.json);
    output.print(&entries)?;
    if !args.follow {
        return Ok(output.end("no messages")?);
    }
    let stop = signals::stop()?;
    let follow = async {
        loop {
            let filter = Filter {
                after,
                limit: Some(PAGE),
                ..Filter::default()
            };
            let page = inbox.list(filter).await?;
            after = page.last().map_or(after, |entry| Some(entry.sequence));
            output.print(&page)?;
            if page.is_empty() {
                time::sleep(POLL).await;
            }
        }
    };
    tokio::select! {
        () = stop => Ok(()),
        ended = follow => ended,
    }
}

fn print_count(verb: &str, count: u64, as_json: bool) -> io::Result<()> {
    if as_json {
        output::json(&json!({ verb: count }))
    } else {
        output::line(format_args!("{verb} {count}"))
    }
}

impl Row for Entry {
    const COLUMNS: &'static [&'static str] = &[
        "RECEIVED",
        "STATE",
        "ATTEMPTS",
        "WEBHOOK ID",
        "EVENT TYPE",
        "ENDPOINT",
        "LAST ERROR",
    ];

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            format!("{:.0}", self.received_at),
            self.state.as_str().to_owned(),
            self.attempts.to_string(),
            self.webhook_id.clone(),
            text(&self.event_type),
            self.endpoint.clone(),
            shorten(&text(&self.last_error)),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "webhook_id": self.webhook_id,
            "endpoint": self.endpoint,
            "event_type": self.event_type,
            "event_id": self.event_id,
            "resource_id": self.resource_id,
            "origin": self.origin.as_str(),
            "state": self.state.as_str(),
            "attempts": self.attempts,
            "received_at": self.received_at.to_string(),
            "expires_at": self.expires_at.map(|at| at.to_string()),
            "due_at": self.due_at.map(|at| at.to_string()),
            "last_error": self.last_error,
            "body_len": self.body_len,
        })
    }
}

/// Shortens a text to the width of a table's cell. `inbox show` prints it completely.
fn shorten(text: &str) -> String {
    let mut letters = text.trim_end().chars();
    let mut short: String = letters.by_ref().take(CELL).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    short
}

impl From<values::State> for State {
    fn from(state: values::State) -> Self {
        match state {
            values::State::Pending => Self::Pending,
            values::State::Done => Self::Done,
            values::State::Dead => Self::Dead,
        }
    }
}
