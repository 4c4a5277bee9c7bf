//! `pleo-receiver inbox`: looks at what was received, also while a server runs.

use core::time::Duration;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pleo_receiver::{Entry, Filter, Inbox as _, Selection, SqliteInbox, State};
use serde_json::{Value, json};
use tokio::time;

use crate::args::{self, Finished, Inbox, InboxPrune, InboxReplay, InboxShow, InboxTail, InboxUrl};
use crate::commands::serve;
use crate::commands::serve::sqlite_path;
use crate::failure::Failure;

/// How many messages are read at once.
const PAGE: u32 = 500;

/// How often to look for new messages.
const POLL: Duration = Duration::from_millis(250);

pub(crate) async fn run(command: Inbox) -> Result<(), Failure> {
    match command {
        Inbox::List(args) => {
            let filter = Filter {
                state: args.state.map(Into::into),
                endpoint: args.endpoint,
                limit: args.limit,
                ..Filter::default()
            };
            let mut printer = Printer::new(args.json);
            list(&open(&args.inbox)?, filter, &mut printer).await
        }
        Inbox::Show(args) => show(args).await,
        Inbox::Replay(args) => replay(args).await,
        Inbox::Prune(args) => prune(args).await,
        Inbox::Tail(args) => tail(args).await,
    }
}

fn open(url: &InboxUrl) -> Result<SqliteInbox, Failure> {
    if url.inbox == "memory:" {
        let why = "`--inbox`: an inbox in memory ends with its server and cannot be looked at";
        return Err(Failure::Usage(why.to_owned()));
    }
    Ok(SqliteInbox::open_shared(sqlite_path(&url.inbox)?)?)
}

async fn list(
    inbox: &SqliteInbox,
    mut filter: Filter,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut left = filter.limit.unwrap_or(u32::MAX);
    while left > 0 {
        filter.limit = Some(left.min(PAGE));
        let page = inbox.list(filter.clone()).await?;
        let Some(last) = page.last() else { break };
        filter.after = Some(last.sequence);
        left -= u32::try_from(page.len()).unwrap_or(left);
        printer.print(&page)?;
    }
    Ok(())
}

async fn show(args: InboxShow) -> Result<(), Failure> {
    let found = open(&args.inbox)?.show(args.id.clone()).await?;
    if found.is_empty() {
        return Err(Failure::Run(format!(
            "the inbox holds no message {}",
            args.id
        )));
    }
    let mut out = io::stdout().lock();
    for (entry, body) in found {
        let mut object = describe(&entry);
        let text = str::from_utf8(&body).ok();
        if args.json {
            match text {
                Some(text) => object["body"] = text.into(),
                None => object["body_base64"] = STANDARD.encode(&body).into(),
            }
            writeln!(out, "{object}")?;
            continue;
        }
        for (key, value) in object.as_object().into_iter().flatten() {
            writeln!(out, "{key:13} {}", plain(value))?;
        }
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
    report("replayed", replayed, args.json)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Run(format!(
        "not in the inbox, or in a handler's hands just now: {}",
        missing.join(", ")
    )))
}

async fn prune(args: InboxPrune) -> Result<(), Failure> {
    let state = match args.state {
        Finished::Done => State::Done,
        Finished::Dead => State::Dead,
    };
    let pruned = open(&args.inbox)?.prune(state, args.older_than.0).await?;
    Ok(report("pruned", pruned, args.json)?)
}

async fn tail(args: InboxTail) -> Result<(), Failure> {
    let inbox = open(&args.inbox)?;
    // Read once, and one at least: what to print, and behind which one to go on.
    let newest = Filter {
        limit: Some(args.lines.max(1)),
        newest_first: true,
        ..Filter::default()
    };
    let mut entries = inbox.list(newest).await?;
    let mut after = entries.first().map(|entry| entry.sequence);
    entries.truncate(usize::try_from(args.lines).unwrap_or(usize::MAX));
    entries.reverse();
    let mut printer = Printer::new(args.json);
    printer.print(&entries)?;
    if !args.follow {
        return Ok(());
    }
    let stop = serve::stop_signal()?;
    let follow = async {
        loop {
            let filter = Filter {
                after,
                limit: Some(PAGE),
                ..Filter::default()
            };
            let page = inbox.list(filter).await?;
            after = page.last().map_or(after, |entry| Some(entry.sequence));
            printer.print(&page)?;
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

fn report(what: &str, count: u64, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json!({ what: count }))
    } else {
        writeln!(out, "{what} {count}")
    }
}

/// Prints entries as lines of JSON or as a table.
struct Printer {
    json: bool,
    started: bool,
}

impl Printer {
    const fn new(json: bool) -> Self {
        Self {
            json,
            started: false,
        }
    }

    fn print(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.json && !self.started {
            self.started = true;
            let (received, state) = ("RECEIVED", "STATE");
            writeln!(
                out,
                "{received:20} {state:8} ATTEMPTS {:31} EVENT TYPE",
                "WEBHOOK ID"
            )?;
        }
        for entry in entries {
            if self.json {
                writeln!(out, "{}", describe(entry))?;
                continue;
            }
            let received = format!("{:.0}", entry.received_at);
            let (state, attempts) = (entry.state.as_str(), entry.attempts);
            let event_type = entry.event_type.as_deref().unwrap_or("-").escape_debug();
            let id = &entry.webhook_id;
            writeln!(
                out,
                "{received:20} {state:8} {attempts:8} {id:31} {event_type}"
            )?;
        }
        out.flush()
    }
}

fn describe(entry: &Entry) -> Value {
    json!({
        "webhook_id": entry.webhook_id,
        "endpoint": entry.endpoint,
        "event_type": entry.event_type,
        "event_id": entry.event_id,
        "resource_id": entry.resource_id,
        "origin": entry.origin.as_str(),
        "state": entry.state.as_str(),
        "attempts": entry.attempts,
        "received_at": entry.received_at.to_string(),
        "expires_at": entry.expires_at.map(|at| at.to_string()),
        "due_at": entry.due_at.map(|at| at.to_string()),
        "last_error": entry.last_error,
        "body_len": entry.body_len,
    })
}

/// A value for people, with nothing in it that could steer a terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    }
}

impl From<args::State> for State {
    fn from(state: args::State) -> Self {
        match state {
            args::State::Pending => Self::Pending,
            args::State::Done => Self::Done,
            args::State::Dead => Self::Dead,
        }
    }
}
