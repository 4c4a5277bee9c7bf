//! The reading side of the Export API, as far as catching up needs it.

use core::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::PageRequest;
use crate::list::Query;

/// An export job as the Export API answers it: the same object that is the `data` of a webhook.
#[derive(Clone)]
pub struct ExportJob {
    /// The job.
    pub id: Uuid,
    /// All of it, byte for byte. `pleo-events` knows what is in it.
    pub json: Box<RawValue>,
}

impl fmt::Debug for ExportJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportJob")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for ExportJob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Id {
            id: Uuid,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Id { id } = serde_json::from_str(json.get()).map_err(de::Error::custom)?;
        Ok(Self { id, json })
    }
}

/// Which export jobs to list: `GET /v3/export-jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportJobList {
    /// Only those in one of these states, such as `pending`; all where there is none.
    pub statuses: Vec<String>,
    /// Which page, how long and in which order.
    pub select: PageRequest,
}

impl ExportJobList {
    /// Those that nobody has started yet.
    #[must_use]
    pub fn pending() -> Self {
        Self {
            statuses: vec!["pending".to_owned()],
            select: PageRequest::default(),
        }
    }
}

impl Query for ExportJobList {
    type Item = ExportJob;

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let statuses = self.statuses.iter();
        let statuses = statuses.map(|status| ("statuses", status.clone()));
        statuses.chain(self.select.pairs()).collect()
    }

    fn select(&mut self) -> &mut PageRequest {
        &mut self.select
    }
}
