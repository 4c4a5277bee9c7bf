//! Which part of a list to ask for.

use core::fmt;
use core::str::FromStr;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Activity, OperationType, Status, Subscription};

/// A list that can be asked for: its filters as the query of a URL.
pub(crate) trait Query: Send {
    type Item: DeserializeOwned + Send;

    /// Names and values, not yet encoded.
    fn pairs(&self) -> Vec<(&'static str, String)>;

    fn select(&mut self) -> &mut PageRequest;
}

/// Which page of a list, how long and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Where the page is; at the beginning where it is `None`.
    pub place: Option<PageStart>,
    /// The most entries of a page; as many as Pleo likes where it is `None`.
    pub limit: Option<u32>,
    /// By which keys to sort, the first one first, such as `createdAt`.
    pub sorting: Vec<(String, SortOrder)>,
}

impl PageRequest {
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let place = self.place.as_ref().map(|place| match place {
            PageStart::Before(cursor) => ("before", cursor.0.clone()),
            PageStart::After(cursor) => ("after", cursor.0.clone()),
            PageStart::Offset(offset) => ("offset", offset.to_string()),
        });
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let keys = self.sorting.iter();
        let keys = keys.map(|(key, _)| ("sorting_keys", key.clone()));
        let orders = self.sorting.iter();
        let orders = orders.map(|(_, order)| ("sorting_order", order.to_string()));
        place.into_iter().chain(limit).chain(keys).chain(orders)
    }
}

/// Where a page of a list is. The three ways exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageStart {
    /// It ends before this cursor: the page that comes before the one whose
    /// [`start_cursor`](crate::Pagination::start_cursor) this is.
    Before(Cursor),
    /// It begins after this cursor: the page that follows the one whose
    /// [`end_cursor`](crate::Pagination::end_cursor) this is.
    After(Cursor),
    /// It begins after so many entries.
    Offset(u64),
}

/// A place in a list, as Pleo names it: one or more of `A` to `Z`, `2` to `7`, `=` and `~`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor as Pleo spells it.
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
        let fits = |byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7' | b'=' | b'~');
        if text.is_empty() || !text.bytes().all(fits) {
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
#[error("not a cursor: take the `startCursor` or `endCursor` of another page")]
pub struct CursorError;

open_enum! {
    /// How to sort by one key.
    SortOrder {
        /// The smallest first:
        Ascending = "ASC",
        /// The smallest first, and before it what has no value:
        AscendingNullsFirst = "ASC_NULLS_FIRST",
        /// The smallest first, and at the end what has no value:
        AscendingNullsLast = "ASC_NULLS_LAST",
        /// The largest first:
        Descending = "DESC",
        /// The largest first, and before it what has no value:
        DescendingNullsFirst = "DESC_NULLS_FIRST",
        /// The largest first, and at the end what has no value:
        DescendingNullsLast = "DESC_NULLS_LAST",
    }
}

/// Which subscriptions to list: `GET /v1/subscriptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionList {
    /// Only those with this status.
    pub status: Option<Status>,
    /// Only those for one of these event types; all where there is none.
    pub event_types: Vec<String>,
    /// Which page, how long and in which order.
    pub select: PageRequest,
}

impl Query for SubscriptionList {
    type Item = Subscription;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let status = self.status.iter();
        let status = status.map(|status| ("status", status.to_string()));
        let event_types = self.event_types.iter();
        let event_types = event_types.map(|event_type| ("event_types", event_type.clone()));
        status
            .chain(event_types)
            .chain(self.select.pairs())
            .collect()
    }

    fn select(&mut self) -> &mut PageRequest {
        &mut self.select
    }
}

/// Which activities of a subscription to list: `GET /v1/subscriptions/{id}/activities`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivityList {
    /// Only operations of these types; all where there is none.
    pub operation_types: Vec<OperationType>,
    /// Which page, how long and in which order.
    pub select: PageRequest,
}

impl Query for ActivityList {
    type Item = Activity;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let types = self.operation_types.iter();
        let types = types.map(|kind| ("operation_types", kind.to_string()));
        types.chain(self.select.pairs()).collect()
    }

    fn select(&mut self) -> &mut PageRequest {
        &mut self.select
    }
}
