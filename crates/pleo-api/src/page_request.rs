//! Which page of a list is requested, its length and order.

use core::fmt;
use core::str::FromStr;

use pleo_events::open_enum;
use serde::de;
use serde::{Deserialize, Deserializer};

/// The name and value of a URL query parameter, not percent-encoded.
pub(crate) type Parameter = (&'static str, String);

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
    /// Requests the page after this cursor, such as [`Pages::cursor`](crate::Pages::cursor).
    #[must_use]
    pub fn after(cursor: Cursor) -> Self {
        Self::default().with_start(PageStart::After(cursor))
    }

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

    /// Returns the parameters, without those of [`Self::start`].
    pub(crate) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let keys = self.sorting.iter();
        let keys = keys.map(|(key, _)| ("sorting_keys", key.clone()));
        let orders = self.sorting.iter();
        let orders = orders.map(|(_, order)| ("sorting_order", order.to_string()));
        limit.into_iter().chain(keys).chain(orders)
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

impl PageStart {
    pub(crate) fn parameter(&self) -> Parameter {
        match self {
            Self::Before(cursor) => ("before", cursor.0.clone()),
            Self::After(cursor) => ("after", cursor.0.clone()),
            Self::Offset(offset) => ("offset", offset.to_string()),
        }
    }
}

/// A position in a list: one or more of `A` to `Z`, `2` to `7`, `=` and `~`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
