//! Export jobs: the part of the Export API that lists them.

use pleo_events::{ExportJob, ExportJobStatus};

use crate::list::PageRequest;
use crate::list::Query;

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
    type Item = ExportJob;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let statuses = self.statuses.iter();
        let statuses = statuses.map(|status| ("statuses", status.to_string()));
        statuses.chain(self.page.pairs()).collect()
    }

    fn page(&mut self) -> &mut PageRequest {
        &mut self.page
    }
}
