//! Queries of lists: what they select.

use core::fmt;

use pleo_events::ExportJobStatus;

use crate::page_request::{PageRequest, Parameter};
use crate::subscription::{OperationType, Status};

/// Selects subscriptions: `GET /v1/subscriptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionQuery {
    /// Only subscriptions with this status; `None` means any.
    pub status: Option<Status>,
    /// Only subscriptions to one of these event types; `None` means any, an empty list selects
    /// nothing.
    pub event_types: Option<Vec<String>>,
    /// Which page comes first, the pages' length and order.
    pub page: PageRequest,
}

impl SubscriptionQuery {
    /// Selects all subscriptions.
    #[must_use]
    pub fn all() -> Self {
        Self {
            status: None,
            event_types: None,
            page: PageRequest::default(),
        }
    }

    /// Selects only subscriptions with this status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Selects only subscriptions to one of these event types. An empty list selects nothing.
    #[must_use]
    pub fn with_event_types<T: Into<String>>(
        mut self,
        event_types: impl IntoIterator<Item = T>,
    ) -> Self {
        self.event_types = Some(event_types.into_iter().map(Into::into).collect());
        self
    }

    /// Sets which page comes first, the pages' length and order.
    #[must_use]
    pub fn with_page(mut self, page: PageRequest) -> Self {
        self.page = page;
        self
    }

    pub(crate) fn filters(&self) -> Filters {
        let status = self.status.as_ref().map(core::slice::from_ref);
        Filters::default()
            .with("status", status)
            .with("event_types", self.event_types.as_deref())
    }
}

/// Selects activities of a subscription: `GET /v1/subscriptions/{id}/activities`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActivityQuery {
    /// Only operations of these types; `None` means any, an empty list selects nothing.
    pub operation_types: Option<Vec<OperationType>>,
    /// Which page comes first, the pages' length and order.
    pub page: PageRequest,
}

impl ActivityQuery {
    /// Selects all activities.
    #[must_use]
    pub fn all() -> Self {
        Self {
            operation_types: None,
            page: PageRequest::default(),
        }
    }

    /// Selects only operations of these types. An empty list selects nothing.
    #[must_use]
    pub fn with_operation_types(
        mut self,
        operation_types: impl IntoIterator<Item = OperationType>,
    ) -> Self {
        self.operation_types = Some(operation_types.into_iter().collect());
        self
    }

    /// Sets which page comes first, the pages' length and order.
    #[must_use]
    pub fn with_page(mut self, page: PageRequest) -> Self {
        self.page = page;
        self
    }

    pub(crate) fn filters(&self) -> Filters {
        Filters::default().with("operation_types", self.operation_types.as_deref())
    }
}

/// Selects export jobs: `GET /v3/export-jobs`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportJobQuery {
    /// Only jobs with one of these statuses; `None` means any, an empty list selects nothing.
    pub statuses: Option<Vec<ExportJobStatus>>,
    /// Which page comes first, the pages' length and order.
    pub page: PageRequest,
}

impl ExportJobQuery {
    /// Selects all jobs.
    #[must_use]
    pub fn all() -> Self {
        Self {
            statuses: None,
            page: PageRequest::default(),
        }
    }

    /// Selects the jobs whose processing has not started.
    #[must_use]
    pub fn pending() -> Self {
        Self::all().with_statuses([ExportJobStatus::Pending])
    }

    /// Selects only jobs with one of these statuses. An empty list selects nothing.
    #[must_use]
    pub fn with_statuses(mut self, statuses: impl IntoIterator<Item = ExportJobStatus>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// Sets which page comes first, the pages' length and order.
    #[must_use]
    pub fn with_page(mut self, page: PageRequest) -> Self {
        self.page = page;
        self
    }

    pub(crate) fn filters(&self) -> Filters {
        Filters::default().with("statuses", self.statuses.as_deref())
    }
}

/// The filters of a query as parameters.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    pub(crate) parameters: Vec<Parameter>,
    /// A filter is an empty list. Without its parameter, Pleo would return everything.
    pub(crate) selects_nothing: bool,
}

impl Filters {
    fn with(mut self, name: &'static str, values: Option<&[impl fmt::Display]>) -> Self {
        self.selects_nothing |= values.is_some_and(<[_]>::is_empty);
        let values = values.unwrap_or_default().iter();
        self.parameters
            .extend(values.map(|value| (name, value.to_string())));
        self
    }
}
