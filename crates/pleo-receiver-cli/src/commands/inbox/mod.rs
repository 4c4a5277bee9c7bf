//! `pleo-receiver inbox`: manages the messages. A server may be running.

mod list;
mod maintenance;
mod migrate;
mod move_to;
mod show;
mod stats;
mod verify;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use pleo_receiver::{Query, Selection, State};
use serde_json::json;

use crate::args::inbox::{Inbox, InboxPause, InboxPrune, InboxReplay, InboxUrl};
use crate::args::values::{self, Finished};
use crate::config::load::{endpoint_names, inbox_url};
use crate::failure::Failure;
use crate::inbox_url::open_shared;
use crate::output;

pub(crate) async fn run(command: Inbox) -> Result<(), Failure> {
    match command {
        Inbox::List(args) => list::list(args).await,
        Inbox::Show(args) => show::show(args).await,
        Inbox::Verify(args) => verify::verify(args).await,
        Inbox::Replay(args) => replay(args).await,
        Inbox::Prune(args) => prune(args).await,
        Inbox::Tail(args) => list::tail(args).await,
        Inbox::Stats(args) => stats::stats(args).await,
        Inbox::Pause(args) => set_paused(args, true).await,
        Inbox::Resume(args) => set_paused(args, false).await,
        Inbox::Backup(args) => maintenance::backup(args).await,
        Inbox::Check(args) => maintenance::check(args).await,
        Inbox::Migrate(args) => migrate::migrate(args).await,
        Inbox::Move(args) => move_to::move_to(args).await,
    }
}

fn url(args: &InboxUrl) -> Result<String, Failure> {
    inbox_url(args.inbox.clone(), args.config.as_deref())
}

async fn open(args: &InboxUrl) -> Result<Arc<dyn pleo_receiver::Inbox>, Failure> {
    open_shared(&url(args)?).await
}

/// How many of the newest messages are searched for the end of an id.
const SEARCHED: usize = 10_000;

/// How many messages are read per query.
const PAGE: u32 = 500;

/// The minimum length of the end of an id, in characters: `dev` prints this many.
const END: usize = 8;

/// Returns the id of a message that is given by its id, or by an end of it that no other of the newest
/// messages has; `None` if there is no such message.
async fn find_id(inbox: &dyn pleo_receiver::Inbox, id: &str) -> Result<Option<String>, Failure> {
    let exact = inbox.list(Query::new(Selection::id(id), 1)).await?;
    if !exact.entries.is_empty() {
        return Ok(Some(id.to_owned()));
    }
    let end = id.trim_start_matches('…');
    if end.chars().count() < END {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    let mut query = Query::new(Selection::all(), PAGE).newest_first();
    let mut searched = 0;
    while searched < SEARCHED {
        let page = inbox.list(query.clone()).await?;
        searched += page.entries.len();
        let ids = page.entries.into_iter().map(|entry| entry.webhook_id);
        found.extend(ids.filter(|id| id.ends_with(end)));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let mut ids = found.iter();
    match (ids.next(), ids.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => Ok(Some(id.to_string())),
        (Some(_), Some(_)) => {
            let ids: Vec<_> = found.iter().map(|id| &**id).collect();
            Err(Failure::Usage(format!(
                "several messages have an id that ends with `{end}`: give one of {}",
                ids.join(", ")
            )))
        }
    }
}

/// Reports that no message has this id.
fn not_found(id: &str) -> Failure {
    Failure::Run(format!(
        "the inbox has no message `{id}`; `pleo-receiver inbox list` shows those it has"
    ))
}

async fn replay(args: InboxReplay) -> Result<(), Failure> {
    let inbox = open(&args.inbox).await?;
    let mut replayed = 0;
    let mut missing = Vec::new();
    if args.ids.is_empty() {
        let mut selection = Selection::all();
        selection.endpoint = args.endpoint;
        selection.event_type = args.event_type;
        selection.state = args.state.map(Into::into);
        if args.dead {
            selection.state = Some(State::Dead);
        }
        selection.since = args.since.map(|since| since.0);
        selection.until = args.until.map(|until| until.0);
        replayed = inbox.replay(selection).await?;
    }
    let mut ids = Vec::new();
    for id in args.ids {
        ids.push(find_id(&*inbox, &id).await?.unwrap_or(id));
    }
    for id in ids {
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
    let selection = Selection::state(state).with_until(args.older_than.0);
    let pruned = open(&args.inbox).await?.prune(selection).await?;
    Ok(print_count("pruned", pruned, args.json)?)
}

async fn set_paused(args: InboxPause, paused: bool) -> Result<(), Failure> {
    let inbox = open(&args.inbox).await?;
    let endpoint = args.endpoint;
    let stats = inbox.stats().await?;
    let mut known: BTreeSet<_> = stats
        .iter()
        .map(|stats| stats.endpoint.to_string())
        .collect();
    // An endpoint without messages is only in the configuration, which this command may not have.
    known.extend(endpoint_names(args.inbox.config.as_deref()).unwrap_or_default());
    if !known.contains(&endpoint) {
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        return Err(Failure::Run(format!(
            "no endpoint is named `{endpoint}`, in the inbox or in the configuration; name one of \
             these: {}",
            known.join(", ")
        )));
    }
    inbox.set_paused(endpoint.as_str().into(), paused).await?;
    if args.json {
        output::json(&json!({ "endpoint": endpoint, "paused": paused }))?;
    } else {
        let verb = if paused { "paused" } else { "resumed" };
        output::line(format_args!("{verb} {endpoint}"))?;
    }
    Ok(())
}

fn print_count(verb: &str, count: u64, as_json: bool) -> io::Result<()> {
    if as_json {
        output::json(&json!({ verb: count }))
    } else {
        output::line(format_args!("{verb} {count}"))
    }
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
