//! The calls of the Export API: lists export jobs.

use core::fmt;
use std::sync::Arc;

use pleo_events::ExportJob;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::pages::Pages;
use crate::query::ExportJobQuery;
use crate::transport::Transport;

/// The export jobs that a client's credentials give access to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ExportJobs(Arc<Transport>);

impl ExportJobs {
    pub(crate) const fn new(transport: Arc<Transport>) -> Self {
        Self(transport)
    }

    /// Lists the export jobs that a query selects, from its first page to the last. Finds the jobs
    /// whose webhooks were lost. Needs the scope `export-jobs:read`.
    pub fn list(&self, query: ExportJobQuery) -> Pages<ListedExportJob> {
        let path = "/v3/export-jobs".to_owned();
        Pages::new(Arc::clone(&self.0), path, query.filters(), query.page)
    }
}

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
