//! Export jobs: the part of the Export API that lists them.

use core::fmt;

use pleo_events::{ExportJob, ExportJobStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::list::PageRequest;
use crate::list::Query;

/// An entry of a list of export jobs, with the JSON text that Pleo sent.
///
/// The text is parsed only by [`Self::parse`]: a list with a malformed job still yields the others.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ListedExportJob(Box<RawValue>);

impl ListedExportJob {
    /// Returns the job's JSON text, byte for byte.
    #[must_use]
    pub fn json(&self) -> &RawValue {
        &self.0
    }

    /// Parses the job.
    ///
    /// # Errors
    /// [`Error::InvalidResponse`] if it isn't an export job; line and column count from the start of
    /// [`Self::json`].
    pub fn parse(&self) -> Result<ExportJob, Error> {
        serde_json::from_str(self.0.get()).map_err(|error| Error::invalid_response(&error))
    }
}

impl fmt::Debug for ListedExportJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedExportJob").finish_non_exhaustive()
    }
}

/// Selects export jobs: `GET /v3/export-jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportJobList {
    /// Only jobs with one of these statuses; empty means any.
    pub statuses: Vec<ExportJobStatus>,
    /// Which page, its length and its order.
    pub page: PageRequest,
}

impl ExportJobList {
    /// Selects the jobs whose processing has not started.
    #[must_use]
    pub fn pending() -> Self {
        Self::default().with_statuses([ExportJobStatus::Pending])
    }

    /// Selects only jobs with one of these statuses.
    #[must_use]
    pub fn with_statuses(mut self, statuses: impl IntoIterator<Item = ExportJobStatus>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// Sets which page to request.
    #[must_use]
    pub fn with_page(mut self, page: PageRequest) -> Self {
        self.page = page;
        self
    }
}

impl Query for ExportJobList {
    type Item = ListedExportJob;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let statuses = self.statuses.iter();
        let statuses = statuses.map(|status| ("statuses", status.to_string()));
        statuses.chain(self.page.pairs()).collect()
    }

    fn page(&mut self) -> &mut PageRequest {
        &mut self.page
    }
}
