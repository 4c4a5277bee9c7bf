//! Lists come in pages.

use core::fmt;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::{HashSet, VecDeque};

use futures_core::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::list::Query;
use crate::{Cursor, Error, Extra, PageStart, SortOrder};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// Its entries.
    pub data: Vec<T>,
    /// Where it is in the list.
    pub pagination: Pagination,
}

/// Where a page is in its list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pagination {
    /// Whether another page follows.
    pub has_next_page: bool,
    /// Whether another page comes before.
    pub has_previous_page: bool,
    /// The place of its first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_cursor: Option<Cursor>,
    /// The place of its last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_cursor: Option<Cursor>,
    /// How many entries the whole list has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What was asked for, as Pleo understood it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_request_pagination: Option<CurrentRequest>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What was asked for, as Pleo understood it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CurrentRequest {
    /// The filters.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// See [`PageStart::Before`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Cursor>,
    /// See [`PageStart::After`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    /// See [`PageStart::Offset`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// See [`PageRequest::limit`](crate::PageRequest::limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The keys of [`PageRequest::sorting`](crate::PageRequest::sorting).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorting_keys: Option<Vec<String>>,
    /// The orders of [`PageRequest::sorting`](crate::PageRequest::sorting).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorting_order: Option<Vec<SortOrder>>,
}

/// How many pages a list may have: far more than any of Pleo's, and an end all the same.
const MOST: usize = 10_000;

type Fetched<T> = Pin<Box<dyn Future<Output = Result<Page<T>, Error>> + Send>>;
type Fetch<T> = Box<dyn FnMut(Option<Cursor>) -> Fetched<T> + Send>;

/// Every entry of a list, from the page that was asked for to the last one. The next page is fetched
/// when the one before is used up, up to 10,000 of them.
///
/// It is a [`Stream`]; [`Self::next`] serves where nothing else needs one. After an error it ends.
#[must_use = "nothing is fetched until it is asked for"]
pub struct Pages<T> {
    fetch: Fetch<T>,
    entries: VecDeque<T>,
    /// The ends of the pages so far.
    ends: HashSet<Cursor>,
    state: State<T>,
}

enum State<T> {
    /// The page behind this cursor is to be fetched, or the first one.
    Next(Option<Cursor>),
    /// It is being fetched.
    Fetching(Fetched<T>),
    /// There should be more, but it can't be had. The error is told once.
    Broken(Option<Error>),
    End,
}

impl<T> Pages<T> {
    pub(crate) fn new<Q, F>(mut query: Q, fetch: impl Fn(Q) -> F + Send + 'static) -> Self
    where
        Q: Query<Item = T> + Clone + 'static,
        F: Future<Output = Result<Page<T>, Error>> + Send + 'static,
    {
        Self {
            fetch: Box::new(move |cursor| {
                if let Some(cursor) = cursor {
                    query.select().place = Some(PageStart::After(cursor));
                }
                Box::pin(fetch(query.clone()))
            }),
            entries: VecDeque::new(),
            ends: HashSet::new(),
            state: State::Next(None),
        }
    }

    /// The next entry; `None` after the last.
    ///
    /// # Errors
    /// The page that it is on could not be fetched.
    pub async fn next(&mut self) -> Option<Result<T, Error>>
    where
        T: Unpin,
    {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<T: Unpin> Stream for Pages<T> {
    type Item = Result<T, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(entry) = this.entries.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            this.state = match &mut this.state {
                State::Next(cursor) => State::Fetching((this.fetch)(cursor.take())),
                State::Fetching(fetched) => match ready!(fetched.as_mut().poll(context)) {
                    Ok(page) => {
                        this.entries = page.data.into();
                        page.pagination.following(&mut this.ends)
                    }
                    Err(error) => {
                        this.state = State::End;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Broken(error) => return Poll::Ready(error.take().map(Err)),
                State::End => return Poll::Ready(None),
            };
        }
    }
}

impl Pagination {
    /// A cursor that leads back would be followed for ever, and so would one after the other.
    fn following<T>(self, ends: &mut HashSet<Cursor>) -> State<T> {
        match self.end_cursor {
            _ if !self.has_next_page => State::End,
            Some(_) if ends.len() + 1 == MOST => {
                State::Broken(Some(Error::TooManyPages { pages: MOST }))
            }
            Some(end) if ends.insert(end.clone()) => State::Next(Some(end)),
            _ => State::Broken(Some(Error::NoNextPage)),
        }
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("fetched", &self.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use core::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{ExportJob, ExportJobList};

    #[tokio::test]
    async fn a_list_without_end_ends_with_an_error() {
        const JOB: &str = r#"{"id": "0190163d-8694-739b-aea5-966c26f8ad90"}"#;
        let fetched = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&fetched);
        let mut pages = Pages::new(ExportJobList::default(), move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            // In the alphabet of a cursor, and another one each time.
            let cursor = format!("{number:b}").replace('0', "A").replace('1', "B");
            let page: Page<ExportJob> = serde_json::from_str(&format!(
                r#"{{"data": [{JOB}], "pagination": {{"hasNextPage": true, "hasPreviousPage": false,
                    "endCursor": "{cursor}"}}}}"#
            ))
            .unwrap();
            ready(Ok(page))
        });
        for _ in 0..MOST {
            pages.next().await.unwrap().unwrap();
        }
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(
            matches!(error, Error::TooManyPages { pages: MOST }),
            "{error:?}"
        );
        assert!(pages.next().await.is_none(), "it ends");
        assert_eq!(fetched.load(Ordering::Relaxed), 10_000);
    }
}
