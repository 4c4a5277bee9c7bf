//! The endpoints of a receiver by path.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::endpoint::Endpoint;
use crate::measure::EndpointMeter;
use crate::metrics::Accepted;
use crate::removed::RemovedSecrets;
use crate::telemetry::Telemetry;

/// Endpoints by path.
pub(crate) type Routes = HashMap<String, Arc<Route>>;

/// An endpoint with its counters and meter.
pub(crate) struct Route {
    pub(crate) endpoint: Endpoint,
    pub(crate) accepted: Accepted,
    pub(crate) meter: Arc<EndpointMeter>,
    pub(crate) removed: RemovedSecrets,
}

/// Maps endpoints by path. There must be at least one, and paths and names must be unique. Remembers
/// the secrets that the endpoints had before.
pub(crate) fn routes(
    endpoints: impl IntoIterator<Item = Endpoint>,
    before: &Routes,
    telemetry: &Telemetry,
) -> Result<Routes, BuildError> {
    let before = before.values();
    let before: HashMap<_, _> = before.map(|route| (route.endpoint.name(), route)).collect();
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
        let removed = before.get(name).map(|old| {
            let secrets = old.endpoint.secrets();
            (old.removed).replaced(secrets, endpoint.secrets(), Instant::now())
        });
        let route = Route {
            removed: removed.unwrap_or_default(),
            accepted: telemetry.metrics.accepted(name),
            meter: telemetry.meters.endpoint(name),
            endpoint,
        };
        routes.insert(path, Arc::new(route));
    }
    if routes.is_empty() {
        return Err(BuildError::NoEndpoint);
    }
    Ok(routes)
}

/// Why a receiver cannot be built, its endpoints cannot be replaced, or it has no service for an
/// endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no endpoint.
    #[error("no endpoint: add at least one")]
    NoEndpoint,
    /// Two endpoints have the same path.
    #[error("two endpoints have the path `{path}`: give each its own")]
    SamePath {
        /// The path.
        path: String,
    },
    /// Two endpoints have the same name, which is part of a message's key.
    #[error("two endpoints have the name `{name}`: give each its own")]
    SameName {
        /// The name.
        name: String,
    },
    /// No endpoint has the name.
    #[error(
        "no endpoint has the name `{name}`: use the path of the endpoint, or the name it was given"
    )]
    NoSuchEndpoint {
        /// The name.
        name: String,
    },
}
