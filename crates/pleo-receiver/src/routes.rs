//! The endpoints of a receiver, by path.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::metrics::{Accepted, Metrics};

/// Each endpoint by its path.
pub(crate) type Routes = HashMap<String, Arc<Route>>;

pub(crate) struct Route {
    pub(crate) endpoint: Endpoint,
    pub(crate) accepted: Accepted,
}

pub(crate) fn routes(
    endpoints: impl IntoIterator<Item = Endpoint>,
    metrics: &Metrics,
) -> Result<Routes, BuildError> {
    let (mut routes, mut names) = (Routes::new(), HashSet::new());
    for endpoint in endpoints {
        let (name, path) = (endpoint.name(), endpoint.path().to_owned());
        if routes.contains_key(&path) {
            return Err(BuildError::SamePath { path });
        }
        if !names.insert(Arc::clone(name)) {
            let name = name.to_string();
            return Err(BuildError::SameName { name });
        }
        let accepted = metrics.accepted(name);
        routes.insert(path, Arc::new(Route { endpoint, accepted }));
    }
    if routes.is_empty() {
        return Err(BuildError::NoEndpoint);
    }
    Ok(routes)
}

/// Why a receiver couldn't be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It would take nothing.
    #[error("there is no endpoint: add at least one")]
    NoEndpoint,
    /// It could keep nothing.
    #[error("there is no inbox: set one")]
    NoInbox,
    /// A request couldn't be told apart.
    #[error("two endpoints have the path `{path}`: give each its own")]
    SamePath {
        /// The path.
        path: String,
    },
    /// A stored message couldn't be told apart.
    #[error("two endpoints have the name `{name}`: give each its own")]
    SameName {
        /// The name.
        name: String,
    },
}
