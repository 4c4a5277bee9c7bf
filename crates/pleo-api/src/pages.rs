//! Lists that are fetched page by page.

use core::fmt;
use core::hash::BuildHasher as _;
use std::collections::HashSet;
use std::hash::RandomState;
use std::sync::Arc;
use std::vec;

use futures_util::stream::{self, Stream};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::page_request::{Cursor, PageRequest, PageStart, Parameter, SortOrder};
use crate::query::Filters;
use crate::sensitive::Extra;
use crate::transport::{Call, Transport};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The page's entries.
    pub data: Vec<T>,
    /// The page's position in the list.
    pub pagination: Pagination,
}

/// The position of a page in its list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pagination {
    /// Whether there is a next page.
    pub has_next_page: bool,
    /// Whether there is a previous page.
    pub has_previous_page: bool,
    /// The position of the page's first entry.
    pub start_cursor: Option<Cursor>,
    /// The position of the page's last entry.
    pub end_cursor: Option<Cursor>,
    /// The number of entries of the list.
    pub total: Option<u64>,
    /// The request as Pleo understood it.
    pub current_request_pagination: Option<CurrentRequest>,
    /// Fields that this version doesn't know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The request of a page as Pleo understood it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CurrentRequest {
    /// The filters.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// See [`PageStart::Before`].
    pub before: Option<Cursor>,
    /// See [`PageStart::After`].
    pub after: Option<Cursor>,
    /// See [`PageStart::Offset`].
    pub offset: Option<u64>,
    /// See [`PageRequest::limit`].
    pub limit: Option<u32>,
    /// The keys of [`PageRequest::sorting`].
    pub sorting_keys: Option<Vec<String>>,
    /// The orders of [`PageRequest::sorting`].
    pub sorting_order: Option<Vec<SortOrder>>,
}

/// The maximum number of pages of a list, far above Pleo's longest. Ends an endless list.
const MAX_PAGES: usize = 10_000;

/// A list that is fetched page by page, each when it is needed.
///
/// An error leaves the position unchanged: the next call requests the same page again. A program can
/// therefore wait after an error that [is transient](Error::is_transient), and go on. Dropping a
/// future of [`Self::next`] or [`Self::next_page`] loses no entry either.
#[must_use = "a list is fetched only when it is read"]
pub struct Pages<T> {
    transport: Arc<Transport>,
    path: String,
    /// The filters, the length of the pages and their order.
    parameters: Vec<Parameter>,
    selects_nothing: bool,
    /// Where the current page starts, or the first one before it is fetched.
    start: Option<PageStart>,
    /// The position of the current page.
    current: Option<Pagination>,
    /// The entries of the current page that are not yet returned.
    entries: vec::IntoIter<T>,
    fetched: usize,
    /// Hashes of the cursors so far: a repeated one would loop forever.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl<T> Pages<T> {
    pub(crate) fn new(
        transport: Arc<Transport>,
        path: String,
        filters: Filters,
        page: PageRequest,
    ) -> Self {
        let mut parameters = filters.parameters;
        parameters.extend(page.parameters());
        Self {
            transport,
            path,
            parameters,
            selects_nothing: filters.selects_nothing,
            start: page.start,
            current: None,
            entries: Vec::new().into_iter(),
            fetched: 0,
            seen: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Returns the cursor to continue from, with a query that has [`PageRequest::after`]: that of
    /// the last page that was read to its end. Continuing from it repeats the entries that were read
    /// of the page after it, and skips none.
    ///
    /// `None` means that no page was read to its end: start with the first query again.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        let end = self
            .current
            .as_ref()
            .and_then(|page| page.end_cursor.as_ref());
        if let (Some(end), true) = (end, self.entries.as_slice().is_empty()) {
            return Some(end);
        }
        match &self.start {
            Some(PageStart::After(cursor)) => Some(cursor),
            _ => None,
        }
    }

    /// Returns where the next page starts, or `None` if there is no next page.
    fn next_start(&self) -> Result<Option<PageStart>, Error> {
        let Some(current) = self.current.as_ref().filter(|page| page.has_next_page) else {
            return Ok(None);
        };
        let cursor = current.end_cursor.as_ref().ok_or(Error::NoNextPage)?;
        if self.seen.contains(&self.hasher.hash_one(cursor)) {
            return Err(Error::NoNextPage);
        }
        if self.fetched == MAX_PAGES {
            return Err(Error::TooManyPages { pages: MAX_PAGES });
        }
        Ok(Some(PageStart::After(cursor.clone())))
    }
}

impl<T: DeserializeOwned> Pages<T> {
    /// Returns the next entry, or `None` after the last.
    ///
    /// # Errors
    /// See [`Error`]. The entry's page could not be fetched; the next call requests it again.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            match self.next_page().await? {
                Some(page) => self.entries = page.data.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// Returns the next page, or `None` after the last. If [`Self::next`] has returned some entries
    /// of a page, returns the others.
    ///
    /// # Errors
    /// [`Error::NoNextPage`] and [`Error::TooManyPages`] if the list has no end; see [`Error`] for
    /// the rest. The next call requests the page again.
    pub async fn next_page(&mut self) -> Result<Option<Page<T>>, Error> {
        if let (Some(current), false) = (&self.current, self.entries.as_slice().is_empty()) {
            let pagination = current.clone();
            let data = self.entries.by_ref().collect();
            return Ok(Some(Page { data, pagination }));
        }
        let start = match &self.current {
            None if self.selects_nothing => return Ok(None),
            None => self.start.clone(),
            Some(_) => match self.next_start()? {
                Some(start) => Some(start),
                None => return Ok(None),
            },
        };
        let mut call = Call::new(Method::GET, self.path.clone());
        call.query.extend(start.as_ref().map(PageStart::parameter));
        call.query.extend(self.parameters.iter().cloned());
        let page: Page<T> = self.transport.send(&call).await.0?.json()?;
        if let Some(PageStart::After(cursor)) = &start {
            self.seen.insert(self.hasher.hash_one(cursor));
        }
        self.start = start;
        self.current = Some(page.pagination.clone());
        self.fetched += 1;
        Ok(Some(page))
    }

    /// Returns the entries as a [`Stream`], which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<T, Error>> + Send + Unpin
    where
        T: Send,
    {
        Box::pin(stream::try_unfold(self, |mut pages| async move {
            let entry = pages.next().await?;
            Ok(entry.map(|entry| (entry, pages)))
        }))
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("path", &self.path)
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}
