//! The live view of the list: a stream of server-sent events with the rows that are new or changed.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use jiff::Timestamp;
use pleo_receiver::{EndpointStats, Entry, Inbox, InboxError, Query, Selection, State};
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};

use super::Page;
use super::filter::Filter;
use super::form::Form;
use super::layout::{failure, response};
use super::messages::{SHOWN, row};
use super::overview::TIMEOUT;
use super::session::{Session, Sessions};
use crate::admin::Body;

/// The maximum number of streams, so that connections stay for other clients.
pub(super) const STREAMS: usize = 8;

/// How long a stream lasts. Shorter than a connection of the admin listener. The browser then opens
/// the next.
const LIFETIME: Duration = Duration::from_secs(25);

/// How often the inbox is read.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the browser waits before it opens the next stream.
const RETRY: Duration = Duration::from_millis(500);

/// A read of this time or more is slow: the filter finds less than a page, and visits all messages. It
/// is repeated only if the statistics have changed.
const SLOW: Duration = Duration::from_millis(100);

/// A stream reads at most for one part in so many of the time.
const SHARE: u32 = 20;

/// The rows that a browser has: the newest of the filter, and those that were.
struct Rows {
    inbox: Arc<dyn Inbox>,
    selection: Selection,
    rows: BTreeMap<i64, Row>,
    last_read: Option<LastRead>,
}

/// What a row shows that may change, and its key.
#[derive(PartialEq)]
struct Row {
    endpoint: Arc<str>,
    webhook_id: Arc<str>,
    state: State,
    leased: bool,
    attempts: u32,
    last_error: Option<String>,
}

struct LastRead {
    at: Instant,
    took: Duration,
    counts: Vec<EndpointStats>,
}

/// Responds with a stream of rows.
pub(super) async fn respond(admin: &Page, session: Session, form: Form) -> Response<Body> {
    let filter = Filter::new(form);
    if let Some(error) = filter.error() {
        return failure(StatusCode::BAD_REQUEST, Some(&session), &error);
    }
    let Ok(permit) = Arc::clone(&admin.streams).try_acquire_owned() else {
        let text = "Too many live views are open.";
        return failure(StatusCode::SERVICE_UNAVAILABLE, Some(&session), text);
    };
    let selection = filter.selection(&**admin.receiver.inbox());
    let Ok(Ok(selection)) = time::timeout(TIMEOUT, selection).await else {
        let text = "The inbox did not respond.";
        return failure(StatusCode::SERVICE_UNAVAILABLE, Some(&session), text);
    };
    let rows = Rows::new(Arc::clone(admin.receiver.inbox()), selection);
    let sessions = Arc::clone(&admin.sessions);
    let (sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        rows.stream(sender, &sessions, &session).await;
        drop(permit);
    });
    let mut response = response(StatusCode::OK, "text/event-stream", "");
    *response.body_mut() = body.boxed_unsync();
    response
}

/// Creates the permits of the streams.
pub(super) fn streams() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STREAMS))
}

impl Rows {
    fn new(inbox: Arc<dyn Inbox>, selection: Selection) -> Self {
        Self {
            inbox,
            selection,
            rows: BTreeMap::new(),
            last_read: None,
        }
    }

    /// Sends rows until the stream's time is over, the browser is gone or the session has ended.
    async fn stream(mut self, mut sender: Sender<Bytes>, sessions: &Sessions, session: &Session) {
        let ends_at = Instant::now() + LIFETIME;
        let mut interval = time::interval(INTERVAL);
        let mut retry = Duration::ZERO;
        while Instant::now() < ends_at && sessions.has(session) {
            interval.tick().await;
            let updated = time::timeout(TIMEOUT, self.update()).await;
            let took = match (&updated, &self.last_read) {
                (Ok(Ok(_)), Some(last)) => last.took,
                _ => TIMEOUT,
            };
            let mut text = String::new();
            if retry != (took * SHARE).max(RETRY) {
                retry = (took * SHARE).max(RETRY);
                // Writing to a string cannot fail.
                let _ = write!(text, "retry: {}\n\n", retry.as_millis());
            }
            let now = Timestamp::now();
            let is_read = matches!(updated, Ok(Ok(_)));
            for entry in updated.ok().and_then(Result::ok).unwrap_or_default() {
                text.push_str("event: row\n");
                for line in row(&entry, now).into_string().lines() {
                    let _ = writeln!(text, "data: {line}");
                }
                text.push('\n');
            }
            // A comment, so that the end of the connection is noticed.
            text.push_str(":\n\n");
            let is_sent = sender.send_data(text.into()).await.is_ok();
            if !is_sent || !is_read {
                return;
            }
        }
    }

    /// Returns the rows that are new or changed, the oldest first. Reads nothing if the last read was
    /// slow, and either not long ago or nothing has changed since.
    async fn update(&mut self) -> Result<Vec<Entry>, InboxError> {
        let start = Instant::now();
        let last = self.last_read.as_ref();
        if last.is_some_and(|last| start < last.at + last.took * SHARE) {
            return Ok(Vec::new());
        }
        let counts = counts(self.inbox.stats().await?);
        if last.is_some_and(|last| last.took >= SLOW && last.counts == counts) {
            return Ok(Vec::new());
        }
        let changed = self.read().await?;
        self.last_read = Some(LastRead {
            at: start,
            took: start.elapsed(),
            counts,
        });
        Ok(changed)
    }

    async fn read(&mut self) -> Result<Vec<Entry>, InboxError> {
        let newest = Query::new(self.selection.clone(), SHOWN).newest_first();
        let mut read = self.inbox.list(newest).await?.entries;
        let listed: BTreeSet<i64> = read.iter().map(|entry| entry.sequence).collect();
        // Rows that left the filter.
        let left = self.rows.iter();
        for (_, row) in left.filter(|(sequence, _)| !listed.contains(sequence)) {
            let one = Selection::id(&*row.webhook_id).with_endpoint(&*row.endpoint);
            read.extend(self.inbox.list(Query::new(one, 1)).await?.entries);
        }
        let mut changed = Vec::new();
        for entry in read {
            let row = Row::new(&entry);
            if self.rows.get(&entry.sequence) != Some(&row) {
                self.rows.insert(entry.sequence, row);
                changed.push(entry);
            }
        }
        let shown = usize::try_from(SHOWN).unwrap_or(usize::MAX);
        while self.rows.len() > shown {
            self.rows.pop_first();
        }
        changed.retain(|entry| self.rows.contains_key(&entry.sequence));
        changed.sort_by_key(|entry| entry.sequence);
        Ok(changed)
    }
}

impl Row {
    fn new(entry: &Entry) -> Self {
        Self {
            endpoint: Arc::clone(&entry.endpoint),
            webhook_id: Arc::clone(&entry.webhook_id),
            state: entry.state,
            leased: entry.leased,
            attempts: entry.attempts,
            last_error: entry.last_error.clone(),
        }
    }
}

/// Returns statistics without what changes by itself.
fn counts(mut stats: Vec<EndpointStats>) -> Vec<EndpointStats> {
    for stats in &mut stats {
        stats.oldest_pending = None;
    }
    stats
}

#[cfg(test)]
mod tests;
