//! Pages of lists, and streams over all pages.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::HashSet;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::list::Query;
use crate::list::{Cursor, PageStart, SortOrder};
use crate::sensitive::Extra;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The page's entries.
    pub data: Vec<T>,
    /// The page's position in the list.
    pub pagination: Pagination,
}

/// The position of a page in its list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pagination {
    /// Whether there is a next page.
    pub has_next_page: bool,
    /// Whether there is a previous page.
    pub has_previous_page: bool,
    /// The position of the page's first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_cursor: Option<Cursor>,
    /// The position of the page's last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_cursor: Option<Cursor>,
    /// The number of entries of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// The request as Pleo understood it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_request_pagination: Option<CurrentRequest>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The request of a page as Pleo understood it.
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

/// The maximum number of pages of a list, far above Pleo's longest. Ends an endless list.
const MAX_PAGES: usize = 10_000;

/// A [`Stream`] over every entry of a list, from the requested page to the last one.
///
/// Fetches a page when the entries of the previous one are consumed. Ends after an error, and with
/// [`Error::TooManyPages`] after 10,000 pages. [`Self::next`] needs no stream library.
#[must_use = "streams fetch nothing unless polled"]
pub struct Pages<T>(Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>);

impl<T: Send + 'static> Pages<T> {
    pub(crate) fn new<Q, F, P>(query: Q, fetch: F) -> Self
    where
        Q: Query<Item = T> + Clone + Send + 'static,
        F: Fn(Q) -> P + Send + 'static,
        P: Future<Output = Result<Page<T>, Error>> + Send + 'static,
    {
        let pager = Pager {
            fetch,
            query,
            last: None,
            seen: HashSet::new(),
        };
        let pages = stream::try_unfold(pager, Pager::next);
        let entries = pages.map_ok(|entries| stream::iter(entries).map(Ok));
        Self(Box::pin(entries.try_flatten()))
    }
}

impl<T> Pages<T> {
    /// Returns the next entry, or `None` after the last.
    ///
    /// # Errors
    /// See [`Error`]. The entry's page could not be fetched.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        self.0.next().await
    }
}

impl<T> Stream for Pages<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// Fetches one page after another.
struct Pager<Q, F> {
    fetch: F,
    query: Q,
    last: Option<Pagination>,
    /// The end cursors so far: a repeated one would loop forever.
    seen: HashSet<Cursor>,
}

impl<Q: Query + Clone, F> Pager<Q, F> {
    async fn next<P>(mut self) -> Result<Option<(Vec<Q::Item>, Self)>, Error>
    where
        F: Fn(Q) -> P,
        P: Future<Output = Result<Page<Q::Item>, Error>>,
    {
        if let Some(last) = self.last {
            if !last.has_next_page {
                return Ok(None);
            }
            let cursor = last.end_cursor.ok_or(Error::NoNextPage)?;
            if self.seen.len() + 1 == MAX_PAGES {
                return Err(Error::TooManyPages { pages: MAX_PAGES });
            }
            if !self.seen.insert(cursor.clone()) {
                return Err(Error::NoNextPage);
            }
            self.query.page().start = Some(PageStart::After(cursor));
        }
        let fetching = (self.fetch)(self.query.clone());
        let page = fetching.await?;
        self.last = Some(page.pagination);
        Ok(Some((page.data, self)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use core::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use pleo_events::samples;
    use serde_json::json;

    use super::*;
    use crate::export_job::{ExportJobList, ListedExportJob};
    use crate::jiff::Timestamp;
    use crate::uuid::Uuid;

    #[tokio::test]
    async fn endless_list_fails() {
        let job = samples::export_job(Uuid::nil(), Uuid::nil(), Timestamp::UNIX_EPOCH);
        let fetched = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&fetched);
        let mut pages = Pages::new(ExportJobList::default(), move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            // Another cursor each time, in the alphabet of cursors.
            let cursor = format!("{number:b}").replace('0', "A").replace('1', "B");
            let page = json!({
                "data": [job],
                "pagination": { "hasNextPage": true, "hasPreviousPage": false, "endCursor": cursor },
            });
            let page: Page<ListedExportJob> = serde_json::from_value(page).unwrap();
            ready(Ok(page))
        });
        for _ in 0..MAX_PAGES {
            pages.next().await.unwrap().unwrap();
        }
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(
            matches!(error, Error::TooManyPages { pages: MAX_PAGES }),
            "{error:?}"
        );
        assert!(pages.next().await.is_none(), "the stream ends");
        assert_eq!(fetched.load(Ordering::Relaxed), 10_000);
    }
}
