//! Requests for lists: filters, page, order.

use core::fmt;
use core::str::FromStr;

use pleo_events::open_enum;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};

use crate::subscription::{Activity, OperationType, Status, Subscription};

/// A list request as URL query parameters.
pub(crate) trait Query {
    type Item: DeserializeOwned + Send + 'static;

    /// Returns the names and values, not percent-encoded.
    fn pairs(&self) -> Vec<(&'static str, String)>;

    fn page(&mut self) -> &mut PageRequest;
}

/// Selects one page of a list, its length and its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageRequest {
    /// Where the page starts; `None` means the start of the list.
    pub start: Option<PageStart>,
    /// The maximum number of entries; `None` means Pleo's default.
    pub limit: Option<u32>,
    /// The sort keys, such as `createdAt`, the most significant first.
    pub sorting: Vec<(String, SortOrder)>,
}

impl PageRequest {
    /// Sets where the page starts.
    #[must_use]
    pub fn with_start(mut self, start: PageStart) -> Self {
        self.start = Some(start);
        self
    }

    /// Sets the maximum number of entries.
    #[must_use]
    pub const fn with_limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Adds a sort key, less significant than those before it.
    #[must_use]
    pub fn with_sorting(mut self, key: impl Into<String>, order: SortOrder) -> Self {
        self.sorting.push((key.into(), order));
        self
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let start = self.start.as_ref().map(|start| match start {
            PageStart::Before(cursor) => ("before", cursor.0.clone()),
            PageStart::After(cursor) => ("after", cursor.0.clone()),
            PageStart::Offset(offset) => ("offset", offset.to_string()),
        });
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let keys = self.sorting.iter();
        let keys = keys.map(|(key, _)| ("sorting_keys", key.clone()));
        let orders = self.sorting.iter();
        let orders = orders.map(|(_, order)| ("sorting_order", order.to_string()));
        start.into_iter().chain(limit).chain(keys).chain(orders)
    }
}

/// Where a page of a list starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageStart {
    /// The page ends before this cursor: the previous page of the one with this
    /// [`start_cursor`](crate::Pagination::start_cursor).
    Before(Cursor),
    /// The page starts after this cursor: the next page of the one with this
    /// [`end_cursor`](crate::Pagination::end_cursor).
    After(Cursor),
    /// The page starts after this number of entries.
    Offset(u64),
}

/// A position in a list: one or more of `A` to `Z`, `2` to `7`, `=` and `~`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// Returns the cursor as Pleo spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let is_allowed = |byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7' | b'=' | b'~');
        if text.is_empty() || !text.bytes().all(is_allowed) {
            return Err(CursorError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; pass the `startCursor` or `endCursor` of another page")]
#[non_exhaustive]
pub struct CursorError;

open_enum! {
    /// The order of one sort key.
    SortOrder {
        /// Ascending; Pleo decides where null values go.
        Ascending = "ASC",
        /// Ascending, null values first.
        AscendingNullsFirst = "ASC_NULLS_FIRST",
        /// Ascending, null values last.
        AscendingNullsLast = "ASC_NULLS_LAST",
        /// Descending; Pleo decides where null values go.
        Descending = "DESC",
        /// Descending, null values first.
        DescendingNullsFirst = "DESC_NULLS_FIRST",
        /// Descending, null values last.
        DescendingNullsLast = "DESC_NULLS_LAST",
    }
}

/// Selects subscriptions: `GET /v1/subscriptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionList {
    /// Only subscriptions with this status; `None` means any.
    pub status: Option<Status>,
    /// Only subscriptions to one of these event types; empty means any.
    pub event_types: Vec<String>,
    /// Which page, its length and its order.
    pub page: PageRequest,
}

impl SubscriptionList {
    /// Selects only subscriptions with this status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Selects only subscriptions to one of these event types.
    #[must_use]
    pub fn with_event_types<T: Into<String>>(
        mut self,
        event_types: impl IntoIterator<Item = T>,
    ) -> Self {
        self.event_types = event_types.into_iter().map(Into::into).collect();
        self
    }

    /// Sets which page to request.
    #[must_use]
    pub fn with_page(mut self, page: PageRequest) -> Self {
        self.page = page;
        self
    }
}

impl Query for SubscriptionList {
    type Item = Subscription;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let status = self.status.iter();
        let status = status.map(|status| ("status", status.to_string()));
        let event_types = self.event_types.iter();
        let event_types = event_types.map(|event_type| ("event_types", event_type.clone()));
        status.chain(event_types).chain(self.page.pairs()).collect()
    }

    fn page(&mut self) -> &mut PageRequest {
        &mut self.page
    }
}

/// Selects activities of a subscription: `GET /v1/subscriptions/{id}/activities`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActivityList {
    /// Only operations of these types; empty means any.
    pub operation_types: Vec<OperationType>,
    /// Which page, its length and its order.
    pub page: PageRequest,
}

impl ActivityList {
    /// Selects only operations of these types.
    #[must_use]
    pub fn with_operation_types(
        mut self,
        operation_types: impl IntoIterator<Item = OperationType>,
    ) -> Self {
        self.operation_types = operation_types.into_iter().collect();
        self
    }

    /// Sets which page to request.
    #[must_use]
    pub fn with_page(mut self, page: PageRequest) -> Self {
        self.page = page;
        self
    }
}

impl Query for ActivityList {
    type Item = Activity;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let types = self.operation_types.iter();
        let types = types.map(|kind| ("operation_types", kind.to_string()));
        types.chain(self.page.pairs()).collect()
    }

    fn page(&mut self) -> &mut PageRequest {
        &mut self.page
    }
}
