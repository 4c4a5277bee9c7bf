//! The live view of the list: a stream of server-sent events with the rows that are new or changed.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use jiff::Timestamp;
use pleo_receiver::{Entry, Inbox, InboxError, Query, Selection, State};
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

/// How long the browser waits before it opens the next stream, in milliseconds.
const RETRY: u32 = 500;

/// The rows that a browser has: the newest of the filter.
struct Rows {
    receiver: pleo_receiver::Receiver,
    selection: Selection,
    entries: BTreeMap<i64, Entry>,
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
    let rows = Rows {
        receiver: admin.receiver.clone(),
        selection,
        entries: BTreeMap::new(),
    };
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
    /// Sends rows until the stream's time is over, the browser is gone or the session has ended.
    async fn stream(mut self, mut sender: Sender<Bytes>, sessions: &Sessions, session: &Session) {
        let ends_at = Instant::now() + LIFETIME;
        let mut interval = time::interval(INTERVAL);
        let mut text = format!("retry: {RETRY}\n\n");
        while Instant::now() < ends_at && sessions.has(session) {
            interval.tick().await;
            let Ok(Ok(changed)) = time::timeout(TIMEOUT, self.update()).await else {
                return;
            };
            let now = Timestamp::now();
            for entry in changed {
                text.push_str("event: row\n");
                for line in row(&entry, now).into_string().lines() {
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "data: {line}");
                }
                text.push('\n');
            }
            // A comment, so that the end of the connection is noticed.
            text.push_str(":\n\n");
            let data = Bytes::from(core::mem::take(&mut text));
            if sender.send_data(data).await.is_err() {
                return;
            }
        }
    }

    /// Reads what is new, and the pending messages again. Returns those that are new or changed, the
    /// oldest first.
    async fn update(&mut self) -> Result<Vec<Entry>, InboxError> {
        let inbox = Arc::clone(self.receiver.inbox());
        let mut read = self.reread(&*inbox).await?;
        let query = Query::new(self.selection.clone(), SHOWN);
        let newest = self.entries.values().next_back().map(Entry::cursor);
        let new = match newest {
            Some(newest) => inbox.list(query.clone().with_after(newest)).await?,
            None => inbox.list(query.clone().newest_first()).await?,
        };
        // More than a page arrived: only the newest are shown.
        let new = match (newest, new.next) {
            (Some(_), Some(_)) => inbox.list(query.newest_first()).await?,
            _ => new,
        };
        read.extend(new.entries);
        let mut changed = Vec::new();
        for entry in read {
            let before = self.entries.insert(entry.sequence, entry.clone());
            if before.as_ref() != Some(&entry) {
                changed.push(entry);
            }
        }
        let shown = usize::try_from(SHOWN).unwrap_or(usize::MAX);
        while self.entries.len() > shown {
            self.entries.pop_first();
        }
        changed.retain(|entry| self.entries.contains_key(&entry.sequence));
        changed.sort_by_key(|entry| entry.sequence);
        Ok(changed)
    }

    /// Reads the pending messages again, each by its key, also if they left the filter.
    async fn reread(&self, inbox: &dyn Inbox) -> Result<Vec<Entry>, InboxError> {
        let mut read = Vec::new();
        let pending = self.entries.values();
        for entry in pending.filter(|entry| entry.state == State::Pending) {
            let one = Selection::id(&*entry.webhook_id).with_endpoint(&*entry.endpoint);
            read.extend(inbox.list(Query::new(one, 1)).await?.entries);
        }
        Ok(read)
    }
}
